"""Time arrives as an argument. Everything is aware UTC."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]
"""Returns the present instant as an aware UTC datetime with microseconds."""

MicrosecondClock = Callable[[], int]
"""Returns the present instant as whole microseconds since 1970."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def system_clock() -> datetime:
    """The machine's clock."""
    return datetime.now(UTC)


def microseconds_of(clock: Clock) -> MicrosecondClock:
    """The same time as whole numbers; without a datetime in between where the clock can do without one."""
    if clock is system_clock:
        return _system_microseconds
    if isinstance(clock, CorrectedClock):
        return clock.microseconds
    return lambda: (clock() - _EPOCH) // _MICROSECOND


def _system_microseconds() -> int:
    return time.time_ns() // 1000


class CorrectedClock:
    """A clock that is known to be ahead of the right one, or behind."""

    def __init__(self, local: Clock) -> None:
        self._local = local
        self._local_microseconds = microseconds_of(local)
        self._ahead = timedelta(0)
        self._ahead_microseconds = 0

    def __call__(self) -> datetime:
        """The right time, as far as it is known."""
        return self._local() - self._ahead

    def microseconds(self) -> int:
        """The right time in microseconds since 1970."""
        return self._local_microseconds() - self._ahead_microseconds

    def correct(self, ahead: timedelta) -> None:
        """From now on `local` counts as so much ahead; behind, if negative."""
        self._ahead, self._ahead_microseconds = ahead, ahead // _MICROSECOND


class ManualClock:
    """A clock that moves only when told to; for tests and simulations."""

    def __init__(self, start: datetime) -> None:
        if start.tzinfo is None:
            raise ValueError("a clock needs an aware datetime")
        self._now = start.astimezone(UTC)

    def __call__(self) -> datetime:
        """The instant it was last told."""
        return self._now

    def advance(self, step: timedelta) -> None:
        """Move by `step`; a negative step is a clock that was set back."""
        self._now += step

    def set(self, now: datetime) -> None:
        """Jump to `now`."""
        self._now = now.astimezone(UTC)
