"""Time arrives as an argument. Everything is aware UTC."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]
"""Returns the present instant as an aware UTC datetime with microseconds."""


def system_clock() -> datetime:
    """The machine's clock."""
    return datetime.now(UTC)


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
