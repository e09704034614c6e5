"""A recorder whose connection can be watched and made to break where it hurts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from ledger.log.encoding import EventRow
from ledger.log.recorder import LogConnection, LogRecorder, Looked, open_datastore


@dataclass
class Watch:
    """What the connections did, and what they shall do next."""

    rows_read: int = 0
    commits: int = 0
    lose_answers: int = 0
    """So many commits happen, and their answer is lost."""
    lose_commits: int = 0
    """So many commits do not happen: the connection is lost before."""
    break_off_sending: int = 0
    """So many commits happen, but the connection is lost for good while they are still being sent."""
    refuse_connections: bool = False
    before_send: Callable[[], None] | None = None
    """Called once, when a batch has been decided, before it goes off."""


class FaultyConnection(LogConnection):
    def __init__(self, connection: psycopg.Connection[tuple[object, ...]], watch: Watch) -> None:
        super().__init__(connection)
        self._watch = watch

    def events_after(self, versions: Mapping[str, int]) -> Iterable[EventRow]:
        return self._counted(super().events_after(versions))

    def look(self, *wanted: Any) -> Looked:
        looked = super().look(*wanted)
        return looked._replace(events=list(self._counted(looked.events)))

    def tail(self, after: int) -> list[EventRow]:
        return list(self._counted(super().tail(after)))

    def _counted(self, rows: Iterable[EventRow]) -> Iterator[EventRow]:
        for row in rows:
            self._watch.rows_read += 1
            yield row

    def send(self, *parts: Any, **more: Any) -> None:
        happens, self._watch.before_send = self._watch.before_send, None
        if happens is not None:
            happens()
        if self._watch.lose_commits:
            self._watch.lose_commits -= 1
            self._connection.close()
            raise psycopg.OperationalError("the connection was lost before COMMIT")
        super().send(*parts, **more)
        if self._watch.break_off_sending:
            self._watch.break_off_sending -= 1
            self._watch.refuse_connections = True
            super().sent()
            self._connection.close()
            raise psycopg.OperationalError("the connection was lost while sending")

    def sent(self) -> None:
        super().sent()
        self._watch.commits += 1
        if self._watch.lose_answers:
            self._watch.lose_answers -= 1
            self._connection.close()
            raise psycopg.OperationalError("the connection was lost after COMMIT")


class FaultyRecorder(LogRecorder):
    def __init__(self, url: str, watch: Watch) -> None:
        super().__init__(open_datastore(url))
        self.watch = watch

    @contextmanager
    def writing(self) -> Iterator[LogConnection]:
        if self.watch.refuse_connections:
            raise psycopg.OperationalError("nobody is there")
        with super().writing() as connection:
            yield connection

    def _log_connection(self, connection: psycopg.Connection[Any]) -> LogConnection:
        return FaultyConnection(connection, self.watch)
