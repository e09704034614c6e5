"""Many small questions at once become one: whoever asks while an answer is on its way goes into the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeVar
from weakref import WeakSet

K = TypeVar("K")
V = TypeVar("V")


ANSWERED_SECONDS_MAX = 5.0
_running: WeakSet[asyncio.Task[None]] = WeakSet()
"""Of all batchers. A question goes on when all who asked have given up; whatever it is asked of must outlive it."""


async def answered() -> None:
    """Return when no batcher of this event loop asks anything, or after `ANSWERED_SECONDS_MAX`: what they ask of may be
    closed then."""
    loop = asyncio.get_running_loop()
    tasks = [task for task in _running if task.get_loop() is loop]
    if tasks:
        await asyncio.wait(tasks, timeout=ANSWERED_SECONDS_MAX)


class Batcher(Generic[K, V]):
    """Answers `get(key)` by `load(keys)`, at most `limit` keys at a time. One event loop."""

    def __init__(self, load: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]], limit: int = 256) -> None:
        self._load = load
        self._limit = limit
        self._waiting: dict[K, asyncio.Future[V | None]] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """How many keys wait until the load that is under way has ended."""
        return len(self._waiting)

    async def get(self, key: K) -> V | None:
        """The value as of now or later; None if there is none. Raises what `load` raises."""
        answer = self._waiting.get(key)
        if answer is None:
            answer = self._waiting[key] = asyncio.get_running_loop().create_future()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
            _running.add(self._task)
        # One who gives up waiting must not take the answer from the others.
        return await asyncio.shield(answer)

    async def _run(self) -> None:
        while self._waiting:
            keys = list(self._waiting)[: self._limit]
            batch = {key: self._waiting.pop(key) for key in keys}
            found: Mapping[K, V] = {}
            fault: Exception | None = None
            try:
                found = await self._load(keys)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is for those who asked
                fault = error
            for key, answer in batch.items():
                if answer.done():
                    continue
                if fault is None:
                    answer.set_result(found.get(key))
                else:
                    answer.set_exception(fault)
