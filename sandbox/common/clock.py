"""A clock that the control API moves."""

from __future__ import annotations

from collections.abc import Callable

from sandbox.common.database import SettingsDatabase

_OFFSET = "clock_offset_seconds"


class MovableClock:
    """The machine's clock plus an offset that survives restarts."""

    def __init__(self, database: SettingsDatabase, machine: Callable[[], float]) -> None:
        self._database = database
        self.machine = machine
        self.offset_seconds = int(database.setting(_OFFSET, "0"))

    def __call__(self) -> float:
        """The stand-in's present, in Unix seconds."""
        return self.machine() + self.offset_seconds

    def move(self, offset_seconds: int) -> None:
        """Set how far it is ahead of the machine's clock."""
        self.offset_seconds = offset_seconds
        self._database.remember(_OFFSET, str(offset_seconds))
