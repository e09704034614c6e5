"""How a rail tells, while it listens, that its other side has gone."""

from __future__ import annotations

import asyncio

from rails.contract import Health


class Outages:
    """What has just been lost, for one task that waits for it. Implements what `NoticesOutages` asks for."""

    def __init__(self) -> None:
        self._noticed = asyncio.Event()
        self._detail = ""

    def notice(self, detail: str) -> None:
        """The other side does not answer. The newest reason is the one that is told."""
        self._detail = detail
        self._noticed.set()

    async def next(self) -> Health:
        """Wait for an outage since the last call."""
        await self._noticed.wait()
        self._noticed.clear()
        return Health(ok=False, detail=self._detail)
