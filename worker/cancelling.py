"""Ending tasks: cancelled again while they go on, waited for with a limit, and named in the log if they outlast it.

As `ledger.cancelling`, which a worker does not have: one cancellation may be swallowed by a client that is just
connecting, and who then waits without a limit holds up the machine until somebody restarts it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import structlog

AGAIN_SECONDS = 0.5
"""A cancellation after which a task goes on that long is repeated."""
SECONDS_MAX = 15.0
"""Shorter than the time a process is given to stop."""


async def end_tasks(
    tasks: Iterable[asyncio.Task[Any] | asyncio.Future[Any]],
    *,
    again_seconds: float = AGAIN_SECONDS,
    seconds_max: float = SECONDS_MAX,
) -> bool:
    """Cancel tasks and wait for them; whether all of them have ended. What they raise is passed over.

    Whoever is cancelled while waiting here waits on, and is cancelled afterwards: the tasks are not left behind.
    """
    mine = set(tasks)
    left = {task for task in mine if not task.done()}
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds_max
    cancelled: asyncio.CancelledError | None = None
    while left and (remaining := end - loop.time()) > 0:
        for task in left:
            task.cancel()
        try:
            _, left = await asyncio.wait(left, timeout=min(again_seconds, remaining))
        except asyncio.CancelledError as error:
            cancelled = error
            left = {task for task in left if not task.done()}
    for task in mine - left:
        if not task.cancelled():
            task.exception()  # looked at, or asyncio would complain that nobody did
    if left:
        names = sorted(task.get_name() if isinstance(task, asyncio.Task) else repr(task) for task in left)
        structlog.get_logger("worker.cancelling").error("tasks_not_ended", tasks=names, seconds=seconds_max)
    if cancelled is not None:
        raise cancelled
    return not left
