"""What workers ask and report, and what happens when they do not: leases, failures, expiry.

A lease is an epoch in the queue's row. Whoever does not hold the present one can neither
overwrite an image nor capture a hold: every report runs as one transaction that checks worker,
epoch and state under the log's lock.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa
import structlog

from generation.delivery.completion import Completion, Report
from generation.domain.commands import EndAttempt, ExpireJob, FailureKind, Lease, StartJob
from generation.domain.deciding import Situation
from generation.domain.errors import JobNotFound, NotDue, NotTheHolder, ResultBlank, StaleLease
from generation.domain.events import JobFailed
from generation.domain.job import Job
from generation.domain.reasons import Reason
from generation.domain.rejections import HISTORY_MAX, rejection_cause
from generation.domain.rows import JobProgress, QueueEntry
from generation.domain.states import JobState
from generation.fleet.registry import Worker, WorkerRegistry
from generation.images.checking import RESULT_BYTES_MAX, is_preview
from generation.images.moderation import Moderation
from generation.images.object_store import ObjectStore, UploadTarget
from generation.jobs.funding import FundingProcess
from generation.jobs.metrics import Metrics
from generation.jobs.orphaned_uploads import upload_key
from generation.jobs.recording import record, record_report, report_to, rows_of, situation, state_of
from generation.queueing.claiming import Claim, ClaimBatcher
from generation.queueing.queue import JobQueue
from generation.queueing.signals import Signals
from generation.store.tables import QUEUE
from ledger.clock import Clock
from ledger.identifiers import AccountId, CommandKey, JobId
from ledger.log.model import LogWriter, Transaction, UnitOfWork
from ledger.log.reader import LogReader

__all__ = ["HEARTBEAT_SECONDS", "LEASE", "Assignment", "Dispatch", "Report", "upload_key"]

LEASE = timedelta(seconds=30)
HEARTBEAT_SECONDS = 5
UPLOAD_MARGIN = timedelta(minutes=10)
TRIAL_TIME = timedelta(minutes=10)
TRIAL_BYTES_MAX = 4 * 1024 * 1024
SWEEP_LIMIT = 100
UNWATCHED_SECONDS = 10.0
"""Without a sweep for longer, no worker's silence proves anything: it may be that nobody could hear it."""
BLAME_WORKER, BLAME_JOB, BLAME_NOBODY = "worker", "job", "nobody"


@dataclass(frozen=True, slots=True)
class Assignment:
    """A claimed job with everything that a worker needs to paint it."""

    claim: Claim
    prompt: str
    seed: int
    strength_permille: int
    width: int
    height: int
    sketch_url: str
    sketch_sha256: str
    upload: UploadTarget


class Dispatch:
    """The worker-facing half of the generation side."""

    def __init__(
        self,
        *,
        log: LogWriter,
        reader: LogReader,
        queue: JobQueue,
        store: ObjectStore,
        signals: Signals,
        moderation: Moderation,
        registry: WorkerRegistry,
        clock: Clock,
        metrics: Metrics | None = None,
        funding_process: FundingProcess | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._reader = reader
        self._queue = queue
        self._store = store
        self._signals = signals
        self._registry = registry
        self._clock = clock
        self._monotonic = monotonic
        self.metrics = metrics or Metrics()
        self._watching_since = clock()
        """Since when heartbeats have been taken without a gap, as far as the sweeps show it."""
        self._swept_at: float | None = None
        self._claims = ClaimBatcher(queue.engine, clock, LEASE, self._claimed)
        self._completion = Completion(
            log=log,
            reader=reader,
            queue=queue,
            store=store,
            moderation=moderation,
            registry=registry,
            metrics=self.metrics,
            funding_process=funding_process,
        )
        self._logger = structlog.get_logger("generation.delivery.dispatch")

    # --- claiming ---

    def _claimed(self, count: int) -> None:
        self.metrics.claim_batch.observe(count)
        self._queue.watch.changed()

    async def claim(
        self, worker: Worker, *, wait_seconds: float, gone: asyncio.Event | None = None
    ) -> Assignment | None:
        """The next job for this worker, waiting for one up to `wait_seconds`.

        `gone` is set when the worker has hung up: it gets nothing then, and what it was about to get goes
        back. Otherwise a worker that died while it waited would take the next job with it for a lease's time.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_seconds
        if worker.state != "active":
            await self._hold(until, gone)
            return None
        while gone is None or not gone.is_set():
            # Whatever arrives from here on wakes us, also while we look.
            news = self._signals.news()
            await self._registry.note_waiting(worker.worker_id)
            assignment = await self._claim_once(worker)
            if gone is not None and gone.is_set():
                await self._take_back(worker, assignment)
                return None
            remaining = until - loop.time()
            if assignment is not None or remaining <= 0 or self._signals.closed:
                return assignment
            # A lost wake-up costs at most this second.
            await self._signals.wait_for_work(min(1.0, remaining), news)
        return None

    async def _hold(self, until: float, gone: asyncio.Event | None) -> None:
        """Let a worker that gets nothing wait as long as it asked for, or it would ask again at once."""
        loop = asyncio.get_running_loop()
        while (remaining := until - loop.time()) > 0 and not self._signals.closed:
            if gone is not None and gone.is_set():
                return
            await self._signals.wait_for_work(min(1.0, remaining), self._signals.news())

    async def _take_back(self, worker: Worker, assignment: Assignment | None) -> None:
        if assignment is not None:
            with contextlib.suppress(StaleLease):
                await self.give_back(worker, assignment.claim.job_id, assignment.claim.epoch)

    async def _claim_once(self, worker: Worker) -> Assignment | None:
        while True:
            claim = await self._claims.claim(worker.worker_id, worker.graphs)
            if claim is None:
                return None
            if await self._start(worker, claim):
                assignment = await self._assignment(claim)
                if assignment is not None:
                    self.metrics.leases.inc()
                    waited = (self._clock() - claim.requested_at).total_seconds()
                    self.metrics.wait_seconds.observe(max(0.0, waited))
                    return assignment

    async def _start(self, worker: Worker, claim: Claim) -> bool:
        def decide(uow: UnitOfWork) -> bool:
            row = uow.get(QUEUE, claim.job_id)
            at = Situation(
                job_id=claim.job_id,
                job=uow.state(claim.job_id),
                entry=None if row is None else QueueEntry.from_row(row),
            )
            return bool(record(uow, at, StartJob(Lease(worker.worker_id, claim.epoch))))

        receipt = await self._log.submit(
            Transaction(
                key=CommandKey(f"{claim.job_id}:{claim.epoch}:start"),
                actor=f"worker:{worker.worker_id}",
                body=["start", claim.job_id, claim.epoch],
                streams=(claim.job_id,),
                rows=((QUEUE, claim.job_id),),
                decide=decide,
            )
        )
        return bool(receipt.result)

    async def _assignment(self, claim: Claim) -> Assignment | None:
        inputs = claim.inputs
        if inputs is None:
            await self._completion.fail_erased(claim.job_id)
            return None
        left = claim.deadline - self._clock() + UPLOAD_MARGIN
        return Assignment(
            claim=claim,
            prompt=inputs.prompt,
            seed=inputs.seed,
            strength_permille=inputs.strength,
            width=inputs.width,
            height=inputs.height,
            sketch_url=await self._store.download_url(inputs.sketch_key, expires_in=left, public=False),
            sketch_sha256=inputs.sketch_sha256,
            upload=await self._store.upload_target(
                upload_key(claim.job_id, claim.epoch), expires_in=left, max_bytes=RESULT_BYTES_MAX
            ),
        )

    async def trial_upload(self, worker: Worker) -> UploadTarget:
        """Where this worker can try how fast it sends. Nothing refers to what it leaves there."""
        key = upload_key(JobId(worker.worker_id), 0)
        return await self._store.upload_target(key, expires_in=TRIAL_TIME, max_bytes=TRIAL_BYTES_MAX)

    async def end_trial(self, worker: Worker) -> None:
        """Delete what this worker sent. One that does not say so leaves it to the sweep of unreferenced objects."""
        await self._store.delete(upload_key(JobId(worker.worker_id), 0))

    # --- reports ---

    async def heartbeat(
        self, worker: Worker, job_id: JobId, epoch: int, progress: JobProgress, preview: bytes | None
    ) -> tuple[Literal["continue", "cancel", "lost"], datetime | None]:
        """(`continue` | `cancel` | `lost`, lease end). Progress goes to whoever watches."""
        row = await self._queue.heartbeat(job_id, worker.worker_id, epoch, self._clock(), LEASE, progress)
        if row is None:
            await self._count_rejected("heartbeat", worker.worker_id, job_id, epoch)
            return "lost", None
        message: dict[str, Any] = {
            "event": "progress",
            "id": job_id,
            "state": JobState.RUNNING.value,
            "value": progress.value,
            "max": progress.maximum,
        }
        if preview and is_preview(preview):
            message["preview"] = "data:image/jpeg;base64," + base64.b64encode(preview).decode()
        await self._signals.publish(row.account_id, message)
        return ("cancel" if row.cancel_asked else "continue"), row.lease_expires_at

    async def complete(self, worker: Worker, job_id: JobId, report: Report) -> str:
        """Verify the upload, then complete and capture in one transaction. Returns the state.

        Repeating a report gives the same answer. Raises `StaleLease` for anyone but the holder
        of the present lease, `JobNotFound`.
        """
        state, code = None, Reason.BAD_RESULT
        try:
            state = await self._completion.complete(worker, job_id, report)
        except ResultBlank:
            code = Reason.BLANK_IMAGE
        except (StaleLease, JobNotFound):
            await self._count_rejected("complete", worker.worker_id, job_id, report.epoch)
            raise
        if state is None:
            # The file is gone if the same report was taken meanwhile: then that is the answer.
            state = await self._completion.ended_by(worker, job_id, report)
        if state is None:
            return await self.fail(worker, job_id, report.epoch, failure="infrastructure", code=code.value)
        return state

    async def fail(
        self, worker: Worker, job_id: JobId, epoch: int, *, failure: str, code: str, node: str | None = None
    ) -> str:
        """An attempt failed. `input` is final; `infrastructure` and `service` are tried again, three times.

        The same failure at the same node on two workers is the job's fault, and the workers are forgiven.
        """
        lease = Lease(worker.worker_id, epoch)
        return await self._end_attempt(job_id, EndAttempt(lease=lease, kind=failure, code=code, node=node))

    async def give_back(self, worker: Worker, job_id: JobId, epoch: int) -> str:
        """A worker that shuts down returns its job unharmed."""
        given_back = FailureKind.GIVEN_BACK
        attempt = EndAttempt(
            lease=Lease(worker.worker_id, epoch), kind=given_back.value, code=given_back.value
        )
        return await self._end_attempt(job_id, attempt)

    async def _end_attempt(self, job_id: JobId, attempt: EndAttempt) -> str:
        worker_id, epoch = attempt.lease.worker_id, attempt.lease.epoch
        account_id = await self._account_of(job_id)
        if account_id is None:
            await self._count_rejected("end", worker_id, job_id, epoch)
            raise JobNotFound()
        transaction = Transaction(
            key=CommandKey(f"{job_id}:{epoch}:{worker_id}:end"),
            actor=f"worker:{worker_id}",
            body=["end_attempt", job_id, epoch],
            streams=(account_id, job_id),
            rows=rows_of(job_id, account_id),
            decide=lambda uow: _close_attempt(uow, job_id, attempt),
        )
        try:
            receipt = await report_to(self._log, transaction)
        except NotTheHolder as stale:
            await self._count_rejected("end", worker_id, job_id, epoch)
            raise stale.refusal from None
        blame, state = receipt.result["blame"]
        # A worker that died after its upload has left the picture behind: nobody can report it any more.
        await self._store.delete(upload_key(job_id, epoch))
        if not receipt.replayed:
            await self._account_for(job_id, account_id, attempt, blame, state)
        return str(state)

    async def _account_of(self, job_id: JobId) -> AccountId | None:
        """Whose job it is, None if there is no such job."""
        entry = await self._queue.entry(job_id)
        if entry is not None:
            return entry.account_id
        job: Job = (await self._reader.state(job_id)).state
        return None if job.state is JobState.UNKNOWN else job.account_id

    async def _count_rejected(self, report: str, worker_id: str, job_id: JobId, epoch: int) -> None:
        history = await self._reader.events(job_id, limit=HISTORY_MAX)
        cause = rejection_cause(history, worker_id=worker_id, epoch=epoch)
        self.metrics.refused.labels(report, cause).inc()
        # A worker that is late is the weather; one that reports what it cannot know is not.
        log = self._logger.warning if cause in ("forged_epoch", "other_worker") else self._logger.info
        log("report_refused", report=report, cause=cause, job_id=job_id, worker_id=worker_id, epoch=epoch)

    async def _account_for(
        self, job_id: JobId, account_id: AccountId, attempt: EndAttempt, blame: str, state: str
    ) -> None:
        if blame == BLAME_WORKER:
            await self._registry.note_failure(attempt.lease.worker_id, job_id, account_id, attempt.code)
        elif blame == BLAME_JOB:
            await self._registry.quarantine.forgive(job_id)
        if state != JobState.QUEUED.value:
            self.metrics.ended(state)
            return
        given_back = attempt.kind == FailureKind.GIVEN_BACK
        why = "given_back" if given_back else "lost" if attempt.code == Reason.WORKER_LOST else "failed"
        self.metrics.requeues.labels(why).inc()
        await self._signals.work_arrived()

    # --- time ---

    async def sweep(self) -> int:
        """Requeue what lost its lease and expire what is past its deadline; bounded per call."""
        await self._registry.flush()
        entries = await self._queue.lapsed(self._clock(), SWEEP_LIMIT)
        self._note_sweep()
        done = await asyncio.gather(*(self._lapse(entry) for entry in entries), return_exceptions=True)
        faults = [error for error in done if isinstance(error, BaseException)]
        for error in faults[:3]:
            self._logger.error("sweep_of_job_failed", error=repr(error))
        return len(entries) - len(faults)

    def _note_sweep(self) -> None:
        at = self._monotonic()
        if self._swept_at is not None and at - self._swept_at > UNWATCHED_SECONDS:
            self._watching_since = self._clock()
        self._swept_at = at

    async def close(self) -> None:
        """Write what was counted since the last sweep."""
        with contextlib.suppress(sa.exc.SQLAlchemyError, OSError):
            await self._registry.flush()

    async def resume(self, worker: Worker) -> None:
        """A worker has started (again): what it was painting when it died is lost now, not when the lease ends."""
        await self._registry.resume(worker.worker_id)
        for entry in await self._queue.held_by(worker.worker_id):
            await self._lose(entry)

    async def _lapse(self, entry: QueueEntry) -> None:
        """The worker went silent: as if it had reported an infrastructure failure. Or time is over.

        If it was last heard before we began to watch (this process or the database was away), the silence may
        be ours: it is tried again, and nobody is to blame.
        """
        if entry.state is not JobState.RUNNING or entry.deadline <= self._clock():
            await self._expire_job(entry)
        else:
            ends = entry.lease_expires_at
            listening = ends is not None and ends - LEASE >= self._watching_since
            await self._lose(entry, FailureKind.INFRASTRUCTURE if listening else FailureKind.SERVICE)

    async def _lose(self, entry: QueueEntry, kind: FailureKind = FailureKind.INFRASTRUCTURE) -> None:
        lost = EndAttempt(
            lease=Lease(entry.worker_id or "", entry.epoch),
            kind=kind.value,
            code=Reason.WORKER_LOST.value,
        )
        try:
            await self._end_attempt(entry.job_id, lost)
        except StaleLease:
            self._logger.info("lease_already_resolved", job_id=entry.job_id)

    async def _expire_job(self, entry: QueueEntry) -> None:
        job_id = entry.job_id

        def decide(uow: UnitOfWork) -> str | None:
            if record(uow, situation(uow, job_id), ExpireJob()):
                return state_of(uow, job_id)
            uow.delete(QUEUE, job_id)
            return None  # it ended by other means, and was counted there

        transaction = Transaction(
            key=CommandKey(f"{job_id}:expire"),
            actor="system:sweeper",
            body=["expire", job_id],
            streams=(entry.account_id, job_id),
            rows=rows_of(job_id, entry.account_id),
            decide=decide,
        )
        try:
            receipt = await self._log.submit(transaction)
        except NotDue:
            return  # another clock said otherwise
        if receipt.result is not None and not receipt.replayed:
            self.metrics.ended(str(receipt.result))


def _close_attempt(uow: UnitOfWork, job_id: JobId, attempt: EndAttempt) -> dict[str, Any]:
    """Who is to blame, and the new state (`blame`)."""
    at = situation(uow, job_id)
    events = record_report(uow, at, attempt)
    broken = attempt.kind == FailureKind.INFRASTRUCTURE
    poison = any(isinstance(event, JobFailed) and event.failure == FailureKind.POISON for event in events)
    blame = BLAME_JOB if poison else BLAME_WORKER if broken else BLAME_NOBODY
    return {"blame": [blame, state_of(uow, job_id)]}
