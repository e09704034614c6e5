"""What workers ask and report, and what happens when they do not: leases, failures, expiry.

A lease is an epoch in the queue's row. Whoever does not hold the present one can neither
overwrite an image nor capture a hold: every report runs as one transaction that checks worker,
epoch and state under the log's lock.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
import structlog

from generation.claiming import Claim, ClaimDesk
from generation.completion import Completion, Report, upload_key
from generation.ending import end_without_charge, expire, past_deadline, rows_of
from generation.errors import JobNotFound, StaleLease
from generation.funding import FundingKeeper
from generation.images import RESULT_BYTES_MAX, is_preview
from generation.job import Job, JobState, NotTheHolder, report_to, require_leased, unrecorded, verdict_on
from generation.job_events import JobCancelled, JobFailed, JobRequeued, JobStarted
from generation.metrics import Metrics
from generation.moderation import Moderation
from generation.queue import JobQueue
from generation.refused import HISTORY_MAX, WORKER_LOST, why_refused
from generation.signals import Signals
from generation.storage import ObjectStore, UploadTarget
from generation.tables import QUEUE
from generation.workers import Worker, WorkerRegistry
from ledger.clock import Clock
from ledger.identifiers import CommandKey, JobId
from ledger.log.model import Draft, LogWriter, Transaction
from ledger.log.reader import LogReader

__all__ = ["HEARTBEAT_SECONDS", "LEASE", "Assignment", "Dispatch", "Report", "upload_key"]

LEASE = timedelta(seconds=30)
HEARTBEAT_SECONDS = 5
UPLOAD_MARGIN = timedelta(minutes=10)
SWEEP_LIMIT = 100
GIVEN_BACK = "given_back"


@dataclass(frozen=True, slots=True)
class Assignment:
    """A claimed job with everything that a box needs to paint it."""

    claim: Claim
    prompt: str
    seed: int
    strength_permille: int
    width: int
    height: int
    sketch_url: str
    sketch_sha256: str
    upload: UploadTarget


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an attempt gave no image. `input` is the job's fault, `infrastructure` the box's."""

    failure: str
    code: str
    node: str | None = None


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
        keeper: FundingKeeper | None = None,
    ) -> None:
        self._log = log
        self._reader = reader
        self._queue = queue
        self._store = store
        self._signals = signals
        self._registry = registry
        self._clock = clock
        self.metrics = metrics or Metrics()
        self._desk = ClaimDesk(queue.engine, clock, LEASE, self.metrics.claim_batch.observe)
        self._completion = Completion(
            log=log,
            reader=reader,
            queue=queue,
            store=store,
            moderation=moderation,
            registry=registry,
            metrics=self.metrics,
            keeper=keeper,
        )
        self._logger = structlog.get_logger("generation.dispatch")

    # --- claiming ---

    async def claim(
        self, worker: Worker, *, wait_seconds: float, gone: asyncio.Event | None = None
    ) -> Assignment | None:
        """The next job for this box, waiting for one up to `wait_seconds`.

        `gone` is set when the box has hung up: it gets nothing then, and what it was about to get goes
        back. Otherwise a box that died while it waited would take the next job with it for a lease's time.
        """
        if worker.state != "active":
            return None
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_seconds
        while gone is None or not gone.is_set():
            # Whatever arrives from here on wakes us, also while we look.
            news = self._signals.news()
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

    async def _take_back(self, worker: Worker, assignment: Assignment | None) -> None:
        if assignment is not None:
            with contextlib.suppress(StaleLease):
                await self.give_back(worker, assignment.claim.job_id, assignment.claim.epoch)

    async def _claim_once(self, worker: Worker) -> Assignment | None:
        while True:
            claim = await self._desk.claim(worker.worker_id, worker.graphs)
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
        def decide(draft: Draft) -> bool:
            job: Job = draft.state(claim.job_id)
            row = draft.get(QUEUE, claim.job_id)
            leased = row is not None and row["epoch"] == claim.epoch and row["worker_id"] == worker.worker_id
            if job.state is not JobState.QUEUED or row is None or not leased:
                return False
            draft.append(claim.job_id, [JobStarted(worker_id=worker.worker_id, epoch=claim.epoch)])
            draft.put(QUEUE, {**row, "state": "running", "attempts": job.attempts + 1})
            return True

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
            failed = JobFailed(reason="inputs_erased", failure="input")
            await self._completion.finish(claim.job_id, failed, reason="failed")
            return None
        left = claim.deadline - self._clock() + UPLOAD_MARGIN
        return Assignment(
            claim=claim,
            prompt=inputs.prompt,
            seed=inputs.seed,
            strength_permille=inputs.strength,
            width=inputs.width,
            height=inputs.height,
            sketch_url=await self._store.download_url(inputs.sketch_key, expires_in=left),
            sketch_sha256=inputs.sketch_sha256,
            upload=await self._store.upload_target(
                upload_key(claim.job_id, claim.epoch), expires_in=left, max_bytes=RESULT_BYTES_MAX
            ),
        )

    # --- reports ---

    async def heartbeat(
        self, worker: Worker, job_id: JobId, epoch: int, progress: tuple[int, int], preview: bytes | None
    ) -> tuple[str, Any]:
        """(`continue` | `cancel` | `lost`, lease end). Progress goes to whoever watches."""
        row = await self._queue.heartbeat(job_id, worker.worker_id, epoch, self._clock(), LEASE, progress)
        if row is None:
            await self._count_refused("heartbeat", worker.worker_id, job_id, epoch)
            return "lost", None
        message: dict[str, Any] = {
            "event": "progress",
            "id": job_id,
            "state": "running",
            "value": progress[0],
            "max": progress[1],
        }
        if preview and is_preview(preview):
            message["preview"] = "data:image/jpeg;base64," + base64.b64encode(preview).decode()
        await self._signals.tell(row.account_id, message)
        return ("cancel" if row.cancel_asked else "continue"), row.lease_expires_at

    async def complete(self, worker: Worker, job_id: JobId, report: Report) -> str:
        """Verify the upload, then complete and capture in one transaction. Returns the state.

        Repeating a report gives the same answer. Raises `StaleLease` for anyone but the holder
        of the present lease, `JobNotFound`.
        """
        try:
            state = await self._completion.complete(worker, job_id, report)
        except (StaleLease, JobNotFound):
            await self._count_refused("complete", worker.worker_id, job_id, report.epoch)
            raise
        if state is None:
            # The file is gone if the same report was taken meanwhile: then that is the answer.
            state = await self._completion.ended_by(worker, job_id, report)
        if state is None:
            return await self.fail(worker, job_id, report.epoch, failure="infrastructure", code="bad_result")
        return state

    async def fail(
        self, worker: Worker, job_id: JobId, epoch: int, *, failure: str, code: str, node: str | None = None
    ) -> str:
        """An attempt failed. `input` is final; `infrastructure` is tried elsewhere, three times.

        The same failure at the same node on two boxes is the job's fault, and the boxes are forgiven.
        """
        return await self._end_attempt(
            worker.worker_id, job_id, epoch, Failure(failure=failure, code=code, node=node)
        )

    async def give_back(self, worker: Worker, job_id: JobId, epoch: int) -> str:
        """A box that shuts down returns its job unharmed."""
        return await self._end_attempt(
            worker.worker_id, job_id, epoch, Failure(failure=GIVEN_BACK, code=GIVEN_BACK)
        )

    async def _end_attempt(self, worker_id: str, job_id: JobId, epoch: int, failure: Failure) -> str:
        row = await self._queue.queue_row(job_id)
        job: Job = (await self._reader.state(job_id)).state if row is None else Job(account_id=row.account_id)
        if row is None and job.state is JobState.UNKNOWN:
            await self._count_refused("end", worker_id, job_id, epoch)
            raise JobNotFound()

        def decide(draft: Draft) -> dict[str, Any]:
            state: Job = draft.state(job_id)
            with unrecorded():
                require_leased(state, worker_id=worker_id, epoch=epoch)
            held_by = [attempt.worker_id for attempt in state.failures]
            return {"blame": _close_attempt(draft, job_id, worker_id, failure), "before": held_by}

        try:
            receipt = await report_to(
                self._log,
                Transaction(
                    key=CommandKey(f"{job_id}:{epoch}:{worker_id}:end"),
                    actor=f"worker:{worker_id}",
                    body=["end_attempt", job_id, epoch],
                    streams=(job.account_id, job_id),
                    rows=rows_of(job_id),
                    decide=decide,
                ),
            )
        except NotTheHolder as stale:
            await self._count_refused("end", worker_id, job_id, epoch)
            raise stale.refusal from None
        blame, state = receipt.result["blame"]
        # A box that died after its upload has left the picture behind: nobody can report it any more.
        await self._store.delete(upload_key(job_id, epoch))
        if not receipt.replayed:
            await self._account_for(worker_id, failure, blame, receipt.result["before"], state)
        return str(state)

    async def _count_refused(self, report: str, worker_id: str, job_id: JobId, epoch: int) -> None:
        history = await self._reader.events(job_id, limit=HISTORY_MAX)
        cause = why_refused(history, worker_id=worker_id, epoch=epoch)
        self.metrics.refused.labels(report, cause).inc()
        # A box that is late is the weather; one that says what it cannot know is not.
        say = self._logger.warning if cause in ("forged_epoch", "other_box") else self._logger.info
        say("report_refused", report=report, cause=cause, job_id=job_id, worker_id=worker_id, epoch=epoch)

    async def _account_for(
        self, worker_id: str, failure: Failure, blame: str, before: list[str], state: str
    ) -> None:
        if blame == "box":
            await self._registry.note_failure(worker_id)
        elif blame == "job":
            await self._registry.forgive(before)
        if state == JobState.QUEUED.value:
            lost = "lost" if failure.code == WORKER_LOST else "failed"
            self.metrics.requeues.labels(GIVEN_BACK if failure.failure == GIVEN_BACK else lost).inc()
            await self._signals.work_arrived()
        else:
            self.metrics.outcomes.labels(state).inc()

    # --- time ---

    async def sweep(self) -> int:
        """Requeue what lost its lease and expire what is past its deadline; bounded per call."""
        await self._registry.flush()
        rows = await self._queue.lapsed(self._clock(), SWEEP_LIMIT)
        done = await asyncio.gather(*(self._lapse(row) for row in rows), return_exceptions=True)
        faults = [error for error in done if isinstance(error, BaseException)]
        for error in faults[:3]:
            self._logger.error("sweep_of_job_failed", error=repr(error))
        return len(rows) - len(faults)

    async def close(self) -> None:
        """Write what was counted since the last sweep."""
        with contextlib.suppress(sa.exc.SQLAlchemyError, OSError):
            await self._registry.flush()

    async def resume(self, worker: Worker) -> None:
        """A box has started (again): what it was painting when it died is lost now, not when the lease ends."""
        await self._registry.resume(worker.worker_id)
        for row in await self._queue.held_by(worker.worker_id):
            await self._lose(row)

    async def _lapse(self, row: Any) -> None:
        """The box went silent: as if it had reported an infrastructure failure. Or time is over."""
        if row.state != "running" or row.deadline <= self._clock():
            await self._expire_job(JobId(row.job_id), row.account_id)
        else:
            await self._lose(row)

    async def _lose(self, row: Any) -> None:
        job_id = JobId(row.job_id)
        try:
            await self._end_attempt(
                row.worker_id, job_id, row.epoch, Failure(failure="infrastructure", code=WORKER_LOST)
            )
        except StaleLease:
            self._logger.info("lease_already_resolved", job_id=job_id)

    async def _expire_job(self, job_id: JobId, account_id: str) -> None:
        def decide(draft: Draft) -> str | None:
            job: Job = draft.state(job_id)
            if job.state.final or job.state is JobState.UNKNOWN:
                draft.delete(QUEUE, job_id)
                return None  # it ended by other means, and was counted there
            if not past_deadline(draft, job):
                raise _NotDue
            return expire(draft, job_id)

        try:
            receipt = await self._log.submit(
                Transaction(
                    key=CommandKey(f"{job_id}:expire"),
                    actor="system:sweeper",
                    body=["expire", job_id],
                    streams=(account_id, job_id),
                    rows=rows_of(job_id),
                    decide=decide,
                )
            )
        except _NotDue:
            return
        if receipt.result is not None and not receipt.replayed:
            self.metrics.outcomes.labels(str(receipt.result)).inc()


class _NotDue(Exception):
    """Another clock said otherwise; nothing is recorded, so that it can be asked again."""


def _close_attempt(draft: Draft, job_id: JobId, worker_id: str, failure: Failure) -> tuple[str, str]:
    """Decide what becomes of a job whose attempt gave nothing: (who is to blame, the new state)."""
    job: Job = draft.state(job_id)
    row = draft.get(QUEUE, job_id)
    if row is None:
        raise NotTheHolder(StaleLease(state=job.state.value, epoch=job.epoch))
    given_back, broken = failure.failure == GIVEN_BACK, failure.failure == "infrastructure"
    blame = "box" if broken else "nobody"
    if row["cancel_asked"]:
        return blame, end_without_charge(draft, job_id, JobCancelled(by="person"), reason="cancelled")
    if past_deadline(draft, job):
        return blame, expire(draft, job_id)
    verdict = (
        verdict_on(job, worker_id=worker_id, code=failure.code, node=failure.node)
        if broken
        else failure.failure
    )
    if not given_back and verdict is not None:
        event = JobFailed(reason=failure.code, failure=verdict)
        state = end_without_charge(draft, job_id, event, reason="failed")
        return ("job" if verdict == "poison" else blame), state
    requeued = JobRequeued(
        worker_id=worker_id,
        epoch=job.epoch,
        reason=failure.code,
        counts=not given_back,
        node=failure.node,
    )
    draft.append(job_id, [requeued])
    refused = [*row["refused_workers"], worker_id] if broken else row["refused_workers"]
    free = {"state": "queued", "worker_id": None, "lease_expires_at": None, "leased_at": None}
    draft.put(QUEUE, {**row, **free, "refused_workers": refused})
    return blame, JobState.QUEUED.value
