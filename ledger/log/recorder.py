"""The log in PostgreSQL, on `eventsourcing`'s recorder.

The library gives the table, the notification log, subscriptions and tracking. Two things are
ours. All writers take one advisory lock before they read the tail, so that positions have no
gaps and nobody decides on old state; and a batch goes in as one prepared statement.

A batch is two messages: begin and lock; append and commit. The second may ask for the next begin
too, so that this process stands in the lock's queue from the moment it lets go.
"""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, cast
from urllib.parse import unquote, urlsplit

import psycopg
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore
from psycopg.adapt import Transformer
from psycopg.pq.abc import PGresult
from psycopg.rows import tuple_row

from ledger.log.columns import Columns, array_of_bigint, array_of_bytea, array_of_text
from ledger.log.encoding import EPOCH, NO_HASH, EventRow, OutcomeRow, Sealed, microseconds
from ledger.log.model import SideTable
from ledger.log.rows import deleting, encode_rows, putting, reading
from ledger.log.unit_of_work import RowKey
from ledger.log.wire import Statement, Wire

LOG_LOCK = struct.unpack("!q", b"creditlg")[0]
CHANNEL = "stored_events"
CONNECT_SECONDS = 2
STALLED_SECONDS = 20
"""A process that holds the lock and does nothing for so long (stopped, or cut off) loses its connection."""
_NEWEST = """
SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, newest.*
FROM (VALUES (1)) AS always
LEFT JOIN LATERAL (
    SELECT batch, first_position, last_position, outcomes,
           (extract(epoch FROM recorded_at) * 1000000)::bigint,
           encode(previous_hash, 'hex'), encode(hash, 'hex')
    FROM log_batches ORDER BY batch DESC LIMIT 1
) AS newest ON true
"""
_APPEND = """
WITH outcomes AS (
    INSERT INTO log_outcomes (key, batch, ordinal, body_digest, position, refusal, detail)
    SELECT key, $1::bigint, place - 1, digest, position, refusal, detail
    FROM unnest($8::text[], $9::bytea[], $10::bigint[], $11::text[], $12::bytea[])
        WITH ORDINALITY AS row (key, digest, position, refusal, detail, place)
), events AS (
    INSERT INTO stored_events (originator_id, originator_version, topic, state, notification_id)
    SELECT stream, version, name, state, $2::bigint + place - 1
    FROM unnest($13::text[], $14::bigint[], $15::text[], $16::bytea[])
        WITH ORDINALITY AS row (stream, version, name, state, place)
)
INSERT INTO log_batches (batch, first_position, last_position, outcomes, recorded_at, previous_hash, hash)
VALUES ($1, $2, $3::bigint, $4::int, $5::timestamptz, $6::bytea, $7::bytea)
"""
_WRITE_SNAPSHOTS = """
INSERT INTO log_snapshots (stream, version, shape, state)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bytea[])
ON CONFLICT (stream) DO UPDATE SET version = excluded.version, shape = excluded.shape, state = excluded.state
"""
_SNAPSHOTS = "SELECT stream, version, shape, state FROM log_snapshots WHERE stream = ANY($1::text[])"
_EVENTS = """
SELECT e.* FROM unnest($1::text[]) AS wanted(stream) CROSS JOIN LATERAL (
    SELECT originator_id, originator_version, topic, state, notification_id FROM stored_events
    WHERE originator_id = wanted.stream AND originator_version > coalesce(
        (SELECT version FROM log_snapshots WHERE stream = wanted.stream), 0)
) AS e ORDER BY e.originator_id, e.originator_version
"""
"""The events past the snapshots of these streams."""
_PREPARED = {
    b"begin": "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
    b"lock": f"SELECT pg_advisory_xact_lock({LOG_LOCK})",
    b"newest": _NEWEST,
    b"snapshots": _SNAPSHOTS,
    b"events": _EVENTS,
    b"append": _APPEND,
    b"write_snapshots": _WRITE_SNAPSHOTS,
    b"notify": f"NOTIFY {CHANNEL}",
    b"commit": "COMMIT",
    b"rollback": "ROLLBACK",
}
_BINARY = (b"snapshots", b"events")
_BEGIN: Sequence[Statement] = ((b"begin", ()), (b"lock", ()), (b"newest", ()))
_COMMIT: Sequence[Statement] = ((b"notify", ()), (b"commit", ()))
_OUTCOME_COLUMNS = "key, batch, ordinal, body_digest, position, refusal, detail"
EVENT_COLUMNS = "originator_id, originator_version, topic, state, notification_id"


def open_datastore(url: str, *, pool_size: int = 2, max_overflow: int = 8) -> PostgresDatastore:
    """The library's datastore for a `postgresql://` URL. Nothing is connected yet."""
    parts = urlsplit(url)
    return PostgresDatastore(
        dbname=parts.path.lstrip("/"),
        host=parts.hostname or "localhost",
        port=parts.port or 5432,
        user=unquote(parts.username or "postgres"),
        password=unquote(parts.password or ""),
        pool_size=pool_size,
        max_overflow=max_overflow,
        originator_id_type="text",
        enable_db_functions=False,
    )


class Snapshot(NamedTuple):
    """One row of `log_snapshots`."""

    stream: str
    version: int
    shape: str
    state: bytes


GENESIS = Sealed(0, 1, 0, 0, EPOCH, NO_HASH, NO_HASH)
_bigint = struct.Struct("!q").pack
_int = struct.Struct("!i").pack
_YEAR_2000 = microseconds(datetime(2000, 1, 1, tzinfo=UTC))
"""Binary timestamps count from here: `timestamptz_send` in PostgreSQL's `timestamp.c`."""


class Looked(NamedTuple):
    """What a batch is decided on that was not at hand."""

    snapshots: list[Snapshot]
    events: list[EventRow]
    """Those after the snapshots, by stream and version."""
    rows: dict[RowKey, dict[str, Any]]
    """Of other tables; those that are not there are left out."""


class LogRecorder(PostgresApplicationRecorder):
    """The library's recorder, to which one locked transaction per batch is added."""

    @contextmanager
    def writing(self) -> Iterator[LogConnection]:
        """One connection that writes batches, for as long as the context lasts.

        It is not one of the pool's: while PostgreSQL is away, the pool lets its callers wait for
        longer than a command may, and its backlog delays the first one after.
        """
        settings = {**cast("dict[str, Any]", self.datastore.pool.kwargs), "row_factory": tuple_row}
        connection: psycopg.Connection[Any] = psycopg.connect(
            **settings,
            autocommit=True,
            connect_timeout=CONNECT_SECONDS,
            client_encoding="utf8",
            target_session_attrs="read-write",
            keepalives_idle=5,
            keepalives_interval=2,
            keepalives_count=3,
            tcp_user_timeout=10_000,
            options=(
                f"-c idle_in_transaction_session_timeout={STALLED_SECONDS}s "
                "-c statement_timeout=0 -c lock_timeout=0"
            ),
        )
        with contextlib.closing(connection):
            yield self._log_connection(connection)

    def _log_connection(self, connection: psycopg.Connection[Any]) -> LogConnection:
        return LogConnection(connection)


class LogConnection:
    """The statements of one batch, in the order in which a batch needs them."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._server_time = EPOCH
        self._server_time_at = time.monotonic()
        self._connection = connection
        self._cursor = connection.cursor()
        self._loading = Transformer(connection)
        self._newest = GENESIS
        self._wire = Wire(connection, _PREPARED, _BINARY)
        self._sent = GENESIS
        self._begun = False
        self._row_statements: dict[str, bytes] = {}
        """Names of prepared statements on rows, by their SQL."""

    def begin(self) -> Sealed:
        """Open the transaction, wait for the log's lock, and read the newest batch."""
        if not self._begun:
            self._wire.send(_BEGIN)
        self._begun = False
        found = self._wire.answers()[-1]
        server_time, batch, *rest = (found.get_value(0, column) for column in range(found.nfields))
        self._server_time = EPOCH + timedelta(microseconds=int(server_time or 0))
        self._server_time_at = time.monotonic()
        if batch is None:
            self._newest = GENESIS
        elif int(batch) != self._newest.batch:
            self._newest = _sealed(batch, *rest)
        return self._newest

    def server_now(self) -> datetime:
        """What PostgreSQL's own clock says by now."""
        return self._server_time + timedelta(seconds=time.monotonic() - self._server_time_at)

    def outcomes(self, keys: Sequence[str]) -> dict[str, OutcomeRow]:
        """What is recorded for these command keys."""
        self._cursor.execute(
            f"SELECT {_OUTCOME_COLUMNS} FROM log_outcomes WHERE key = ANY(%s)", (list(keys),)
        )
        return {row[0]: OutcomeRow(*row) for row in self._cursor}

    def tail(self, after: int) -> list[EventRow]:
        """Every event after a position."""
        self._cursor.execute(
            f"SELECT {EVENT_COLUMNS} FROM stored_events WHERE notification_id > %s ORDER BY notification_id",
            (after,),
            binary=True,
        )
        return [EventRow(*row) for row in self._cursor]

    def look(self, streams: Sequence[str], rows: Iterable[tuple[SideTable, Sequence[str]]]) -> Looked:
        """Read the newest snapshots of streams and the events after them, and lock and read rows of other tables, each
        in the order of its keys. One message, however much is wanted."""
        wanted = list(rows)
        names = array_of_text(streams)
        questions: list[Statement] = [(b"snapshots", (names,)), (b"events", (names,))] if streams else []
        for side, keys in wanted:
            questions.append(self._row_statement(reading(side), array_of_text(keys), binary=True))
        answers = iter(self._wire.ask(*questions)) if questions else iter(())
        looked = Looked([], [], {})
        if streams:
            looked.snapshots.extend(_snapshot(*row) for row in _values(next(answers)))
            looked.events.extend(_event(*row) for row in _values(next(answers)))
        for (side, _), answer in zip(wanted, answers, strict=True):
            looked.rows.update(self._side_rows(side, answer))
        return looked

    def _side_rows(self, side: SideTable, answer: PGresult) -> Iterator[tuple[RowKey, dict[str, Any]]]:
        """As Python values, by the types that PostgreSQL says."""
        name, columns, key = side.table.name, side.table.columns.keys(), side.key_column
        self._loading.set_pgresult(answer)
        for values in self._loading.load_rows(0, answer.ntuples, tuple):
            row = dict(zip(columns, values, strict=True))
            yield (name, row[key]), row

    def events_after(self, versions: Mapping[str, int]) -> Iterable[EventRow]:
        """The events of these streams past the given versions, in order."""
        self._cursor.execute(
            "SELECT e.originator_id, e.originator_version, e.topic, e.state, e.notification_id "
            "FROM unnest(%s::text[], %s::bigint[]) AS wanted(stream, version) "
            "JOIN stored_events e ON e.originator_id = wanted.stream "
            "AND e.originator_version > wanted.version "
            "ORDER BY e.originator_id, e.originator_version",
            (list(versions), list(versions.values())),
            binary=True,
        )
        return (EventRow(*row) for row in self._cursor)

    def row_changes(
        self, tables_by_name: Mapping[str, SideTable], rows: Mapping[RowKey, Mapping[str, Any] | None]
    ) -> list[Statement]:
        """What inserts, replaces and deletes these rows, to be sent with a batch."""
        gone: dict[str, list[str]] = {}
        kept: dict[tuple[str, tuple[str, ...]], list[Mapping[str, Any]]] = {}
        for (name, key), row in rows.items():
            if row is None:
                gone.setdefault(name, []).append(key)
            else:
                kept.setdefault((name, tuple(row)), []).append(row)
        changes = [
            self._row_statement(deleting(tables_by_name[name]), array_of_text(keys))
            for name, keys in gone.items()
        ]
        for (name, columns), group in kept.items():
            side = tables_by_name[name]
            changes.append(self._row_statement(putting(side, columns), encode_rows(side, group)))
        return changes

    def _row_statement(self, query: str, parameter: bytes, *, binary: bool = False) -> Statement:
        name = self._row_statements.get(query)
        if name is None:
            name = f"rows_{len(self._row_statements)}".encode()
            self._wire.prepare(name, query, binary=binary)
            self._row_statements[query] = name
        return name, (parameter,)

    def send(
        self,
        rows: Columns,
        sealed: Sealed,
        changes: Sequence[Statement] = (),
        snapshots: Sequence[Snapshot] = (),
        *,
        again: bool = False,
    ) -> None:
        """Send a batch off: its events and outcomes, the `row_changes` of other tables, its snapshots
        (one for a stream), the waking of readers, COMMIT.

        `again` also asks for what the next `begin` will return. Until `sent`, and then until that
        `begin`, nothing else can be asked.
        """
        self._sent, self._begun = sealed, again
        statements = [_append(rows, sealed), *changes]
        if snapshots:
            statements.append(_write_snapshots(snapshots))
        self._wire.send([*statements, *_COMMIT])
        if again:
            self._wire.send(_BEGIN)

    def sent(self) -> None:
        """Wait until what was sent has been committed. A known key is a unique violation."""
        if self._wire.answers()[-1].command_status != b"COMMIT":
            raise psycopg.OperationalError("PostgreSQL answered COMMIT by undoing the batch")
        self._newest = self._sent

    def rollback(self) -> None:
        """Undo everything since `begin`."""
        # Not by a cursor: after a ROLLBACK of its own, psycopg forgets all prepared statements.
        self._begun = False
        self._wire.drain()
        self._wire.ask((b"rollback", ()))


def _values(answer: PGresult) -> Iterator[list[bytes]]:
    """Row by row, in binary; none of it is null."""
    columns = range(answer.nfields)
    for row in range(answer.ntuples):
        yield [answer.get_value(row, column) or b"" for column in columns]


def _snapshot(stream: bytes, version: bytes, shape: bytes, state: bytes) -> Snapshot:
    return Snapshot(stream.decode(), int.from_bytes(version), shape.decode(), state)


def _event(stream: bytes, version: bytes, name: bytes, state: bytes, position: bytes) -> EventRow:
    return EventRow(stream.decode(), int.from_bytes(version), name.decode(), state, int.from_bytes(position))


def _append(rows: Columns, sealed: Sealed) -> Statement:
    return b"append", (
        _bigint(sealed.batch),
        _bigint(sealed.first_position),
        _bigint(sealed.last_position),
        _int(sealed.outcomes),
        _bigint(microseconds(sealed.recorded_at) - _YEAR_2000),
        sealed.previous_hash,
        sealed.hash,
        *rows.outcome_columns,
        *rows.event_columns,
    )


def _write_snapshots(snapshots: Sequence[Snapshot]) -> Statement:
    return b"write_snapshots", (
        array_of_text([snapshot.stream for snapshot in snapshots]),
        array_of_bigint([snapshot.version for snapshot in snapshots]),
        array_of_text([snapshot.shape for snapshot in snapshots]),
        array_of_bytea([snapshot.state for snapshot in snapshots]),
    )


def _sealed(batch: bytes, *rest: bytes | None) -> Sealed:
    first, last, outcomes, recorded_at, previous_hash, hash_ = (value or b"" for value in rest)
    return Sealed(
        int(batch),
        int(first),
        int(last),
        int(outcomes),
        EPOCH + timedelta(microseconds=int(recorded_at)),
        bytes.fromhex(previous_hash.decode()),
        bytes.fromhex(hash_.decode()),
    )
