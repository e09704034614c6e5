"""From a reported upload to a delivered image: verified, checked, stored, captured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import msgspec
import structlog

from generation import leftovers
from generation.ending import end_without_charge, expire, hold_is_open, past_deadline, rows_of
from generation.errors import JobNotFound, ObjectMissing, ObjectTaken, ResultRejected, StaleLease
from generation.funding import PATIENCE, FundingKeeper
from generation.hands import WorkKilled
from generation.images import RESULT_BYTES_MAX, Result, verify_result
from generation.job import Job, JobState, NotTheHolder, report_to, require_leased, unrecorded
from generation.job_events import JobBlocked, JobCompleted, JobFailed, JobSettling, JobSuperseded
from generation.leftovers import image_keys, upload_key
from generation.metrics import Metrics
from generation.moderation import Moderation
from generation.queue import JobQueue
from generation.storage import ObjectStore, StoredObject
from generation.tables import FUNDING, QUEUE, RESULTS, SESSIONS
from generation.workers import Worker, WorkerRegistry
from ledger.domain.commands import CaptureHold
from ledger.domain.drafts import capture_in
from ledger.identifiers import CommandKey, JobId
from ledger.log.model import Draft, Event, LogWriter, Receipt, SideTable, Transaction
from ledger.log.reader import LogReader

__all__ = ["Completion", "Report", "upload_key"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a box says it has uploaded."""

    epoch: int
    sha256: str
    size_bytes: int
    gpu_milliseconds: int


@dataclass(frozen=True, slots=True)
class _Delivery:
    """Everything known about a verified image before it is delivered."""

    job_id: JobId
    worker: Worker
    report: Report
    result: Result
    row: Any
    counted: dict[str, int] = field(default_factory=dict)
    """For the counters: what was decided. Deciding again says the same again."""

    @property
    def queued(self) -> Mapping[str, Any]:
        """The queue's row when the report came. What was counted for a job stays as it was."""
        found: Mapping[str, Any] = self.row._asdict()
        return found

    @property
    def image_key(self) -> str:
        return image_keys(self.job_id, self.report.epoch)[0]

    @property
    def thumbnail_key(self) -> str:
        return image_keys(self.job_id, self.report.epoch)[1]

    def event(self, price_credits: int) -> JobCompleted:
        return JobCompleted(
            worker_id=self.worker.worker_id,
            epoch=self.report.epoch,
            sha256=self.result.sha256,
            size_bytes=len(self.result.data),
            width=self.result.width,
            height=self.result.height,
            gpu_milliseconds=self.report.gpu_milliseconds,
            captured_credits=price_credits,
        )

    def stored(self, now: datetime) -> dict[str, Any]:
        """The row of `job_results`, but for `completed_at`."""
        leased_at = self.row.leased_at or now
        return {
            "job_id": self.job_id,
            "account_id": self.row.account_id,
            "image_key": self.image_key,
            "thumbnail_key": self.thumbnail_key,
            "content_type": "image/png",
            "width": self.result.width,
            "height": self.result.height,
            "gpu_milliseconds": self.report.gpu_milliseconds,
            "wait_milliseconds": _milliseconds(self.row.requested_at, leased_at),
            "paint_milliseconds": _milliseconds(leased_at, now),
        }


class Completion:
    """Takes reports of finished work."""

    def __init__(
        self,
        *,
        log: LogWriter,
        reader: LogReader,
        queue: JobQueue,
        store: ObjectStore,
        moderation: Moderation,
        registry: WorkerRegistry,
        metrics: Metrics,
        keeper: FundingKeeper | None,
    ) -> None:
        self._log = log
        self._reader = reader
        self._queue = queue
        self._store = store
        self._moderation = moderation
        self._registry = registry
        self._metrics = metrics
        self._keeper = keeper
        self._logger = structlog.get_logger("generation.completion")

    async def complete(self, worker: Worker, job_id: JobId, report: Report) -> str | None:
        """The state after this report; None if what was uploaded is no image.

        Raises `StaleLease` for anyone but the holder of the present lease, `JobNotFound`.
        """
        row = await self._queue.queue_row(job_id)
        if (
            row is None
            or row.state != "running"
            or (row.worker_id, row.epoch) != (worker.worker_id, report.epoch)
        ):
            return await self._said_before(worker, job_id, report)
        try:
            verify = partial(verify_result, sha256=report.sha256)
            result = await self._store.use(
                upload_key(job_id, report.epoch), verify, limit_bytes=RESULT_BYTES_MAX
            )
        except (ResultRejected, ObjectMissing, WorkKilled, ValueError) as error:
            self._logger.warning("result_rejected", job_id=job_id, worker_id=worker.worker_id, why=str(error))
            return None
        verdict = await self._moderation.check_image(result.data)
        if not verdict.allowed:
            blocked = JobBlocked(stage="image", category=verdict.category)
            return await self.finish(job_id, blocked, reason="blocked", worker=worker, epoch=report.epoch)
        return await self._deliver(_Delivery(job_id, worker, report, result, row))

    async def _said_before(self, worker: Worker, job_id: JobId, report: Report) -> str:
        """The same report again gets the same answer; anybody else is refused."""
        state = await self.ended_by(worker, job_id, report)
        if state is None:
            job: Job = (await self._reader.state(job_id)).state
            raise StaleLease(state=job.state.value, epoch=job.epoch)
        # Whoever took the first report may have died before it cleared up.
        await self._store.delete(upload_key(job_id, report.epoch))
        return state

    async def ended_by(self, worker: Worker, job_id: JobId, report: Report) -> str | None:
        """The state of a job that ended under this very lease, else None. Raises `JobNotFound`."""
        job: Job = (await self._reader.state(job_id)).state
        if job.state is JobState.UNKNOWN:
            raise JobNotFound()
        ended = job.state.final or job.state is JobState.SETTLING
        mine = (job.worker_id, job.epoch) == (worker.worker_id, report.epoch)
        return job.state.value if ended and mine else None

    async def _deliver(self, delivery: _Delivery) -> str:
        job_id, result = delivery.job_id, delivery.result
        image = StoredObject(delivery.image_key, result.data, "image/png")
        thumbnail = StoredObject(delivery.thumbnail_key, result.thumbnail, "image/webp")
        try:
            await self._store.put_new([image, thumbnail])
        except ObjectTaken:  # another picture was reported under this lease
            raise StaleLease(state=JobState.RUNNING.value, epoch=delivery.report.epoch) from None
        try:
            receipt = await self._record(delivery)
        except NotTheHolder as stale:
            await self._forget(delivery)
            raise stale.refusal from None
        state = str(receipt.result)
        if state == JobState.SETTLING.value and self._keeper is not None:
            row = await self._queue.funding(job_id)
            if row is not None:
                state = await self._keeper.settle(job_id, delivery.row.account_id, row.reference)
        if not receipt.replayed:
            self._count(delivery, state)
        if state not in (JobState.COMPLETED.value, JobState.SETTLING.value):
            await self._forget(delivery)
        await self._store.delete(upload_key(job_id, delivery.report.epoch))
        return state

    async def _forget(self, delivery: _Delivery) -> None:
        await self._store.delete(delivery.image_key)
        await self._store.delete(delivery.thumbnail_key)

    def _count(self, delivery: _Delivery, state: str) -> None:
        if state != JobState.SETTLING.value:
            self._metrics.outcomes.labels(state).inc()
        if state == JobState.COMPLETED.value:
            spent = delivery.report.gpu_milliseconds
            self._registry.note_success(delivery.worker.worker_id, spent)
            self._metrics.gpu_seconds.observe(spent / 1000)
            self._metrics.gpu_seconds_total.inc(spent / 1000)
            self._metrics.credits_total.inc(delivery.counted["credits"])
            self._metrics.paint_seconds.observe(delivery.counted["paint_milliseconds"] / 1000)

    async def _record(self, delivery: _Delivery) -> Receipt:
        job_id, row = delivery.job_id, delivery.row
        # What a hold pays needs no row here: its own is only deleted.
        rows: tuple[tuple[SideTable, str], ...] = () if row.held else rows_of(job_id)
        if row.session_id is not None:
            rows = (*rows, (SESSIONS, row.session_id))

        def decide(draft: Draft) -> str:
            job: Job = draft.state(job_id)
            with unrecorded():
                require_leased(job, worker_id=delivery.worker.worker_id, epoch=delivery.report.epoch)
            painted = delivery.stored(draft.now)["paint_milliseconds"]
            delivery.counted.update(credits=job.price_credits, paint_milliseconds=painted)
            if past_deadline(draft, job):
                return expire(draft, job_id, delivery.queued)
            if job.live and row.session_id is not None:
                newer = _newer_delivered(draft, row.session_id, job_id, job.seq or 0)
                if newer is not None:
                    superseded = JobSuperseded(by_job=newer)
                    return end_without_charge(
                        draft, job_id, superseded, reason="superseded", row=delivery.queued
                    )
            if job.hold_id is None:
                return _settle_later(draft, delivery, job)
            return self._capture(draft, delivery, job)

        return await report_to(
            self._log,
            Transaction(
                key=CommandKey(f"{job_id}:{delivery.report.epoch}:{delivery.worker.worker_id}:complete"),
                actor=f"worker:{delivery.worker.worker_id}",
                body=["complete", job_id, delivery.report.epoch, delivery.report.sha256],
                streams=(row.account_id, job_id),
                rows=rows,
                decide=decide,
            ),
        )

    def _capture(self, draft: Draft, delivery: _Delivery, job: Job) -> str:
        if not hold_is_open(draft, job):
            # An operator closed it. Nothing may be shown that was not paid for.
            failed = JobFailed(reason="hold_closed", failure="payment")
            return end_without_charge(draft, delivery.job_id, failed, reason="failed", row=delivery.queued)
        assert job.hold_id is not None
        if job.epoch > 1:  # of its own upload `_deliver` takes care
            leftovers.note(draft, delivery.job_id, job)
        draft.append(delivery.job_id, [delivery.event(job.price_credits)])
        capture_in(draft, job.account_id, CaptureHold(hold_id=job.hold_id))
        draft.delete(QUEUE, delivery.job_id)
        draft.put(RESULTS, {**delivery.stored(draft.now), "completed_at": draft.now})
        return JobState.COMPLETED.value

    async def finish(
        self,
        job_id: JobId,
        event: Event,
        *,
        reason: str,
        worker: Worker | None = None,
        epoch: int | None = None,
    ) -> str:
        """End a job without charge; for a worker's report, only if it holds the lease."""
        job: Job = (await self._reader.state(job_id)).state

        def decide(draft: Draft) -> dict[str, Any]:
            state: Job = draft.state(job_id)
            if worker is not None and epoch is not None:
                with unrecorded():
                    require_leased(state, worker_id=worker.worker_id, epoch=epoch)
            if state.state.final:
                return {"state": state.state.value, "ended": False}
            return {"state": end_without_charge(draft, job_id, event, reason=reason), "ended": True}

        try:
            receipt = await report_to(
                self._log,
                Transaction(
                    key=CommandKey(f"{job_id}:{job.epoch}:finish"),
                    actor=f"worker:{worker.worker_id}" if worker else "system:dispatch",
                    body=["finish", job_id, reason],
                    streams=(job.account_id, job_id),
                    rows=rows_of(job_id),
                    decide=decide,
                ),
            )
        except NotTheHolder as stale:
            raise stale.refusal from None
        state = str(receipt.result["state"])
        if receipt.result["ended"] and not receipt.replayed:
            self._metrics.outcomes.labels(state).inc()
        return state


def _settle_later(draft: Draft, delivery: _Delivery, job: Job) -> str:
    """The image is there; the payment made for it alone is settled next, outside."""
    funding, queued = draft.get(FUNDING, delivery.job_id), draft.get(QUEUE, delivery.job_id)
    if funding is None or queued is None:
        failed = JobFailed(reason="not_paid", failure="payment")
        return end_without_charge(draft, delivery.job_id, failed, reason="failed")
    settling = JobSettling(
        worker_id=delivery.worker.worker_id,
        epoch=delivery.report.epoch,
        sha256=delivery.result.sha256,
        size_bytes=len(delivery.result.data),
    )
    leftovers.note(draft, delivery.job_id, job)
    draft.append(delivery.job_id, [settling])
    facts = {
        "event": msgspec.to_builtins(delivery.event(job.price_credits)),
        "row": delivery.stored(draft.now),
    }
    due = draft.now + timedelta(seconds=PATIENCE["settling"])
    draft.put(FUNDING, {**funding, "state": "settling", "result": facts, "due_at": due})
    draft.put(QUEUE, {**queued, "state": "settling", "lease_expires_at": None})
    return JobState.SETTLING.value


def _newer_delivered(draft: Draft, session_key: str, job_id: JobId, seq: int) -> JobId | None:
    """The job that delivered a newer frame of this session; None if this is the newest, and noted as such."""
    session = draft.get(SESSIONS, session_key)
    if session is None:
        return None
    if seq <= session["delivered_seq"]:
        return JobId(session["delivered_job"] or "")
    waiting = None if session["waiting_job"] == job_id else session["waiting_job"]
    delivered = {"delivered_seq": seq, "delivered_job": job_id, "waiting_job": waiting}
    draft.put(SESSIONS, {**session, **delivered, "updated_at": draft.now})
    return None


def _milliseconds(start: datetime, end: datetime) -> int:
    return max(0, (end - start) // timedelta(milliseconds=1))
