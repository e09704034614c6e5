"""The node's clock: the machine's, moved by an offset that is remembered."""

from __future__ import annotations

from collections.abc import Callable

from sandbox.lnd.store import Store


class SandboxClock:
    """Unix seconds, as the node believes."""

    def __init__(self, store: Store, machine: Callable[[], float]) -> None:
        self._store = store
        self._machine = machine
        self._offset = int(store.get("clock_offset_seconds", "0"))

    def __call__(self) -> float:
        """The present, in Unix seconds."""
        return self._machine() + self._offset

    @property
    def offset_seconds(self) -> int:
        """How far the node's clock is ahead of the machine's."""
        return self._offset

    def advance(self, seconds: int) -> None:
        """Move the clock, for good."""
        self._offset += seconds
        self._store.set("clock_offset_seconds", str(self._offset))
