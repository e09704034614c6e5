"""The throttle lets a burst through, then spaces what follows, then refuses."""

from __future__ import annotations

from rails.contract import RailUnavailable
from rails.lightning.throttle import Throttle


class Stopwatch:
    """A monotonic clock that moves when told to."""

    def __init__(self) -> None:
        self.now_ns = 10**12

    def __call__(self) -> int:
        return self.now_ns


async def admitted(throttle: Throttle, at_most: int) -> int:
    for count in range(at_most):
        try:
            await throttle.admit()
        except RailUnavailable:
            return count
    return at_most


async def test_a_burst_passes_and_more_is_refused() -> None:
    throttle = Throttle(per_second=10, burst=5, wait_ms_max=0, monotonic_ns=Stopwatch())
    assert await admitted(throttle, 100) == 5


async def test_time_brings_new_turns_up_to_the_burst() -> None:
    watch = Stopwatch()
    throttle = Throttle(per_second=10, burst=5, wait_ms_max=0, monotonic_ns=watch)
    await admitted(throttle, 100)
    watch.now_ns += 200_000_000
    assert await admitted(throttle, 100) == 2
    watch.now_ns += 3600 * 10**9
    assert await admitted(throttle, 100) == 5


async def test_as_many_as_may_wait_do() -> None:
    throttle = Throttle(per_second=1000, burst=5, wait_ms_max=3, monotonic_ns=Stopwatch())
    assert await admitted(throttle, 100) == 8
