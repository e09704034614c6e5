"""A finished image: verified outside of any transaction, then delivered and captured in one.

`complete` is what happens, from top to bottom. What is decided is in `generation.domain.deciding`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import msgspec
import structlog

from generation.domain.commands import BlockJob, CompleteJob, FailJob, FailureKind, JobCommand, Lease
from generation.domain.deciding import Situation
from generation.domain.errors import (
    JobNotFound,
    NotTheHolder,
    ObjectMissing,
    ObjectTaken,
    ResultBlank,
    ResultRejected,
    StaleLease,
)
from generation.domain.events import JobCompleted, JobSettling
from generation.domain.job import Job
from generation.domain.reasons import Reason
from generation.domain.rows import FundingStep, QueueEntry
from generation.domain.sessions import delivered
from generation.domain.states import JobState
from generation.fleet.registry import Worker, WorkerRegistry
from generation.images.checking import RESULT_BYTES_MAX, Result, verify_upload
from generation.images.executors import WorkKilled
from generation.images.moderation import Moderation
from generation.images.object_store import ObjectStore, SameObject, StoredObject
from generation.jobs.funding import RETRY_SECONDS, FundingProcess
from generation.jobs.metrics import Metrics
from generation.jobs.orphaned_uploads import image_keys, upload_key
from generation.jobs.recording import (
    hold_is_open,
    record_report,
    report_to,
    rows_of,
    session_of,
    situation,
    state_of,
)
from generation.queueing.queue import JobQueue
from generation.store.tables import FUNDING, RESULTS, SESSIONS
from ledger.identifiers import CommandKey, JobId
from ledger.log.model import LogWriter, Receipt, SideTable, Transaction, UnitOfWork
from ledger.log.reader import LogReader


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a worker reports that it has uploaded."""

    epoch: int
    sha256: str
    size_bytes: int
    gpu_milliseconds: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """Everything known about a verified image before it is delivered."""

    entry: QueueEntry
    """The job's entry in the queue when the report came. What was counted for it stays as it was."""
    worker: Worker
    report: Report
    result: Result

    @property
    def job_id(self) -> JobId:
        """The job that it is of."""
        return self.entry.job_id

    @property
    def keys(self) -> tuple[str, str]:
        """Where the image and its thumbnail are kept."""
        return image_keys(self.job_id, self.report.epoch, self.result.content_type)

    def command(self) -> CompleteJob:
        """What is asked of the job."""
        return CompleteJob(
            lease=Lease(self.worker.worker_id, self.report.epoch),
            sha256=self.result.sha256,
            size_bytes=self.result.size_bytes,
            width=self.result.width,
            height=self.result.height,
            gpu_milliseconds=self.report.gpu_milliseconds,
        )

    def event(self, price_credits: int) -> JobCompleted:
        """What is recorded once the payment of this job alone is settled."""
        command = self.command()
        return JobCompleted(
            worker_id=command.lease.worker_id,
            epoch=command.lease.epoch,
            sha256=command.sha256,
            size_bytes=command.size_bytes,
            width=command.width,
            height=command.height,
            gpu_milliseconds=command.gpu_milliseconds,
            captured_credits=price_credits,
        )

    def row(self, now: datetime) -> dict[str, Any]:
        """The row of `job_results`, but for `completed_at`."""
        leased_at = self.entry.leased_at or now
        image_key, thumbnail_key = self.keys
        return {
            "job_id": self.job_id,
            "account_id": self.entry.account_id,
            "image_key": image_key,
            "thumbnail_key": thumbnail_key,
            "content_type": self.result.content_type,
            "width": self.result.width,
            "height": self.result.height,
            "gpu_milliseconds": self.report.gpu_milliseconds,
            "wait_milliseconds": _milliseconds(self.entry.requested_at, leased_at),
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
        funding_process: FundingProcess | None,
    ) -> None:
        self._log = log
        self._reader = reader
        self._queue = queue
        self._store = store
        self._moderation = moderation
        self._registry = registry
        self._metrics = metrics
        self._funding_process = funding_process
        self._logger = structlog.get_logger("generation.delivery.completion")

    async def complete(self, worker: Worker, job_id: JobId, report: Report) -> str | None:
        """The state after this report; None if what was uploaded is no image.

        Raises `StaleLease` for anyone but the holder of the present lease, `JobNotFound`, `ResultBlank`.
        """
        entry = await self._queue.entry(job_id)
        running = entry is not None and entry.state is JobState.RUNNING
        if entry is None or not running or not entry.leased_to(worker.worker_id, report.epoch):
            return await self._reported_before(worker, job_id, report)
        result = await self._verified(worker, job_id, report)
        if result is None:
            return None
        delivery = Delivery(entry, worker, report, result)
        if not await self._keep(delivery):
            return None
        verdict = await self._moderation.check_image(partial(self._image, delivery))
        if not verdict.allowed:
            return await self._block(delivery, verdict.category)
        receipt = await self._record(delivery)
        return await self._conclude(delivery, receipt)

    async def _reported_before(self, worker: Worker, job_id: JobId, report: Report) -> str:
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

    async def _verified(self, worker: Worker, job_id: JobId, report: Report) -> Result | None:
        """What was uploaded, decoded and checked; None if it is no image that we would deliver.

        Raises `ResultBlank`.
        """
        verify = partial(verify_upload, sha256=report.sha256)
        try:
            return await self._store.use(
                upload_key(job_id, report.epoch), verify, limit_bytes=RESULT_BYTES_MAX
            )
        except ResultBlank:
            raise
        except (ResultRejected, ObjectMissing, WorkKilled, ValueError) as error:
            self._logger.warning("result_rejected", job_id=job_id, worker_id=worker.worker_id, why=str(error))
            return None

    async def _keep(self, delivery: Delivery) -> bool:
        """Store image and thumbnail under names that only this lease can write: whether what was verified is there."""
        image_key, thumbnail_key = delivery.keys
        result, report = delivery.result, delivery.report
        image: StoredObject | SameObject
        if result.data is None:
            uploaded = upload_key(delivery.job_id, report.epoch)
            image = SameObject(image_key, uploaded, result.sha256, result.content_type)
        else:
            image = StoredObject(image_key, result.data, result.content_type)
        thumbnail = StoredObject(thumbnail_key, result.thumbnail, "image/webp")
        try:
            await self._store.put_new([image, thumbnail])
        except ObjectTaken:  # another picture was reported under this lease
            raise StaleLease(state=JobState.RUNNING.value, epoch=report.epoch) from None
        except (ObjectMissing, ValueError) as error:  # replaced since it was verified
            self._logger.warning("result_rejected", job_id=delivery.job_id, why=str(error))
            return False
        return True

    async def _image(self, delivery: Delivery) -> bytes:
        return await self._store.get(delivery.keys[0], limit_bytes=2 * RESULT_BYTES_MAX)

    async def _block(self, delivery: Delivery, category: str) -> str:
        state = await self.block(delivery.worker, delivery.job_id, delivery.report.epoch, category)
        if state not in (JobState.COMPLETED.value, JobState.SETTLING.value):
            await self._forget(delivery)
        return state

    async def _record(self, delivery: Delivery) -> Receipt:
        job_id, entry = delivery.job_id, delivery.entry
        # What a hold pays needs no row here: its own is only deleted.
        rows: tuple[tuple[SideTable, str], ...] = () if entry.held else rows_of(job_id, entry.account_id)
        if entry.session_id is not None:
            rows = (*rows, (SESSIONS, entry.session_id))
        transaction = Transaction(
            key=CommandKey(f"{job_id}:{delivery.report.epoch}:{delivery.worker.worker_id}:complete"),
            actor=f"worker:{delivery.worker.worker_id}",
            body=["complete", job_id, delivery.report.epoch, delivery.report.sha256],
            streams=(entry.account_id, job_id),
            rows=rows,
            decide=lambda uow: _deliver(uow, delivery),
        )
        try:
            return await report_to(self._log, transaction)
        except NotTheHolder as stale:
            await self._forget(delivery)
            raise stale.refusal from None

    async def _conclude(self, delivery: Delivery, receipt: Receipt) -> str:
        """Settle what is still to be paid, count, and clear up."""
        # Outcomes recorded by earlier versions are the state alone.
        outcome = {"state": receipt.result} if isinstance(receipt.result, str) else receipt.result
        state = str(outcome["state"])
        if state == JobState.SETTLING.value:
            state = await self._settle(delivery)
        if not receipt.replayed:
            self._count(delivery, state, int(outcome["credits"]), int(outcome["paint_milliseconds"]))
        if state not in (JobState.COMPLETED.value, JobState.SETTLING.value):
            await self._forget(delivery)
        await self._store.delete(upload_key(delivery.job_id, delivery.report.epoch))
        return state

    async def _settle(self, delivery: Delivery) -> str:
        funding = await self._queue.funding(delivery.job_id)
        if self._funding_process is None or funding is None:
            return JobState.SETTLING.value
        return await self._funding_process.settle(
            delivery.job_id, delivery.entry.account_id, funding.reference or ""
        )

    async def _forget(self, delivery: Delivery) -> None:
        for key in delivery.keys:
            await self._store.delete(key)

    def _count(self, delivery: Delivery, state: str, earned: int, paint_milliseconds: int) -> None:
        if state != JobState.SETTLING.value:
            self._metrics.ended(state)
        if state == JobState.COMPLETED.value:
            spent = delivery.report.gpu_milliseconds
            self._registry.note_success(delivery.worker.worker_id, spent)
            self._metrics.delivered(
                gpu_milliseconds=spent, paint_milliseconds=paint_milliseconds, earned_credits=earned
            )

    # --- ends without charge ---

    async def block(self, worker: Worker, job_id: JobId, epoch: int, category: str) -> str:
        """Moderation refused the image of this lease. Returns the state."""
        blocked = BlockJob("image", category, Lease(worker.worker_id, epoch))
        return await self._finish(job_id, blocked, reason="blocked", actor=f"worker:{worker.worker_id}")

    async def fail_erased(self, job_id: JobId) -> str:
        """What the job was to be made from was erased. Returns the state."""
        failed = FailJob(Reason.INPUTS_ERASED.value, FailureKind.INPUT)
        return await self._finish(job_id, failed, reason="failed", actor="system:dispatch")

    async def _finish(self, job_id: JobId, command: JobCommand, *, reason: str, actor: str) -> str:
        job: Job = (await self._reader.state(job_id)).state

        def decide(uow: UnitOfWork) -> dict[str, Any]:
            events = record_report(uow, situation(uow, job_id), command)
            return {"state": state_of(uow, job_id), "ended": bool(events)}

        transaction = Transaction(
            key=CommandKey(f"{job_id}:{job.epoch}:finish"),
            actor=actor,
            body=["finish", job_id, reason],
            streams=(job.account_id, job_id),
            rows=rows_of(job_id, job.account_id),
            decide=decide,
        )
        try:
            receipt = await report_to(self._log, transaction)
        except NotTheHolder as stale:
            raise stale.refusal from None
        state = str(receipt.result["state"])
        if receipt.result["ended"] and not receipt.replayed:
            self._metrics.ended(state)
        return state


def _deliver(uow: UnitOfWork, delivery: Delivery) -> dict[str, Any]:
    """Decide on a verified image, and do what is this path's own: result, session, payment."""
    at = _situation(uow, delivery)
    events = record_report(uow, at, delivery.command())
    row = delivery.row(uow.now)
    shown = [event for event in events if isinstance(event, JobCompleted | JobSettling)]
    if shown and at.session is not None and at.job.live:
        session = delivered(at.session, at.job_id, at.job.seq or 0, uow.now)
        uow.put(SESSIONS, session.to_row())
    if shown and isinstance(shown[0], JobCompleted):
        uow.put(RESULTS, {**row, "completed_at": uow.now})
    elif shown and at.funding is not None:
        facts = {"event": msgspec.to_builtins(delivery.event(at.job.price_credits)), "row": row}
        due = uow.now + timedelta(seconds=RETRY_SECONDS[FundingStep.SETTLING])
        uow.put(FUNDING, at.funding.step(FundingStep.SETTLING, due, result=facts).to_row())
    return {
        "state": state_of(uow, at.job_id),
        "credits": at.job.price_credits,
        "paint_milliseconds": row["paint_milliseconds"],
    }


def _situation(uow: UnitOfWork, delivery: Delivery) -> Situation:
    entry = delivery.entry
    if not entry.held:
        return situation(uow, entry.job_id, session_key=entry.session_id)
    job: Job = uow.state(entry.job_id)
    return Situation(
        job_id=entry.job_id,
        job=job,
        entry=entry,
        session=session_of(uow, entry.session_id),
        hold_open=hold_is_open(uow, job),
    )


def _milliseconds(start: datetime, end: datetime) -> int:
    return max(0, (end - start) // timedelta(milliseconds=1))
