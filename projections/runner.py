"""Follows the log and keeps the read models, each batch of events with its position in one transaction.

A failure stops the projection loudly: it never skips. Several processes may run it; the one that
holds the lock works, the others wait to take over.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import psycopg
import sqlalchemy as sa
import structlog
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ledger.errors import LogUnavailable
from ledger.log.model import Envelope
from ledger.log.reader import LogReader
from projections.tables import positions

PAGE = 500
_LEADER = 5_151_908_220


class Projection(Protocol):
    """One read model."""

    name: str

    async def apply(self, connection: AsyncConnection, entries: Sequence[Envelope]) -> None:
        """Write what these events mean. The caller commits it with the position.

        The rows may depend on the log alone, never on where a page of it begins or ends.
        """


class ProjectionRunner:
    """Runs projections over the log, woken by NOTIFY, with a poll beside it."""

    def __init__(
        self,
        *,
        engine: AsyncEngine,
        database_url: str,
        reader: LogReader,
        projections: Sequence[Projection],
        applied: Callable[[Sequence[Envelope]], None] = lambda _: None,
    ) -> None:
        self._engine = engine
        self._database_url = database_url
        self._reader = reader
        self._projections = projections
        self._applied = applied
        self._moved = asyncio.Condition()
        self._woken = asyncio.Event()
        self.position = 0
        self.failed: str | None = None
        self._log = structlog.get_logger("projections.runner")

    async def run(self) -> None:
        """Follow the log for ever. A lost database is waited for; any other failure stops here."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            group.create_task(self._follow())

    async def _follow(self) -> None:
        while True:
            try:
                async with self._leadership():
                    await self._work()
            except (psycopg.OperationalError, sa.exc.OperationalError, LogUnavailable, OSError) as error:
                self._log.warning("projections_wait_for_database", error=type(error).__name__)
                await asyncio.sleep(0.5)
            except Exception as error:
                self.failed = repr(error)
                self._log.exception("projection_stopped")
                raise

    @contextlib.asynccontextmanager
    async def _leadership(self) -> Any:
        async with await psycopg.AsyncConnection.connect(self._database_url, autocommit=True) as connection:
            while True:
                cursor = await connection.execute("SELECT pg_try_advisory_lock(%s)", (_LEADER,))
                row = await cursor.fetchone()
                if row is not None and row[0]:
                    break
                await self._observe()
            yield

    async def _observe(self) -> None:
        """Another process leads: only note how far it is."""
        async with self._engine.connect() as connection:
            await self._announce(await self._position(connection))
        await self._sleep(0.05)

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        self._woken.clear()

    async def _work(self) -> None:
        async with self._engine.connect() as connection:
            position = await self._position(connection)
        await self._announce(position)
        while True:
            entries = await self._reader.read(after=position, limit=PAGE)
            if not entries:
                await self._sleep(0.5)
                continue
            async with self._engine.begin() as connection:
                for projection in self._projections:
                    await projection.apply(connection, entries)
                    await self._advance(connection, projection.name, entries[-1].position)
            position = entries[-1].position
            await self._announce(position)
            self._applied(entries)

    async def _position(self, connection: AsyncConnection) -> int:
        names = [projection.name for projection in self._projections]
        query = sa.select(positions.c.position).where(positions.c.projection.in_(names))
        found = list((await connection.execute(query)).scalars())
        return min(found) if len(found) == len(names) else 0

    async def _advance(self, connection: AsyncConnection, name: str, position: int) -> None:
        row = {"projection": name, "position": position}
        statement = insert(positions).values(row)
        # One that is ahead stays ahead: all read from the start again when another is added.
        furthest = sa.func.greatest(positions.c.position, statement.excluded.position)
        await connection.execute(
            statement.on_conflict_do_update(index_elements=["projection"], set_={"position": furthest})
        )

    async def _announce(self, position: int) -> None:
        async with self._moved:
            self.position = position
            self._moved.notify_all()

    async def wait_for(self, position: int, timeout_seconds: float = 5.0) -> bool:
        """Wait until the read models include this position; False if they do not in time."""
        try:
            async with asyncio.timeout(timeout_seconds), self._moved:
                await self._moved.wait_for(lambda: self.position >= position)
        except TimeoutError:
            return False
        return True

    async def _listen(self) -> None:
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(
                    self._database_url, autocommit=True
                ) as connection:
                    await connection.execute("LISTEN stored_events")
                    self._woken.set()
                    async for _ in connection.notifies():
                        self._woken.set()
            except (psycopg.OperationalError, OSError) as error:
                self._log.warning("listen_lost", error=type(error).__name__)
                await asyncio.sleep(0.5)
