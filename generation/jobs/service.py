"""Asking for images: request, cancel, and where a job stands."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import structlog

from generation.domain.commands import BlockJob, CancelJob, RequestJob
from generation.domain.deciding import Situation
from generation.domain.deciding import decide as decide_job
from generation.domain.errors import AllowanceSharedOut, AskTheWorker, JobNotFound, QueueFull
from generation.domain.funding import FundingOrder, FundingUnavailable, Opened
from generation.domain.job import Job
from generation.domain.quotas import AnotherDay
from generation.domain.requests import Accepted, GenerationRequest, Limits
from generation.domain.sessions import RACES_MAX, SessionMoved
from generation.domain.states import JobState
from generation.images.moderation import Moderation
from generation.images.object_store import ObjectStore
from generation.jobs import admission
from generation.jobs.admission import Asked, sketch_key
from generation.jobs.foreseeing import Foresight, RequestOutline
from generation.jobs.frames import FrameTurns
from generation.jobs.funding import FundingProcess
from generation.jobs.live import LiveSessions
from generation.jobs.metrics import Metrics
from generation.jobs.recording import record, rows_of, situation, state_of
from generation.jobs.usage_reversal import UsageReversals
from generation.queueing.estimating import Estimate, estimate
from generation.queueing.queue import JobQueue, WaitingFrame
from generation.queueing.signals import Signals
from ledger.clock import Clock
from ledger.errors import Refusal
from ledger.identifiers import AccountId, CommandKey, JobId
from ledger.log.model import LogWriter, Receipt, Transaction, UnitOfWork
from ledger.log.reader import LogReader
from ledger.ownership import Ownership


class Generations:
    """What artists and API clients can ask of the generation side."""

    def __init__(
        self,
        *,
        log: LogWriter,
        reader: LogReader,
        queue: JobQueue,
        store: ObjectStore,
        signals: Signals,
        moderation: Moderation,
        clock: Clock,
        digest_secret: bytes,
        limits: Limits | None = None,
        funding_process: FundingProcess | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._log = log
        self._reader = reader
        self._queue = queue
        self._store = store
        self._signals = signals
        self._moderation = moderation
        self._clock = clock
        self._digest_secret = digest_secret
        self._ownership = Ownership(queue.engine)
        self._limits = limits or Limits()
        self._funding_process = funding_process
        self._metrics = metrics or Metrics()
        self._foresight = Foresight(log=log, reader=reader, queue=queue, limits=self._limits)
        self.returns = UsageReversals(log=log, engine=queue.engine, clock=clock)
        self.frames = FrameTurns()
        self.sessions = LiveSessions(
            log=log,
            queue=queue,
            returns=self.returns,
            limits=self._limits.of_session,
            metrics=self._metrics,
        )
        self._logger = structlog.get_logger("generation.jobs.service")

    async def foresee(self, outline: RequestOutline) -> None:
        """Refuse now what `request` would refuse, before anything is spent on it. Raises as `request` does."""
        await self._foresight.look(outline, self._clock())

    async def request(self, request: GenerationRequest) -> Accepted:
        """Hold the price, and queue the job, in one transaction.

        Raises the ledger's refusals (`InsufficientCredits`, `AccountInDebt`) and those of
        `generation.domain.errors`; of them nothing is recorded. Repeating a request that was accepted gives
        the first answer.
        """
        verdict = await self._moderation.check_prompt(request.prompt)
        if not verdict.allowed:
            return await self._block(request, verdict.category)
        await self._store.put(sketch_key(request), request.sketch.data, "image/png")
        try:
            receipt, rank = await self._admit(request)
            accepted = await self.accepted(receipt.result, request.order())
        except SessionMoved:
            # Nothing is decided: another process may accept the same request, and its job needs the sketch.
            raise QueueFull from None
        except Refusal as refusal:
            # Nobody will ever make it: who cannot pay must not fill our store either.
            await self._store.delete(sketch_key(request))
            if isinstance(refusal, AllowanceSharedOut):
                self._foresight.shared_out(request.networks(self._clock()))
            raise
        if accepted.job_id != request.job_id:
            # The same request was sent twice at once, and the other one came first.
            await self._store.delete(sketch_key(request))
        if accepted.state == JobState.QUEUED.value:
            await self._signals.work_arrived()
        return accepted._replace(rank=rank)

    async def accepted(self, outcome: Mapping[str, Any], order: FundingOrder) -> Accepted:
        """The answer to a request, from what the log has recorded of it; also when it is sent again."""
        order = replace(order, job_id=JobId(outcome.get("job_id", order.job_id)))
        unpaid = outcome["state"] == JobState.AWAITING_PAYMENT.value
        opened = await self._open_payment(order) if unpaid else None
        return Accepted(order.job_id, str(outcome["state"]), order.price_credits, opened)

    async def _admit(self, request: GenerationRequest) -> tuple[Receipt, int | None]:
        """What is recorded of it, and its rank if it is in line by this. Decided again if the frame that it would
        replace has changed meanwhile, or the day.

        Raises `SessionMoved` if that has changed each time.
        """
        day = self._clock()
        for _ in range(RACES_MAX):
            asked = Asked(
                request=request,
                digest=self._digest(request),
                networks=request.networks(day),
                replaced=await self._waiting_frame(request),
                summary=await self._queue.watch.line(request.graph, day, queue_max=self._limits.queue_max),
            )
            try:
                receipt = await self._log.submit(admission.transaction(asked, self._limits))
            except SessionMoved:
                continue
            except AnotherDay as another:
                day = another.now
                continue
            if receipt.replayed:
                return receipt, None
            if "superseded" in receipt.result:
                self._metrics.ended(JobState.SUPERSEDED.value)
                self._queue.watch.changed()
            elif asked.rank is not None:
                self._queue.watch.entered(asked.rank, receipt.position)
            return receipt, asked.rank
        raise SessionMoved

    async def _waiting_frame(self, request: GenerationRequest) -> WaitingFrame | None:
        if not request.live or request.session_key is None:
            return None
        return await self._queue.waiting_frame(request.session_key)

    async def _open_payment(self, order: FundingOrder) -> Opened | None:
        """How to pay; None if that is not known yet. The sweep goes on asking."""
        if self._funding_process is None:
            return None
        try:
            return await self._funding_process.open(order)
        except FundingUnavailable as error:
            self._logger.warning("payment_request_delayed", job_id=order.job_id, error=str(error))
            return None

    async def _block(self, request: GenerationRequest, category: str) -> Accepted:
        """Record a prompt that the check refused: its own end, with nothing held."""
        digest = self._digest(request)

        def decide(uow: UnitOfWork) -> dict[str, str]:
            if uow.state(request.job_id).state is not JobState.UNKNOWN:
                return {"job_id": request.job_id, "state": state_of(uow, request.job_id)}
            asked = RequestJob(
                account_id=request.account_id,
                hold_id=None,
                price_credits=request.price,
                graph=request.graph,
                deadline=uow.now,
                input_digest=digest,
            )
            for command in (asked, BlockJob("prompt", category)):
                record(uow, Situation(job_id=request.job_id, job=uow.state(request.job_id)), command)
            return {"job_id": request.job_id, "state": state_of(uow, request.job_id)}

        receipt = await self._log.submit(
            Transaction(
                key=request.key,
                actor=request.account_id,
                body=admission.body(request, digest),
                streams=(request.job_id,),
                decide=decide,
            )
        )
        if not receipt.replayed:
            self._metrics.ended(JobState.BLOCKED.value)
        return await self.accepted(receipt.result, request.order())

    def _digest(self, request: GenerationRequest) -> str:
        parts = (request.prompt, request.sketch.sha256, str(request.seed), str(request.strength_permille))
        message = "\x00".join(parts).encode()
        return hmac.new(self._digest_secret, message, hashlib.sha256).hexdigest()[:32]

    async def job(self, account_id: AccountId, job_id: JobId, *, including: int | None = None) -> Job:
        """A job of this account, or of a guest merged into it. Raises `JobNotFound` for anybody else's.
        `including` as for `Ledger.account`.
        """
        job: Job | None = None if including is None else self._log.seen(job_id, including)
        if job is None:
            job = (await self._reader.state(job_id)).state
        assert job is not None
        if job.state is JobState.UNKNOWN or not await self._ownership.owns(account_id, job.account_id):
            raise JobNotFound()
        return job

    async def in_flight(self, account_id: AccountId) -> Sequence[tuple[JobId, Job]]:
        """The newest jobs that have not ended, of this account and of guests merged into it; without those of live
        sessions."""
        accounts = await self._ownership.accounts_of(account_id)
        jobs = await self._queue.unfinished(accounts)
        return [(job_id, await self.job(account_id, job_id)) for job_id in jobs]

    async def payment_of(self, job_id: JobId, job: Job) -> str | None:
        """The payment made for this job alone; None if there is none, or none is known (any more)."""
        if job.payment_id is not None or job.hold_id is not None:
            return job.payment_id
        entry = await self._queue.funding(job_id)
        return None if entry is None else entry.reference

    async def cancel(self, account_id: AccountId, job_id: JobId) -> Job:
        """Stop a job. Queued: released at once. Running: the worker is told, and a verified
        upload that is faster wins. Cancelling again is fine; an ended job is `JobAlreadyEnded`.
        """
        job = await self.job(account_id, job_id)
        if job.state is JobState.CANCELLED:
            return job
        try:  # without the lock first: of what has ended, or runs, nothing has to be recorded
            decide_job(Situation(job_id=job_id, job=job), CancelJob(), self._clock())
        except AskTheWorker:
            await self._queue.ask_cancel(job_id)
            return job

        def decide(uow: UnitOfWork) -> None:
            record(uow, situation(uow, job_id), CancelJob())

        transaction = Transaction(
            key=CommandKey(f"{job_id}:cancel"),
            actor=account_id,
            body=["cancel", job_id],
            streams=(job.account_id, job_id),  # a guest's hold stays the guest's; what it frees follows
            rows=rows_of(job_id, job.account_id),
            decide=decide,
        )
        try:
            receipt = await self._log.submit(transaction)
        except AskTheWorker:
            await self._queue.ask_cancel(job_id)
        else:
            if not receipt.replayed:
                self._metrics.ended(JobState.CANCELLED.value)
        return await self.job(account_id, job_id)

    async def estimate_accepted(self, accepted: Accepted, graph: str) -> Estimate | None:
        """As `estimate`, of a request that has just been answered."""
        if accepted.rank is not None:
            known = await self._queue.watch.estimate(graph, accepted.rank, self._clock())
            if known is not None:
                return known
        return await self.estimate(accepted.job_id)

    async def estimate(self, job_id: JobId) -> Estimate | None:
        """Position and an honest range, None if the job does not wait. No range without evidence."""
        place_and_recent = await self._queue.place_and_recent(job_id, self._clock())
        return None if place_and_recent is None else estimate(*place_and_recent)

    async def seed(self, job_id: JobId) -> int | None:
        """The seed that a job is painted with; None if its inputs were erased, or never kept."""
        return await self._queue.seed(job_id)

    async def image_url(self, account_id: AccountId, job_id: JobId, *, thumbnail: bool = False) -> str | None:
        """A link to the image that expires in an hour, None if there is none."""
        await self.job(account_id, job_id)
        result = await self._queue.result(job_id)
        if result is None:
            return None
        key = result.thumbnail_key if thumbnail else result.image_key
        return await self._store.download_url(key, expires_in=timedelta(hours=1), public=True)
