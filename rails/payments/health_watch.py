"""Whether a rail takes payments now: told by the rail when it goes, asked again and again until it is back.

A sweep asks once in a while, too, and only confirms: people must not be offered for long what cannot be paid, nor be
kept for long from what can.
"""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping

import structlog

from ledger.cancelling import end_tasks
from rails.contract import Health, NoticesOutages, Rail

WAIT_SECONDS = 2.0
"""How long a rail in doubt may take to say how it is."""
AGAIN_SECONDS = 0.75
"""Between two questions while it is down. With the wait before: open again in less than 3 s."""


class HealthWatch:
    """Keeps the health of one rail in `health`, where whoever opens payments reads it."""

    def __init__(self, rail: Rail, health: MutableMapping[str, Health], doubted: asyncio.Event) -> None:
        self._rail = rail
        self._health = health
        self._doubted = doubted
        """Set by whoever got no answer from the rail."""
        self._log = structlog.get_logger("rails.payments.health").bind(rail=rail.name)

    async def run(self) -> None:
        """Watch for ever."""
        hearing = asyncio.create_task(self._hear())
        try:
            while True:
                await self._doubted.wait()
                await self.ask(WAIT_SECONDS)
                await asyncio.sleep(AGAIN_SECONDS)
        finally:
            await end_tasks([hearing])

    async def ask(self, wait_seconds: float | None = None) -> Health:
        """The rail's own word, or that it gave none. It stays in doubt while it is down."""
        self._doubted.clear()
        try:
            async with asyncio.timeout(wait_seconds):
                health = await self._rail.health()
        except Exception as error:  # noqa: BLE001 - any failure to answer is an answer here
            health = Health(ok=False, detail=type(error).__name__)
        self.note(health)
        return health

    def note(self, health: Health) -> None:
        """This is how it is now."""
        before = self._health.get(self._rail.name)
        if before is None or before.ok != health.ok:
            say = self._log.info if health.ok else self._log.warning
            say("rail_open" if health.ok else "rail_closed", detail=health.detail)
        if health.ok and health.detail and (before is None or not before.detail):
            self._log.warning("rail_limited", detail=health.detail)
        self._health[self._rail.name] = health
        if not health.ok:
            self._doubted.set()

    async def _hear(self) -> None:
        while isinstance(self._rail, NoticesOutages):
            self.note(await self._rail.outage())
