"""Queue and history of a ComfyUI server: in memory only, one run at a time."""

from __future__ import annotations

import copy
import heapq
import threading
from collections.abc import Callable, Sequence
from typing import Any

Item = tuple[float, str, dict[str, Any], dict[str, Any], list[str]]
"""number, prompt id, graph, extra data, output nodes: compared in this order, as the original does."""

HISTORY_LIMIT = 10_000


class PromptQueue:
    """Pending prompts in order of their number, the running one, and what became of the others.

    `changed` is called after every change, from whichever thread made it.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._condition = threading.Condition()
        self._pending: list[Item] = []
        self._running: dict[int, Item] = {}
        self._next_run = 0
        self._closed = False
        self._history: dict[str, dict[str, Any]] = {}

    def put(self, item: Item) -> None:
        """Add a prompt. Raises `TypeError` after queueing it when id and number are both taken."""
        with self._condition:
            # The heap appends before it compares: an equal (number, id) ends in comparing two
            # dicts, which raises although the item is in. The original answers 500 and runs both.
            heapq.heappush(self._pending, item)
            self._changed()
            self._condition.notify()

    def take(self) -> tuple[int, Item] | None:
        """Wait for the next prompt and mark it running; None once closed."""
        with self._condition:
            while not self._pending and not self._closed:
                self._condition.wait()
            if self._closed:
                return None
            item = heapq.heappop(self._pending)
            run, self._next_run = self._next_run, self._next_run + 1
            self._running[run] = copy.deepcopy(item)
            self._changed()
            return run, item

    def finish(self, run: int, entry: dict[str, Any]) -> None:
        """Move the running prompt into the history with its outputs, status and meta."""
        with self._condition:
            item = self._running.pop(run)
            while len(self._history) >= HISTORY_LIMIT:
                self._history.pop(next(iter(self._history)))
            self._history[item[1]] = {"prompt": list(item), **entry}
            self._changed()

    def close(self) -> None:
        """Make `take` return None."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    def remaining(self) -> int:
        """Running and pending prompts together."""
        with self._condition:
            return len(self._pending) + len(self._running)

    def view(self) -> tuple[list[Item], list[Item]]:
        """Copies of (running, pending), pending in the order in which they will run."""
        with self._condition:
            return list(self._running.values()), sorted(self._pending, key=lambda item: (item[0], item[1]))

    def running_ids(self) -> set[str]:
        """The ids that run now."""
        with self._condition:
            return {item[1] for item in self._running.values()}

    def clear(self) -> None:
        """Drop all pending prompts; a running one is not touched."""
        with self._condition:
            self._pending = []
            self._changed()

    def delete(self, prompt_ids: Sequence[str]) -> None:
        """Drop pending prompts by id; unknown and running ids are ignored."""
        for prompt_id in prompt_ids:
            with self._condition:
                kept = [item for item in self._pending if item[1] != prompt_id]
                if len(kept) != len(self._pending):
                    self._pending = kept
                    heapq.heapify(self._pending)
                    self._changed()

    def history(self, prompt_id: str | None = None) -> dict[str, dict[str, Any]]:
        """The history, newest last, or one entry of it; `{}` for unknown and unfinished prompts."""
        with self._condition:
            if prompt_id is None:
                return copy.deepcopy(self._history)
            entry = self._history.get(prompt_id)
            return {} if entry is None else {prompt_id: copy.deepcopy(entry)}

    def forget(self, prompt_ids: Sequence[str] | None = None) -> None:
        """Delete history entries, or all of them."""
        with self._condition:
            if prompt_ids is None:
                self._history.clear()
                return
            for prompt_id in prompt_ids:
                self._history.pop(prompt_id, None)
