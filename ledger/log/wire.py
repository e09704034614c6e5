"""One connection spoken through libpq itself (`psycopg.pq`), several statements at a time.

A *group* of prepared statements is sent without waiting; its answers are fetched when they are
wanted. In between, PostgreSQL works and so can the interpreter. Groups are answered in order, and
an error ends its own group only. Source: libpq, "Pipeline Mode".
"""

from __future__ import annotations

import select
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import psycopg
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus
from psycopg.pq.abc import PGresult

_BINARY = 1
_GOOD = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)

Statement = tuple[bytes, Sequence[bytes]]
"""The name of a prepared statement, and its parameters in binary."""


class Wire:
    """Sends groups of prepared statements. While answers are due, nobody else may use the connection."""

    def __init__(
        self, connection: psycopg.Connection[Any], prepared: Mapping[bytes, str], binary: Iterable[bytes] = ()
    ) -> None:
        """`binary`: those of the prepared statements whose answers come in binary, and not as text."""
        self._pgconn = connection.pgconn
        self._binary = set(binary)
        self._readable, self._writable = select.poll(), select.poll()
        self._readable.register(self._pgconn.socket, select.POLLIN)
        self._writable.register(self._pgconn.socket, select.POLLIN | select.POLLOUT)
        self.due = 0
        """Groups that have been sent and whose answers have not been fetched."""
        for name, query in prepared.items():
            self.prepare(name, query)

    def prepare(self, name: bytes, query: str, *, binary: bool = False) -> None:
        """Prepare one more statement; nothing may be due. `binary`: its answers come so."""
        if binary:
            self._binary.add(name)
        checked(self._pgconn.prepare(name, query.encode()))

    def send(self, statements: Sequence[Statement]) -> None:
        """Send a group, all of it; this waits while the server is slower to read than we are to write."""
        if not self.due:
            self._pgconn.enter_pipeline_mode()
        for name, parameters in statements:
            formats = [_BINARY] * len(parameters)
            self._pgconn.send_query_prepared(name, parameters, formats, int(name in self._binary))
        self._pgconn.pipeline_sync()
        self.due += 1
        while self._pgconn.flush():  # the socket has not taken everything
            self._writable.poll()
            self._pgconn.consume_input()

    def answers(self) -> list[PGresult]:
        """The answers to the oldest group. Raises its first error, of the class that its SQLSTATE has."""
        found: list[PGresult] = []
        while True:
            result = self._next()
            if result is None:  # the end of one statement's answers, or of everything
                self._require_connection()
                continue
            if result.status == ExecStatus.PIPELINE_SYNC:
                break
            found.append(result)
        self.due -= 1
        if not self.due:
            self._pgconn.exit_pipeline_mode()
        return [checked(result) for result in found]

    def _require_connection(self) -> None:
        if self._pgconn.status != ConnStatus.OK:
            raise psycopg.OperationalError(self._pgconn.get_error_message())

    def _next(self) -> PGresult | None:
        while self._pgconn.is_busy():
            self._readable.poll()
            self._pgconn.consume_input()
        return self._pgconn.get_result()

    def ask(self, *statements: Statement) -> list[PGresult]:
        """Send a group and wait for its answers."""
        self.send(statements)
        return self.answers()

    def drain(self) -> None:
        """Fetch what is due and look at none of it."""
        while self.due:
            try:
                self.answers()
            except psycopg.Error:
                self._require_connection()


def checked(result: PGresult) -> PGresult:
    """The result, or the error that it says, of the class that psycopg gives its SQLSTATE."""
    if result.status in _GOOD:
        return result
    state, message = _sqlstate(result), result.get_error_message()
    if state is None:
        raise psycopg.OperationalError(message)
    raise psycopg.errors.lookup(state)(message, info=result)


def _sqlstate(result: PGresult) -> str | None:
    state = result.error_field(DiagnosticField.SQLSTATE)
    return None if state is None else state.decode()
