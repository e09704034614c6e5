"""Faults that a test or an operator can switch on by `POST /sandbox/faults`."""

from __future__ import annotations

import threading
from typing import Any, ClassVar, TypedDict


class FaultView(TypedDict):
    """What `GET /sandbox/faults` answers: faults still pending, by name."""

    counts: dict[str, int]
    settings: dict[str, float]


class Faults:
    """Counted faults (used up one by one) and settings (in force until reset). Thread-safe.

    Counts: `die` (the process exits inside the next run), `oom` (the next run reports that the
    GPU is out of memory), `hang` (the next run neither moves nor honours an interrupt until
    `reset`), `drop_ws` (all sockets are closed during the next run), `black_image` (the next
    saved picture is black), `error_next` (the next run fails in its first node),
    `lose_interrupt` (an interrupt answers 200 and does nothing), `lose_prompt_answer` (the
    prompt is queued and the connection closed without an answer).
    Settings: `slow` (factor on painting time), `history_lag_ms` (delay between the success
    message and the history entry).
    """

    COUNTS: ClassVar[frozenset[str]] = frozenset(
        {"die", "oom", "hang", "drop_ws", "black_image", "error_next", "lose_interrupt", "lose_prompt_answer"}
    )
    SETTINGS: ClassVar[dict[str, float]] = {"slow": 1.0, "history_lag_ms": 0.0}

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}
        self._settings = dict(self.SETTINGS)
        self.released = threading.Event()

    def change(self, wish: dict[str, Any]) -> None:
        """Switch faults on; `{"reset": true}` clears all and frees a hanging run.

        Raises `ValueError` for a name or value that is not understood; nothing is changed then.
        """
        counts = {name: int(value) for name, value in wish.items() if name in self.COUNTS}
        settings = {name: float(value) for name, value in wish.items() if name in self.SETTINGS}
        unknown = set(wish) - set(counts) - set(settings) - {"reset"}
        if unknown or any(value < 0 for value in (*counts.values(), *settings.values())):
            raise ValueError(f"not a fault: {', '.join(sorted(unknown)) or 'negative value'}")
        with self._lock:
            if wish.get("reset"):
                self._counts.clear()
                self._settings = dict(self.SETTINGS)
                self.released.set()
            if counts.get("hang"):
                self.released.clear()
            self._counts.update(counts)
            self._settings.update(settings)

    def take(self, name: str) -> bool:
        """Use up one fault of this name, if one is pending."""
        with self._lock:
            left = self._counts.get(name, 0)
            if left:
                self._counts[name] = left - 1
            return left > 0

    def setting(self, name: str) -> float:
        """The value in force."""
        with self._lock:
            return self._settings[name]

    def view(self) -> FaultView:
        """What is pending."""
        with self._lock:
            counts = {name: count for name, count in self._counts.items() if count}
            return FaultView(counts=counts, settings=dict(self._settings))
