"""Deals with many notifications side by side, and moves the cursor on in their order.

The cursor goes past a notification only when it and all that came before it have been dealt with or stored: what
was not is told again after a crash.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ledger.cancelling import end_tasks
from rails.contract import Notification

AT_ONCE = 16
"""Of one rail and process. Each takes a few questions of the rail and one transaction, and these share commits."""


@dataclass(slots=True)
class _Following:
    task: asyncio.Task[None]
    cursor: str | None


class InOrder:
    """What is being dealt with, oldest first."""

    def __init__(
        self,
        deal: Callable[[Notification], Awaitable[None]],
        keep_cursor: Callable[[str], Awaitable[None]],
        at_once: int = AT_ONCE,
    ) -> None:
        self._deal = deal
        self._keep_cursor = keep_cursor
        self._room = asyncio.Semaphore(at_once)
        self._following: deque[_Following] = deque()
        self._keeping = asyncio.Lock()
        self._fault: Exception | None = None

    async def take(self, notification: Notification) -> None:
        """Begin with it, as soon as there is room. Raises what kept a former one's cursor from being kept."""
        await self._room.acquire()
        if self._fault is not None:
            self._room.release()
            fault, self._fault = self._fault, None
            raise fault
        self._following.append(
            _Following(asyncio.create_task(self._follow(notification)), notification.cursor)
        )

    async def end(self) -> None:
        """Give up what is under way: it is told again."""
        await end_tasks([one.task for one in self._following])
        self._following.clear()

    async def _follow(self, notification: Notification) -> None:
        try:
            await self._deal(notification)
            await self._move_on()
        except Exception as error:  # noqa: BLE001 - whoever brings the next notification is told
            self._fault = error
        finally:
            self._room.release()

    async def _move_on(self) -> None:
        """Forget the oldest that are done, and keep the last cursor among them."""
        async with self._keeping:
            me, cursor = asyncio.current_task(), None
            while self._following and (self._following[0].task.done() or self._following[0].task is me):
                cursor = self._following.popleft().cursor or cursor
            if cursor is not None:
                await self._keep_cursor(cursor)
