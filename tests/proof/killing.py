"""A recorder whose server kills the writing connection where it hurts: just before COMMIT, or just after."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg

from ledger.log.recorder import LogConnection, LogRecorder, open_datastore


@dataclass
class Killer:
    """What shall happen to the next commits of one process, and to the process then."""

    admin: psycopg.Connection[object]
    plan: list[str] = field(default_factory=list)
    """For each commit to come: `before`, `after`, or empty."""
    dies: bool = False
    """Whether the process cannot connect again after that: nobody will ever hear its answer."""
    dead: bool = False
    backends: set[int] = field(default_factory=set)


class KilledConnection(LogConnection):
    def __init__(self, connection: psycopg.Connection[tuple[object, ...]], killer: Killer) -> None:
        super().__init__(connection)
        self._killer = killer
        self._when = ""
        killer.backends = {connection.info.backend_pid}

    def send(self, *parts: Any, **more: Any) -> None:
        self._when = self._killer.plan.pop(0) if self._killer.plan else ""
        if self._when == "before":
            self._kill()
        super().send(*parts, **more)

    def sent(self) -> None:
        super().sent()
        if self._when == "after":
            self._kill()
            raise psycopg.OperationalError("the answer never came")

    def _kill(self) -> None:
        self._killer.dead = self._killer.dies
        kill_backends(self._killer.admin, self._killer.backends)


def kill_backends(admin: psycopg.Connection[object], backends: set[int]) -> None:
    """End server processes and wait until they are gone."""
    for backend in backends:
        admin.execute("SELECT pg_terminate_backend(%s, 5000)", (backend,))


class KillableRecorder(LogRecorder):
    def __init__(self, url: str, killer: Killer) -> None:
        super().__init__(open_datastore(url))
        self._killer = killer

    @contextmanager
    def writing(self) -> Iterator[LogConnection]:
        if self._killer.dead:
            raise psycopg.OperationalError("the process is gone")
        with super().writing() as connection:
            yield connection

    def _log_connection(self, connection: psycopg.Connection[Any]) -> LogConnection:
        return KilledConnection(connection, self._killer)
