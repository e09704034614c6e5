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
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ledger.errors import LogUnavailable, TooBusy
from ledger.log.model import Envelope
from ledger.log.reader import LogReader
from projections.tables import positions
from projections.writing import driver_of

PAGE = 500
PAGES_APART_SECONDS = 0.04
"""Between the beginnings of two pages that are not full: where much happens, many events share the statements of one.
What happens after a while without events is applied at once."""
_PASSING = (
    psycopg.OperationalError,
    sa.exc.OperationalError,
    sa.exc.TimeoutError,
    LogUnavailable,
    TooBusy,
    OSError,
)
"""The database is away, or too many others use it. Neither says anything about a projection."""
_LEADER = 5_151_908_220
_ADVANCE = b"""
INSERT INTO projection_positions (projection, position) SELECT name, %s::bigint FROM unnest(%s::text[]) AS name
ON CONFLICT (projection) DO UPDATE SET position = greatest(projection_positions.position, excluded.position)
"""
"""One that is ahead stays ahead: all read from the start again when another is added."""


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
        """Follow the log for ever. A database that is lost or busy is waited for; any other failure stops here."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            group.create_task(self._follow())

    async def _follow(self) -> None:
        while True:
            try:
                async with self._leadership():
                    await self._work()
            except _PASSING as error:
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
        clock = asyncio.get_running_loop().time
        while True:
            began = clock()
            entries = await self._reader.read(after=position, limit=PAGE)
            if not entries:
                await self._sleep(0.5)
                continue
            async with self._engine.begin() as connection:
                for projection in self._projections:
                    await projection.apply(connection, entries)
                await self._advance(connection, entries[-1].position)
            position = entries[-1].position
            await self._announce(position)
            self._applied(entries)
            if len(entries) < PAGE:
                await asyncio.sleep(began + PAGES_APART_SECONDS - clock())

    async def _position(self, connection: AsyncConnection) -> int:
        names = [projection.name for projection in self._projections]
        query = sa.select(positions.c.position).where(positions.c.projection.in_(names))
        found = list((await connection.execute(query)).scalars())
        return min(found) if len(found) == len(names) else 0

    async def _advance(self, connection: AsyncConnection, position: int) -> None:
        names = [projection.name for projection in self._projections]
        driver = await driver_of(connection)
        await driver.execute(_ADVANCE, (position, names), prepare=True)

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
