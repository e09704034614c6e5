"""Jobs whose money has just come are queued at once. A sweep would find them a moment later: nothing hangs on this."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

AT_ONCE = 8
"""Jobs looked at side by side by one process."""


class PaidJobs:
    """Looks at each job that `paid` names."""

    def __init__(self, paid: asyncio.Queue[str], look_at: Callable[[str], Awaitable[None]]) -> None:
        self._paid = paid
        self._look_at = look_at
        self._log = structlog.get_logger("processes.paid_jobs")

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(self._follow())

    async def _follow(self) -> None:
        while True:
            job_id = await self._paid.get()
            try:
                await self._look_at(job_id)
            except Exception as error:  # noqa: BLE001 - the sweep looks at it, too
                self._log.warning("paid_job_left_to_sweep", job_id=job_id, error=type(error).__name__)
