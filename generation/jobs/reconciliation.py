"""Open holds against jobs that have not ended, both ways; at start and now and then.

What the log records together cannot come apart; this finds out if it ever does. A job's end is
booked if its row has no living job, its hold is let go if its job has ended, and a job whose row
was lost gets it back. Everything is decided again under the log's lock, and counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
import sqlalchemy as sa
import structlog

from generation.domain.commands import ExpireJob
from generation.domain.errors import NotDue
from generation.domain.job import Job
from generation.domain.requests import session_key
from generation.domain.rows import QueueEntry
from generation.domain.states import JobState
from generation.jobs.metrics import Metrics
from generation.jobs.recording import record, rows_of, situation
from generation.queueing.queue import JobQueue
from generation.store.tables import QUEUE, job_inputs, job_queue, job_results
from ledger.clock import Clock
from ledger.domain import holds as holds_
from ledger.domain.applying import release_in
from ledger.domain.commands import ReleaseHold
from ledger.identifiers import Identifiers, JobId
from ledger.log.model import LogWriter, Transaction, UnitOfWork
from ledger.log.reader import LogReader

PAGE = 200
PEOPLE_MAX = 10_000
LOOK_BACK = timedelta(hours=2)
"""Jobs requested longer ago have long passed their deadline."""


class Reconciled(msgspec.Struct, frozen=True, kw_only=True):
    """What a run found. All but `jobs` and `holds` should be 0."""

    jobs: int = 0
    """Jobs that have not ended."""
    holds: int = 0
    """Open holds that stand for jobs."""
    rows_without_job: int = 0
    rows_restored: int = 0
    holds_released: int = 0
    jobs_ended: int = 0

    @property
    def clean(self) -> bool:
        """Whether everything was as it should be."""
        return not (self.rows_without_job or self.rows_restored or self.holds_released or self.jobs_ended)


class Reconciler:
    """Compares and heals. Safe to run in many processes, and beside everything else."""

    def __init__(
        self,
        *,
        log: LogWriter,
        reader: LogReader,
        queue: JobQueue,
        clock: Clock,
        identifiers: Identifiers,
        metrics: Metrics | None = None,
    ) -> None:
        self._log = log
        self._reader = reader
        self._queue = queue
        self._clock = clock
        self._ids = identifiers
        self._metrics = metrics or Metrics()
        self._logger = structlog.get_logger("generation.reconciler")

    async def run(self, accounts: Sequence[str] = ()) -> Reconciled:
        """One pass over all jobs that could be open, and the holds of everybody who asked lately.

        `accounts` are further ones to look at: whoever else is known to have credits held.
        """
        total: dict[str, int] = dict.fromkeys(Reconciled.__struct_fields__, 0)
        async for page in self._candidates():
            done = await asyncio.gather(*(self._job(account_id, JobId(job)) for account_id, job in page))
            for found in done:
                total[found] = total.get(found, 0) + 1
        for account_id in {*accounts, *await self._people()}:
            total["holds"] += await self._account(account_id, total)
        result = Reconciled(**{name: total[name] for name in Reconciled.__struct_fields__})
        report = self._logger.info if result.clean else self._logger.error
        report("reconciled", **msgspec.to_builtins(result))
        return result

    async def _people(self) -> Sequence[str]:
        since = self._clock() - LOOK_BACK
        recent = sa.select(job_inputs.c.account_id).where(job_inputs.c.requested_at > since)
        query = sa.union(sa.select(job_queue.c.account_id), recent).limit(PEOPLE_MAX)
        async with self._queue.engine.connect() as connection:
            return list((await connection.execute(query)).scalars())

    async def _candidates(self) -> AsyncIterator[Sequence[tuple[str, str]]]:
        """(account, job) of every row of the queue and of recent requests that left none, page by page."""
        since = self._clock() - LOOK_BACK
        known = sa.union(sa.select(job_queue.c.job_id), sa.select(job_results.c.job_id))
        lost = sa.and_(job_inputs.c.requested_at > since, job_inputs.c.job_id.not_in(known))
        for table, where in ((job_queue, sa.true()), (job_inputs, lost)):
            after = ""
            while True:
                query = (
                    sa.select(table.c.account_id, table.c.job_id)
                    .where(where, table.c.job_id > after)
                    .order_by(table.c.job_id)
                    .limit(PAGE)
                )
                async with self._queue.engine.connect() as connection:
                    page = [(row.account_id, row.job_id) for row in await connection.execute(query)]
                if page:
                    yield page
                if len(page) < PAGE:
                    break
                after = page[-1][1]

    async def _job(self, account_id: str, job_id: JobId) -> str:
        """Look at one job without a lock; decide under it only if something seems wrong."""
        job: Job = (await self._reader.state(job_id)).state
        row = await self._queue.entry(job_id)
        if (row is not None) == (not job.state.final and job.state is not JobState.UNKNOWN):
            return "jobs" if row is not None else "ended"

        def decide(uow: UnitOfWork) -> str:
            now: Job = uow.state(job_id)
            present = uow.get(QUEUE, job_id)
            if now.state.final or now.state is JobState.UNKNOWN:
                uow.delete(QUEUE, job_id)
                return "rows_without_job" if present is not None else "ended"
            if present is not None:
                return "jobs"
            try:
                record(uow, situation(uow, job_id), ExpireJob())
            except NotDue:
                uow.put(QUEUE, _restored(job_id, now, uow.now).to_row())
                return "rows_restored"
            return "jobs_ended"

        found = await self._submit(account_id, job_id, decide)
        if found == "jobs_ended":
            self._metrics.ended(JobState.EXPIRED.value)
        return found

    async def _account(self, account_id: str, total: dict[str, int]) -> int:
        """Holds of an account: each must stand for a job that has not ended. Others are let go."""
        summary = 0
        account = (await self._reader.state(account_id)).state
        for hold in list(holds_.each(account.holds)):
            if not hold.job_id.startswith("job_"):
                continue
            job: Job = (await self._reader.state(hold.job_id)).state
            if not job.state.final and job.hold_id == hold.hold_id:
                summary += 1
                continue
            found = await self._let_go(account_id, JobId(hold.job_id), hold.hold_id)
            total["holds_released"] += found == "released"
        return summary

    async def _let_go(self, account_id: str, job_id: JobId, hold_id: str) -> str:
        def decide(uow: UnitOfWork) -> str:
            job: Job = uow.state(job_id)
            hold = holds_.get(uow.state(account_id).holds, hold_id)
            if hold is None or (not job.state.final and job.hold_id == hold_id):
                return "open"
            release_in(uow, account_id, ReleaseHold(hold_id=hold_id, reason="reconciled"))
            return "released"

        return await self._submit(account_id, job_id, decide)

    async def _submit(self, account_id: str, job_id: JobId, decide: Any) -> str:
        receipt = await self._log.submit(
            Transaction(
                key=self._ids.command(),
                actor="system:reconciler",
                body=["reconcile", job_id],
                streams=(account_id, job_id),
                rows=rows_of(job_id, account_id),
                decide=decide,
            )
        )
        return str(receipt.result)


def _restored(job_id: JobId, job: Job, now: datetime) -> QueueEntry:
    """An entry for a job that lost its own. If it was running, its lease has lapsed: the sweeper goes on."""
    running = job.state is JobState.RUNNING
    return QueueEntry(
        job_id=job_id,
        account_id=job.account_id,
        session_id=session_key(job.account_id, job.session_id) if job.live else None,
        graph=job.graph,
        state=job.state,
        tag=0,
        rank=0,
        requested_at=now,
        deadline=job.deadline or now,
        refused_workers=[attempt.worker_id for attempt in job.failures],
        epoch=job.epoch,
        attempts=job.attempts,
        worker_id=job.worker_id if running else None,
        lease_expires_at=now if running else None,
        held=job.hold_id is not None,
    )
