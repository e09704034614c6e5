"""The log in PostgreSQL, on `eventsourcing`'s recorder.

The library gives the table, the notification log, subscriptions and tracking. Two things are
ours. All writers take one advisory lock before they read the tail, so that positions have no
gaps and nobody decides on old state; and rows go in by binary COPY, many commands at a time.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple, cast
from urllib.parse import unquote, urlsplit

import psycopg
import sqlalchemy as sa
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore
from psycopg.rows import tuple_row
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.pool import StaticPool

from ledger.log import tables
from ledger.log.draft import RowKey
from ledger.log.encoding import COPY_HEADER, COPY_TRAILER, NO_HASH, EventRow, OutcomeRow, Sealed
from ledger.log.model import SideTable

LOG_LOCK = struct.unpack("!q", b"creditlg")[0]
CHANNEL = "stored_events"
CONNECT_SECONDS = 2
_BEGIN = (
    f"BEGIN; SELECT pg_advisory_xact_lock({LOG_LOCK}), clock_timestamp(); "
    "SELECT batch, first_position, last_position, outcomes, recorded_at, previous_hash, hash "
    "FROM log_batches ORDER BY batch DESC LIMIT 1"
).encode()
_COPY_EVENTS = (
    b"COPY stored_events (originator_id, originator_version, topic, state, notification_id) "
    b"FROM STDIN (FORMAT binary)"
)
_COPY_OUTCOMES = (
    b"COPY log_outcomes (key, batch, ordinal, body_digest, position, refusal, detail) "
    b"FROM STDIN (FORMAT binary)"
)
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


GENESIS = Sealed(0, 1, 0, 0, datetime(1970, 1, 1, tzinfo=UTC), NO_HASH, NO_HASH)


class LogRecorder(PostgresApplicationRecorder):
    """The library's recorder, to which one locked transaction per batch is added."""

    def create_schema(self, url: str) -> None:
        """Create the log's tables where they are missing (tests and tools; services migrate)."""
        engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))
        try:
            tables.metadata.create_all(engine)
        finally:
            engine.dispose()

    @contextmanager
    def writing(self) -> Iterator[LogConnection]:
        """One connection that writes batches, for as long as the context lasts.

        It is not one of the pool's: while PostgreSQL is away, the pool lets its callers wait for
        longer than a command may, and its backlog delays the first one after.
        """
        settings = {**cast("dict[str, Any]", self.datastore.pool.kwargs), "row_factory": tuple_row}
        connection: psycopg.Connection[Any] = psycopg.connect(
            **settings, autocommit=True, connect_timeout=CONNECT_SECONDS
        )
        with contextlib.closing(connection):
            yield LogConnection(connection)


class LogConnection:
    """The statements of one batch, in the order in which a batch needs them."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.server_time = GENESIS.recorded_at
        """PostgreSQL's own clock when the last batch began."""
        self._connection = connection
        self._cursor = connection.cursor()
        # Side-table rows go through SQLAlchemy for its types; the transaction stays ours.
        with _psycopg_errors():  # SQLAlchemy asks the server a few things when it first connects
            self._rows = sa.create_engine(
                "postgresql+psycopg://",
                creator=lambda: connection,
                poolclass=StaticPool,
                isolation_level="AUTOCOMMIT",
                pool_reset_on_return=None,
            ).connect()

    def begin(self) -> Sealed:
        """Open the transaction, wait for the log's lock, and read the newest batch."""
        cursor = self._cursor.execute(_BEGIN)
        cursor.nextset()
        locked = cursor.fetchone()
        self.server_time = GENESIS.recorded_at if locked is None else locked[1]
        cursor.nextset()
        row = cursor.fetchone()
        return GENESIS if row is None else Sealed(*row)

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

    def snapshots(self, streams: Sequence[str]) -> list[Snapshot]:
        """The newest snapshot of each of these streams."""
        self._cursor.execute(
            "SELECT stream, version, shape, state FROM log_snapshots WHERE stream = ANY(%s)",
            (list(streams),),
            binary=True,
        )
        return [Snapshot(*row) for row in self._cursor]

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

    def rows(self, table: SideTable, keys: Sequence[str]) -> dict[RowKey, dict[str, Any]]:
        """Lock and read rows of another table, in key order."""
        key = table.table.c[table.key_column]
        query = sa.select(table.table).where(key.in_(list(keys))).order_by(key).with_for_update()
        name = table.table.name
        with _psycopg_errors():
            found = self._rows.execute(query).mappings()
            return {(name, row[table.key_column]): dict(row) for row in found}

    def write_events(self, rows: Sequence[bytes]) -> None:
        """Append events, given as binary COPY rows."""
        self._copy(_COPY_EVENTS, rows)

    def write_outcomes(self, rows: Sequence[bytes]) -> None:
        """Record outcomes, given as binary COPY rows. A known key is a unique violation."""
        self._copy(_COPY_OUTCOMES, rows)

    def _copy(self, statement: bytes, rows: Sequence[bytes]) -> None:
        with self._cursor.copy(statement) as copy:
            copy.write(COPY_HEADER + b"".join(rows) + COPY_TRAILER)

    def write_rows(
        self, tables_by_name: Mapping[str, SideTable], rows: Mapping[RowKey, Mapping[str, Any] | None]
    ) -> None:
        """Insert, replace and delete rows of other tables."""
        gone: dict[str, list[str]] = {}
        kept: dict[tuple[str, tuple[str, ...]], list[dict[str, Any]]] = {}
        for (name, key), row in rows.items():
            if row is None:
                gone.setdefault(name, []).append(key)
            else:
                kept.setdefault((name, tuple(row)), []).append(dict(row))
        with _psycopg_errors():
            for name, keys in gone.items():
                side = tables_by_name[name]
                self._rows.execute(sa.delete(side.table).where(side.table.c[side.key_column].in_(keys)))
            for (name, columns), group in kept.items():
                self._rows.execute(_upsert(tables_by_name[name], columns), group)

    def write_snapshots(self, snapshots: Sequence[Snapshot]) -> None:
        """Replace the snapshots of some streams."""
        self._cursor.executemany(
            "INSERT INTO log_snapshots (stream, version, shape, state) VALUES (%s, %s, %s, %s) "
            "ON CONFLICT (stream) DO UPDATE SET version = excluded.version, "
            "shape = excluded.shape, state = excluded.state",
            snapshots,
        )

    def commit(self, sealed: Sealed) -> None:
        """Record the batch, wake the readers, commit: all in one round trip."""
        self._cursor.execute(
            "INSERT INTO log_batches VALUES "
            f"({sealed.batch}, {sealed.first_position}, {sealed.last_position}, {sealed.outcomes}, "
            f"'{sealed.recorded_at.isoformat()}', '\\x{sealed.previous_hash.hex()}', "
            f"'\\x{sealed.hash.hex()}'); NOTIFY {CHANNEL}; COMMIT".encode()
        )

    def rollback(self) -> None:
        """Undo everything since `begin`."""
        self._connection.execute("ROLLBACK")


@contextmanager
def _psycopg_errors() -> Iterator[None]:
    """Give the driver's own error, so that the sequencer has one kind to tell apart."""
    try:
        yield
    except sa.exc.DBAPIError as error:
        raise (error.orig or error) from error


def _upsert(side: SideTable, columns: Sequence[str]) -> Any:
    statement = upsert(side.table)
    others = {name: statement.excluded[name] for name in columns if name != side.key_column}
    if not others:
        return statement.on_conflict_do_nothing(index_elements=[side.key_column])
    return statement.on_conflict_do_update(index_elements=[side.key_column], set_=others)
