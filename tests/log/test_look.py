"""What a batch is decided on is read in one message, and is what the driver would have read."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from psycopg.rows import dict_row
from sqlalchemy.dialects.postgresql import JSONB

from ledger.log.encoding import EventRow
from ledger.log.model import SideTable
from ledger.log.recorder import LogConnection, LogRecorder, Snapshot, open_datastore
from ledger.log.wire import Wire

KINDS = SideTable(
    sa.Table(
        "look_kinds",
        sa.MetaData(),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("at", sa.DateTime(timezone=True)),
        sa.Column("many", sa.BigInteger),
        sa.Column("few", sa.Integer),
        sa.Column("yes", sa.Boolean),
        sa.Column("data", sa.LargeBinary),
        sa.Column("document", JSONB),
    )
)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def plain(log_database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(log_database, autocommit=True, row_factory=dict_row) as plain:
        plain.execute(
            "CREATE TABLE look_kinds (id text PRIMARY KEY, at timestamptz, many bigint, few int, yes bool,"
            " data bytea, document jsonb)"
        )
        plain.execute(
            "INSERT INTO look_kinds VALUES ('a', %s, %s, -1, true, %s, %s),"
            " ('b', NULL, NULL, NULL, NULL, NULL, NULL), ('é', NULL, 0, 0, false, '', 'null')",
            (NOON, 2**62, b"\0\xff", '{"one": [1, null]}'),
        )
        plain.execute(
            "INSERT INTO log_snapshots VALUES ('purse_a', 2, 'shape', 'state'), ('purse_x', 9, '', '')"
        )
        plain.execute(
            "INSERT INTO stored_events (originator_id, originator_version, topic, state, notification_id)"
            " SELECT stream, version, 'name', 'data', row_number() OVER ()"
            " FROM unnest(ARRAY['purse_a', 'purse_b', 'purse_c']) AS stream, generate_series(1, 3) AS version"
        )
        yield plain


@pytest.fixture
def log(log_database: str, plain: object) -> Iterator[LogConnection]:
    with open_datastore(log_database) as datastore, LogRecorder(datastore).writing() as log:
        log.begin()
        yield log


def test_snapshots_events_past_them_and_rows_come_as_they_are_in_one_message(
    log: LogConnection, plain: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    log.look((), [(KINDS, ["a"])])  # prepares what it needs
    sent: list[int] = []
    send = Wire.send
    monkeypatch.setattr(Wire, "send", lambda wire, group: (sent.append(len(group)), send(wire, group))[1])
    looked = log.look(["purse_a", "purse_b", "purse_new"], [(KINDS, ["a", "b", "é", "none"])])
    assert sent == [3]
    assert looked.snapshots == [Snapshot("purse_a", 2, "shape", b"state")]
    positions = {(row.stream, row.version): row for row in looked.events}
    assert list(positions) == [("purse_a", 3), ("purse_b", 1), ("purse_b", 2), ("purse_b", 3)]
    assert looked.events[0] == EventRow("purse_a", 3, "name", b"data", looked.events[0].position)
    rows = plain.execute("SELECT * FROM look_kinds").fetchall()
    assert looked.rows == {("look_kinds", row["id"]): row for row in rows}


def test_the_rows_are_locked_until_the_batch_has_ended(
    log: LogConnection, plain: psycopg.Connection[Any]
) -> None:
    log.look((), [(KINDS, ["a"])])
    with pytest.raises(psycopg.errors.LockNotAvailable):
        plain.execute("SELECT * FROM look_kinds WHERE id = 'a' FOR UPDATE NOWAIT")
    plain.execute("SELECT * FROM look_kinds WHERE id = 'b' FOR UPDATE NOWAIT")
    log.rollback()
    plain.execute("SELECT * FROM look_kinds WHERE id = 'a' FOR UPDATE NOWAIT")


def test_where_nothing_is_wanted_nothing_is_sent(log: LogConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Wire, "send")
    assert log.look((), ()) == ([], [], {})
