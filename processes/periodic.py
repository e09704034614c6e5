"""What goes on behind the generation side: lapsed leases, payments for single jobs, leftovers, reconciliation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from generation.dispatch import Dispatch
from generation.funding import FundingKeeper
from generation.leftovers import Leftovers
from generation.queue import JobQueue
from generation.reconcile import Reconciler
from generation.service import Generations
from ledger.clock import Clock

SWEEP_SECONDS = 1.0
LEFTOVERS_SECONDS = 60.0
RECONCILE_SECONDS = 300.0
PRUNE_SECONDS = 600.0


class Caretaker:
    """Runs the periodic work; a fault is logged and tried again."""

    def __init__(
        self,
        *,
        dispatch: Dispatch,
        keeper: FundingKeeper,
        generations: Generations,
        leftovers: Leftovers,
        reconciler: Reconciler,
        queue: JobQueue,
        clock: Clock,
    ) -> None:
        self._dispatch = dispatch
        self._keeper = keeper
        self._generations = generations
        self._leftovers = leftovers
        self._reconciler = reconciler
        self._queue = queue
        self._clock = clock
        self._log = structlog.get_logger("gateway.caretaker")

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._again(self._dispatch.sweep, SWEEP_SECONDS))
                group.create_task(self._again(self._keeper.sweep, SWEEP_SECONDS))
                group.create_task(self._again(self._generations.returns.sweep, SWEEP_SECONDS))
                group.create_task(self._again(self._generations.sessions.sweep, SWEEP_SECONDS))
                group.create_task(self._again(self._leftovers.sweep, LEFTOVERS_SECONDS))
                group.create_task(self._again(self._reconcile, RECONCILE_SECONDS))
                group.create_task(self._again(self._prune, PRUNE_SECONDS))
        finally:
            await self._dispatch.close()

    async def _reconcile(self) -> int:
        await self._reconciler.run()
        return 0

    async def _prune(self) -> int:
        return await self._queue.prune(self._clock())

    async def _again(self, work: Callable[[], Awaitable[int]], pause_seconds: float) -> None:
        """At once, and then every so often; more often while there is much to do."""
        log = self._log
        while True:
            found = 0
            try:
                found = await work()
            except Exception as error:
                log.exception("periodic_work_failed", error=type(error).__name__)
            await asyncio.sleep(0.05 if found >= 100 else pause_seconds)
