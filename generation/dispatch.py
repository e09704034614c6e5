"""What workers report, and what happens when they do not: leases, completions, failures, expiry.

A lease is an epoch in the queue's row. Whoever does not hold the present one can neither
overwrite an image nor capture a hold: every report runs as one transaction that checks worker,
epoch and state under the log's lock.
"""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog

from generation.errors import JobNotFound, ObjectMissing, ResultRejected, StaleLease
from generation.images import RESULT_BYTES_MAX, Result, verify_result
from generation.job import ATTEMPTS_MAX, Job, JobState, require_leased
from generation.job_events import (
    JobBlocked,
    JobCancelled,
    JobCompleted,
    JobExpired,
    JobFailed,
    JobRequeued,
    JobStarted,
    JobSuperseded,
)
from generation.moderation import Moderation
from generation.queue import Claim, JobQueue
from generation.service import end_without_charge
from generation.signals import Signals
from generation.storage import ObjectStore, UploadTarget
from generation.tables import QUEUE, RESULTS, SESSIONS
from generation.workers import Worker, WorkerRegistry
from ledger.clock import Clock
from ledger.domain.commands import CaptureHold, ExpireHold
from ledger.domain.drafts import capture_in, expire_in
from ledger.identifiers import CommandKey, JobId
from ledger.log.model import Draft, LogWriter, Transaction
from ledger.log.reader import LogReader

LEASE = timedelta(seconds=30)
HEARTBEAT_SECONDS = 5
UPLOAD_MARGIN = timedelta(minutes=10)
PREVIEW_BYTES_MAX = 16_000
SWEEP_LIMIT = 100


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
class Report:
    """What a box says it has uploaded."""

    epoch: int
    sha256: str
    size_bytes: int
    gpu_milliseconds: int


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
    ) -> None:
        self._log = log
        self._reader = reader
        self._queue = queue
        self._store = store
        self._signals = signals
        self._moderation = moderation
        self._registry = registry
        self._clock = clock
        self._logger = structlog.get_logger("generation.dispatch")

    async def claim(self, worker: Worker, *, wait_seconds: float) -> Assignment | None:
        """The next job for this box, waiting for one up to `wait_seconds`."""
        if worker.state != "active":
            return None
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_seconds
        while True:
            assignment = await self._claim_once(worker)
            remaining = until - loop.time()
            if assignment is not None or remaining <= 0 or self._signals.closed:
                return assignment
            # A lost wake-up costs at most this second.
            await self._signals.wait_for_work(min(1.0, remaining))

    async def _claim_once(self, worker: Worker) -> Assignment | None:
        while True:
            claim = await self._queue.claim(worker.worker_id, worker.graphs, self._clock(), LEASE)
            if claim is None:
                return None
            if await self._start(worker, claim):
                assignment = await self._assignment(claim)
                if assignment is not None:
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
        inputs = await self._queue.inputs(claim.job_id)
        if inputs is None:
            await self._finish(claim.job_id, JobFailed(reason="inputs_erased", failure="input"), "failed")
            return None
        left = claim.deadline - self._clock()
        return Assignment(
            claim=claim,
            prompt=inputs.prompt,
            seed=inputs.seed,
            strength_permille=inputs.strength,
            width=inputs.width,
            height=inputs.height,
            sketch_url=await self._store.download_url(inputs.sketch_key, expires_in=left + UPLOAD_MARGIN),
            sketch_sha256=inputs.sketch_sha256,
            upload=await self._store.upload_target(
                upload_key(claim.job_id, claim.epoch),
                expires_in=left + UPLOAD_MARGIN,
                max_bytes=RESULT_BYTES_MAX,
            ),
        )

    async def heartbeat(
        self, worker: Worker, job_id: JobId, epoch: int, progress: tuple[int, int], preview: bytes | None
    ) -> tuple[str, Any]:
        """(`continue` | `cancel` | `lost`, lease end). Progress goes to whoever watches."""
        row = await self._queue.heartbeat(job_id, worker.worker_id, epoch, self._clock(), LEASE, progress)
        if row is None:
            return "lost", None
        message: dict[str, Any] = {
            "event": "progress",
            "id": job_id,
            "state": "running",
            "value": progress[0],
            "max": progress[1],
        }
        if preview and len(preview) <= PREVIEW_BYTES_MAX and preview.startswith(b"\xff\xd8\xff"):
            message["preview"] = "data:image/jpeg;base64," + base64.b64encode(preview).decode()
        await self._signals.tell(row.account_id, message)
        return ("cancel" if row.cancel_asked else "continue"), row.lease_expires_at

    async def complete(self, worker: Worker, job_id: JobId, report: Report) -> str:
        """Verify the upload, then complete and capture in one transaction. Returns the state.

        Repeating a report gives the same answer. Raises `StaleLease` for anyone but the holder
        of the present lease, `JobNotFound`.
        """
        job: Job = (await self._reader.state(job_id)).state
        if job.state.final and job.epoch == report.epoch and job.worker_id == worker.worker_id:
            return job.state.value
        require_leased(job, worker_id=worker.worker_id, epoch=report.epoch)
        try:
            result = await self._verified(job_id, report)
        except (ResultRejected, ObjectMissing, ValueError) as error:
            self._logger.warning("result_rejected", job_id=job_id, worker_id=worker.worker_id, why=str(error))
            return await self.fail(worker, job_id, report.epoch, failure="infrastructure", code="bad_result")
        verdict = await self._moderation.check_image(result.data)
        if not verdict.allowed:
            blocked = JobBlocked(stage="image", category=verdict.category)
            return await self._finish(job_id, blocked, "blocked", worker=worker, epoch=report.epoch)
        image_key, thumbnail_key = f"images/{job_id}.png", f"images/{job_id}.webp"
        await self._store.put(image_key, result.data, "image/png")
        await self._store.put(thumbnail_key, result.thumbnail, "image/webp")
        state = await self._capture(worker, job_id, job, report, result)
        await self._registry.note_success(worker.worker_id, report.gpu_milliseconds)
        await self._store.delete(upload_key(job_id, report.epoch))
        return state

    async def _verified(self, job_id: JobId, report: Report) -> Result:
        data = await self._store.get(upload_key(job_id, report.epoch), limit_bytes=RESULT_BYTES_MAX)
        return await asyncio.to_thread(verify_result, data, sha256=report.sha256)

    async def _capture(self, worker: Worker, job_id: JobId, job: Job, report: Report, result: Result) -> str:
        session_key = f"{job.account_id}/{job.session_id}" if job.live and job.session_id else None

        def decide(draft: Draft) -> str:
            state: Job = draft.state(job_id)
            require_leased(state, worker_id=worker.worker_id, epoch=report.epoch)
            if draft.now >= (state.deadline or draft.now):
                return _expire(draft, job_id)
            if session_key and not _deliver(draft, session_key, job_id, state.seq or 0):
                superseded = JobSuperseded(by_job=JobId(""))
                end_without_charge(draft, job_id, superseded, reason="superseded")
                return JobState.SUPERSEDED.value
            draft.append(job_id, [_completed(state, worker, report, result)])
            if state.hold_id is not None:
                capture_in(draft, state.account_id, CaptureHold(hold_id=state.hold_id))
            draft.delete(QUEUE, job_id)
            draft.put(RESULTS, _result_row(job_id, state, report, result, draft.now))
            return JobState.COMPLETED.value

        receipt = await self._log.submit(
            Transaction(
                key=CommandKey(f"{job_id}:{report.epoch}:complete"),
                actor=f"worker:{worker.worker_id}",
                body=["complete", job_id, report.epoch, report.sha256],
                streams=(job.account_id, job_id),
                rows=((SESSIONS, session_key),) if session_key else (),
                decide=decide,
            )
        )
        return str(receipt.result)

    async def fail(self, worker: Worker, job_id: JobId, epoch: int, *, failure: str, code: str) -> str:
        """An attempt failed. `input` is final; `infrastructure` is tried elsewhere, three times."""
        if failure == "infrastructure":
            await self._registry.note_failure(worker.worker_id)
        return await self._end_attempt(worker.worker_id, job_id, epoch, failure=failure, code=code)

    async def give_back(self, worker: Worker, job_id: JobId, epoch: int) -> str:
        """A box that shuts down returns its job unharmed."""
        return await self._end_attempt(
            worker.worker_id, job_id, epoch, failure="given_back", code="given_back"
        )

    async def _end_attempt(
        self, worker_id: str, job_id: JobId, epoch: int, *, failure: str, code: str
    ) -> str:
        job: Job = (await self._reader.state(job_id)).state
        if job.state is JobState.UNKNOWN:
            raise JobNotFound()

        def decide(draft: Draft) -> str:
            state: Job = draft.state(job_id)
            require_leased(state, worker_id=worker_id, epoch=epoch)
            row = draft.get(QUEUE, job_id)
            if row is None:
                raise StaleLease(state=state.state.value, epoch=state.epoch)
            if row["cancel_asked"]:
                end_without_charge(draft, job_id, JobCancelled(by="person"), reason="cancelled")
            elif draft.now >= row["deadline"]:
                return _expire(draft, job_id)
            elif failure == "input" or (failure == "infrastructure" and state.attempts >= ATTEMPTS_MAX):
                end_without_charge(draft, job_id, JobFailed(reason=code, failure=failure), reason="failed")
            else:
                _requeue(draft, job_id, row, worker_id, epoch, failure=failure, code=code)
            return str(draft.state(job_id).state.value)

        receipt = await self._log.submit(
            Transaction(
                key=CommandKey(f"{job_id}:{epoch}:end"),
                actor=f"worker:{worker_id}",
                body=["end_attempt", job_id, epoch],
                streams=(job.account_id, job_id),
                rows=((QUEUE, job_id),),
                decide=decide,
            )
        )
        await self._signals.work_arrived()
        return str(receipt.result)

    async def _finish(
        self,
        job_id: JobId,
        event: Any,
        reason: str,
        *,
        worker: Worker | None = None,
        epoch: int | None = None,
    ) -> str:
        job: Job = (await self._reader.state(job_id)).state

        def decide(draft: Draft) -> str:
            state: Job = draft.state(job_id)
            if worker is not None and epoch is not None:
                require_leased(state, worker_id=worker.worker_id, epoch=epoch)
            if not state.state.final:
                end_without_charge(draft, job_id, event, reason=reason)
            return str(draft.state(job_id).state.value)

        receipt = await self._log.submit(
            Transaction(
                key=CommandKey(f"{job_id}:{job.epoch}:finish"),
                actor=f"worker:{worker.worker_id}" if worker else "system:dispatch",
                body=["finish", job_id, reason],
                streams=(job.account_id, job_id),
                decide=decide,
            )
        )
        return str(receipt.result)

    async def sweep(self) -> int:
        """Requeue what lost its lease and expire what is past its deadline; bounded per call."""
        rows = await self._queue.lapsed(self._clock(), SWEEP_LIMIT)
        for row in rows:
            job_id = JobId(row.job_id)
            if row.state == "running" and row.deadline > self._clock():
                await self._lapse(row)
            else:
                await self._expire_job(job_id, row.epoch)
        return len(rows)

    async def _lapse(self, row: Any) -> None:
        """The box went silent: as if it had reported an infrastructure failure."""
        await self._registry.note_failure(row.worker_id)
        try:
            await self._end_attempt(
                row.worker_id, JobId(row.job_id), row.epoch, failure="infrastructure", code="worker_lost"
            )
        except StaleLease:
            self._logger.info("lease_already_resolved", job_id=row.job_id)

    async def _expire_job(self, job_id: JobId, epoch: int) -> None:
        job: Job = (await self._reader.state(job_id)).state

        def decide(draft: Draft) -> str:
            state: Job = draft.state(job_id)
            if not state.state.final and state.deadline is not None and draft.now >= state.deadline:
                return _expire(draft, job_id)
            return str(state.state.value)

        await self._log.submit(
            Transaction(
                key=CommandKey(f"{job_id}:{epoch}:expire"),
                actor="system:sweeper",
                body=["expire", job_id],
                streams=(job.account_id, job_id),
                decide=decide,
            )
        )


def upload_key(job_id: JobId, epoch: int) -> str:
    """Where the box with this lease puts its file. No other lease can write there."""
    return f"uploads/{job_id}/{epoch}"


def _expire(draft: Draft, job_id: JobId) -> str:
    """Hold and job share one deadline and expire together."""
    job: Job = draft.state(job_id)
    draft.append(job_id, [JobExpired()])
    if job.hold_id is not None:
        expire_in(draft, job.account_id, ExpireHold(hold_id=job.hold_id))
    draft.delete(QUEUE, job_id)
    return JobState.EXPIRED.value


def _requeue(
    draft: Draft, job_id: JobId, row: Any, worker_id: str, epoch: int, *, failure: str, code: str
) -> None:
    draft.append(job_id, [JobRequeued(worker_id=worker_id, epoch=epoch, reason=code)])
    refused = list(row["refused_workers"])
    if failure == "infrastructure":
        refused.append(worker_id)
    draft.put(
        QUEUE,
        {
            **row,
            "state": "queued",
            "worker_id": None,
            "lease_expires_at": None,
            "leased_at": None,
            "refused_workers": refused,
        },
    )


def _deliver(draft: Draft, session_key: str, job_id: JobId, seq: int) -> bool:
    """Whether this frame is newer than the newest delivered one of its session."""
    session = draft.get(SESSIONS, session_key)
    if session is None:
        return True
    if seq <= session["delivered_seq"]:
        return False
    waiting = None if session["waiting_job"] == job_id else session["waiting_job"]
    draft.put(
        SESSIONS,
        {**session, "delivered_seq": seq, "waiting_job": waiting, "updated_at": draft.now},
    )
    return True


def _completed(job: Job, worker: Worker, report: Report, result: Result) -> JobCompleted:
    return JobCompleted(
        worker_id=worker.worker_id,
        epoch=report.epoch,
        sha256=result.sha256,
        size_bytes=len(result.data),
        width=result.width,
        height=result.height,
        gpu_milliseconds=report.gpu_milliseconds,
        captured_credits=job.price_credits,
    )


def _result_row(job_id: JobId, job: Job, report: Report, result: Result, now: Any) -> dict[str, Any]:
    return {
        "job_id": job_id,
        "account_id": job.account_id,
        "image_key": f"images/{job_id}.png",
        "thumbnail_key": f"images/{job_id}.webp",
        "content_type": "image/png",
        "width": result.width,
        "height": result.height,
        "gpu_milliseconds": report.gpu_milliseconds,
        "completed_at": now,
    }
