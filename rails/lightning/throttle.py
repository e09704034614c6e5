"""A token bucket: LND does not limit how fast invoices are made, so we do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rails.contract import RailUnavailable

MonotonicNs = Callable[[], int]


class Throttle:
    """Lets `per_second` through on average and `burst` at once; who would wait too long is refused."""

    def __init__(self, *, per_second: int, burst: int, wait_ms_max: int, monotonic_ns: MonotonicNs) -> None:
        self._interval_ns = 1_000_000_000 // per_second
        self._lead_ns = self._interval_ns * burst
        self._wait_ns_max = wait_ms_max * 1_000_000
        self._monotonic_ns = monotonic_ns
        self._next_ns = 0

    async def admit(self) -> None:
        """Wait for our turn. Raises `RailUnavailable` if that would take too long."""
        now = self._monotonic_ns()
        turn = max(self._next_ns, now - self._lead_ns) + self._interval_ns
        wait_ns = turn - now
        if wait_ns > self._wait_ns_max:
            raise RailUnavailable("too many invoices are being made at once; try again shortly")
        self._next_ns = turn
        if wait_ns > 0:
            await asyncio.sleep(wait_ns * 1e-9)
