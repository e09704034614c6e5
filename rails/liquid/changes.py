"""Which scripts changed, and what is so of each, for those who listen. No IO."""

from __future__ import annotations

import asyncio
import contextlib

from rails.contract import Observation


class Subscription:
    """Scripts whose money changed, each once however often it changed, with the newest that is known of it."""

    def __init__(self, all_of_them: set[Subscription]) -> None:
        self._all = all_of_them
        self._changed: dict[bytes, Observation] = {}
        self._event = asyncio.Event()

    def put(self, script: bytes, seen: Observation) -> None:
        """This one changed."""
        self._changed[script] = seen
        self._event.set()

    def __len__(self) -> int:
        return len(self._changed)

    async def next(self, wait_seconds_max: float) -> Observation | None:
        """Of the script that has waited longest; waits for one, or gives None after a while."""
        if not self._changed:
            self._event.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_seconds_max):
                    await self._event.wait()
        if not self._changed:
            return None
        return self._changed.pop(next(iter(self._changed)))

    def close(self) -> None:
        """No more."""
        self._all.discard(self)
