"""What goes on in the background: follow-ups, lapsed leases, payments for single jobs, reconciliation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from generation.delivery.dispatch import Dispatch
from generation.jobs.reconciliation import Reconciler
from generation.jobs.service import Generations
from generation.jobs.unreferenced_objects import UnreferencedObjects
from generation.queueing.queue import JobQueue
from ledger.clock import Clock
from ledger.followups.sweeper import Sweeper
from processes.auto_topups.service import AutoTopups
from processes.renewals import Renewals
from rails.reconciliation.service import Reconciliation

SWEEP_SECONDS = 1.0
AUTO_TOPUP_SECONDS = 2.0
RECONCILE_SECONDS = 300.0
PRUNE_SECONDS = 600.0
RENEWALS_SECONDS = 600.0
UNREFERENCED_SECONDS = 86_400.0
NIGHTLY_SECONDS = 3_600.0
"""How often it is made sure that each rail has its next night."""


class PeriodicTasks:
    """Runs the periodic work; a fault is logged and tried again."""

    def __init__(
        self,
        *,
        dispatch: Dispatch,
        generations: Generations,
        sweepers: Sequence[Sweeper],
        reconciler: Reconciler,
        reconciliation: Reconciliation,
        unreferenced_objects: UnreferencedObjects,
        queue: JobQueue,
        renewals: Renewals | None,
        auto_topups: AutoTopups,
        clock: Clock,
    ) -> None:
        self._dispatch = dispatch
        self._generations = generations
        self._sweepers = sweepers
        self._reconciler = reconciler
        self._reconciliation = reconciliation
        self._unreferenced_objects = unreferenced_objects
        self._queue = queue
        self._renewals = renewals
        self._auto_topups = auto_topups
        self._clock = clock
        self._log = structlog.get_logger("processes.periodic")

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for sweeper in self._sweepers:
                    group.create_task(sweeper.run(), name=f"followups.{sweeper.kind}")
                group.create_task(self._again(self._dispatch.sweep, SWEEP_SECONDS))
                group.create_task(self._again(self._generations.sessions.sweep, SWEEP_SECONDS))
                group.create_task(self._again(self._reconcile, RECONCILE_SECONDS))
                group.create_task(self._again(self._reconciliation.ensure, NIGHTLY_SECONDS))
                group.create_task(self._again(self._prune, PRUNE_SECONDS))
                group.create_task(self._again(self._delete_unreferenced, UNREFERENCED_SECONDS))
                group.create_task(self._again(self._auto_topups.wake, AUTO_TOPUP_SECONDS))
                if self._renewals is not None:
                    group.create_task(self._again(self._renewals.sweep, RENEWALS_SECONDS))
        finally:
            await self._dispatch.close()

    async def _reconcile(self) -> int:
        await self._reconciler.run()
        return 0

    async def _prune(self) -> int:
        return await self._queue.prune(self._clock())

    async def _delete_unreferenced(self) -> int:
        await self._unreferenced_objects.sweep()
        return 0

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
