"""Works off the follow-ups of one kind until they are done. One policy for all:

- One bad row holds up nobody: each has its own place among those worked on at once, and its own time.
- A failure is written down in the row, and the row is tried again with growing waits, for ever.
- A process that dies loses nothing: what it had claimed is due again when its lease ends. So work must
  bear to be done twice.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from ledger.cancelling import end_tasks
from ledger.clock import Clock
from ledger.followups.backoff import Backoff
from ledger.followups.rows import Claimed, DueRows, FollowUps, problem_of

Work = Callable[[Mapping[str, Any]], Awaitable[datetime | None]]
"""Does the work of one row. None: it is done and the row may go; else when it is due again. Raises what
it likes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRules:
    """Paces and bounds of a sweeper."""

    at_once: int = 32
    """Rows worked on at the same time by one process."""
    pause_seconds: float = 1.0
    busy_seconds: float = 0.05
    """Between rounds while as many were due as could be claimed."""
    work_seconds_max: float = 60.0
    """A row that takes longer has failed."""
    lease: timedelta = timedelta(minutes=2)
    """How long a claimed row is left alone by others: longer than `work_seconds_max`."""
    backoff: Backoff = field(default_factory=Backoff)


class Sweeper:
    """Claims what is due and works on it. Any number of processes may run one."""

    def __init__(
        self,
        followups: FollowUps,
        work: Work,
        *,
        engine: AsyncEngine,
        clock: Clock,
        randomness: random.Random,
        rules: SweepRules | None = None,
    ) -> None:
        self.kind = followups.kind
        self._key = followups.key.name
        self._rows = DueRows(engine, followups)
        self._work = work
        self._clock = clock
        self._randomness = randomness
        self._rules = rules or SweepRules()
        self._working: set[asyncio.Task[bool]] = set()
        self._log = structlog.get_logger("ledger.followups").bind(kind=followups.kind)

    async def run(self) -> None:
        """Sweep until cancelled. A fault of the sweep itself is logged, and the next round comes."""
        try:
            while True:
                busy = False
                try:
                    busy = await self._begin() >= self._rules.at_once
                except Exception as error:  # noqa: BLE001 - whatever it is, the next round must come
                    self._log.exception("sweep_failed", error=type(error).__name__)
                await asyncio.sleep(self._rules.busy_seconds if busy else self._rules.pause_seconds)
        finally:
            await end_tasks(self._working)

    async def sweep(self) -> int:
        """One round, and wait for all that this process works on; returns how many rows are done."""
        await self._begin()
        if not self._working:
            return 0
        # Not `gather`: a caller who gives up must not stop work that others wait for.
        ended, _ = await asyncio.wait(self._working)
        return sum(not task.cancelled() and task.result() for task in ended)

    async def _begin(self) -> int:
        """Claim what there is room for and begin to work on it; returns how many rows are worked on now."""
        room = self._rules.at_once - len(self._working)
        now = self._clock()
        for claim in await self._rows.claim(now, now + self._rules.lease, room) if room else ():
            task = asyncio.create_task(self._work_on(claim))
            self._working.add(task)
            task.add_done_callback(self._working.discard)
        return len(self._working)

    async def _work_on(self, claim: Claimed) -> bool:
        """Whether the row is done. Never raises: what went wrong is in the row, or the lease will end."""
        try:
            try:
                async with asyncio.timeout(self._rules.work_seconds_max):
                    due_at = await self._work(claim.row)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one row must stay with it
                await self._postpone(claim, error)
                return False
            if due_at is None:
                await self._rows.done(claim)
            else:
                await self._rows.again(claim, due_at)
        except Exception as error:  # noqa: BLE001 - the row is due again when its lease ends
            self._log.warning("followup_not_noted", key=claim.row[self._key], error=type(error).__name__)
            return False
        return due_at is None

    async def _postpone(self, claim: Claimed, error: Exception) -> None:
        problem, attempts = problem_of(error), claim.attempts + 1
        self._log.warning("followup_failed", key=claim.row[self._key], attempts=attempts, problem=problem)
        wait = self._rules.backoff.wait(attempts, self._randomness)
        await self._rows.failed(claim, self._clock() + wait, problem)
