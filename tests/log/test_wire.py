"""Groups of statements on one connection: answers in order, errors that end their own group, lost connections."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import psycopg
import pytest

from ledger.log.wire import Wire

PREPARED = {
    b"put": "INSERT INTO wire_numbers VALUES ($1::int)",
    b"all": "SELECT number FROM wire_numbers ORDER BY number",
    b"begin": "BEGIN",
    b"commit": "COMMIT",
    b"rollback": "ROLLBACK",
    b"length": "SELECT octet_length($1::bytea)",
    b"end_it": "SELECT pg_terminate_backend(pg_backend_pid())",
}


def put(number: int) -> tuple[bytes, list[bytes]]:
    return b"put", [struct.pack("!i", number)]


@pytest.fixture
def connection(log_database: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with psycopg.connect(log_database, autocommit=True) as opened:
        opened.execute("CREATE TABLE wire_numbers (number int PRIMARY KEY)")
        yield opened


@pytest.fixture
def wire(connection: psycopg.Connection[tuple[object, ...]]) -> Wire:
    return Wire(connection, PREPARED)


def numbers(wire: Wire) -> list[int]:
    (found,) = wire.ask((b"all", ()))
    return [int(found.get_value(row, 0) or b"") for row in range(found.ntuples)]


def test_groups_are_answered_in_the_order_in_which_they_were_sent(wire: Wire) -> None:
    wire.send([put(2), (b"all", ())])
    wire.send([put(1), (b"all", ())])
    assert [answer.ntuples for answer in wire.answers()] == [0, 1]
    assert [answer.ntuples for answer in wire.answers()] == [0, 2]
    assert wire.due == 0


def test_an_error_undoes_its_own_group_and_leaves_the_next_alone(wire: Wire) -> None:
    wire.ask(put(1))
    wire.send([put(2), put(1), put(3)])
    wire.send([put(4)])
    with pytest.raises(psycopg.errors.UniqueViolation) as caught:
        wire.answers()
    assert caught.value.diag.table_name == "wire_numbers"
    wire.answers()
    assert numbers(wire) == [1, 4]


def test_what_is_due_can_be_fetched_unseen(wire: Wire) -> None:
    wire.ask(put(1))
    wire.send([(b"begin", ()), put(1)])
    wire.send([put(5)])
    wire.drain()
    wire.ask((b"rollback", ()))
    assert numbers(wire) == [1]


def test_cursors_may_use_the_connection_when_nothing_is_due(
    wire: Wire, connection: psycopg.Connection[tuple[object, ...]]
) -> None:
    wire.ask((b"begin", ()), put(7))
    assert connection.execute("SELECT number FROM wire_numbers").fetchall() == [(7,)]
    wire.ask((b"commit", ()))
    assert numbers(wire) == [7]


def test_a_lost_connection_is_said_and_not_waited_for(wire: Wire) -> None:
    wire.send([(b"end_it", ()), put(1)])
    wire.send([put(2)])
    with pytest.raises(psycopg.OperationalError):
        wire.answers()
    with pytest.raises(psycopg.OperationalError):
        wire.drain()


def test_a_connection_that_others_ended_is_said(
    wire: Wire, connection: psycopg.Connection[tuple[object, ...]], log_database: str
) -> None:
    with psycopg.connect(log_database, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", (connection.info.backend_pid,))
    with pytest.raises(psycopg.OperationalError):
        wire.ask(put(1))


@pytest.mark.parametrize("megabytes", [1, 40])
def test_a_group_that_the_socket_does_not_take_at_once_arrives_whole(wire: Wire, megabytes: int) -> None:
    size = megabytes * 1_000_000
    wire.send([(b"length", [b"x" * size])])
    wire.send([(b"length", [b"y" * size])])
    assert [wire.answers()[0].get_value(0, 0) for _ in range(2)] == [str(size).encode()] * 2
