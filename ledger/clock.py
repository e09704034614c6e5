"""Time arrives as an argument. Everything is aware UTC."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]
"""Returns the present instant as an aware UTC datetime with microseconds."""


def system_clock() -> datetime:
    """The machine's clock."""
    return datetime.now(UTC)


class CorrectedClock:
    """A clock that is known to be ahead of the right one, or behind."""

    def __init__(self, local: Clock) -> None:
        self._local = local
        self._ahead = timedelta(0)

    def __call__(self) -> datetime:
        """The right time, as far as it is known."""
        return self._local() - self._ahead

    def correct(self, ahead: timedelta) -> None:
        """From now on `local` counts as so much ahead; behind, if negative."""
        self._ahead = ahead


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
