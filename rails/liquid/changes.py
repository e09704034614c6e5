"""Which scripts changed, for those who listen. No IO."""

from __future__ import annotations

import asyncio
import contextlib


class Subscription:
    """Scripts whose money changed, each once however often it changed."""

    def __init__(self, all_of_them: set[Subscription]) -> None:
        self._all = all_of_them
        self._changed: dict[bytes, None] = {}
        self._event = asyncio.Event()

    def put(self, script: bytes) -> None:
        """This one changed."""
        self._changed[script] = None
        self._event.set()

    async def next(self, wait_seconds_max: float) -> bytes | None:
        """The script that has waited longest; waits for one, or gives None after a while."""
        if not self._changed:
            self._event.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_seconds_max):
                    await self._event.wait()
        if not self._changed:
            return None
        script = next(iter(self._changed))
        del self._changed[script]
        return script

    def close(self) -> None:
        """No more."""
        self._all.discard(self)
