"""Asking for images: request, cancel, and where a job stands."""

from __future__ import annotations

import hashlib
import hmac
from datetime import timedelta

import structlog

from generation.domain.commands import BlockJob, CancelJob, RequestJob
from generation.domain.deciding import Situation
from generation.domain.deciding import decide as decide_job
from generation.domain.errors import AskTheWorker, JobNotFound, QueueFull
from generation.domain.funding import FundingUnavailable, Opened
from generation.domain.job import Job
from generation.domain.quotas import AnotherDay
from generation.domain.requests import Accepted, GenerationRequest, Limits
from generation.domain.sessions import SessionMoved
from generation.domain.states import JobState
from generation.images.moderation import Moderation
from generation.images.object_store import ObjectStore
from generation.jobs import admission
from generation.jobs.admission import Asked, sketch_key
from generation.jobs.foreseeing import RequestOutline, foresee
from generation.jobs.funding import FundingProcess
from generation.jobs.live import LiveSessions
from generation.jobs.metrics import Metrics
from generation.jobs.recording import record, rows_of, situation, state_of
from generation.jobs.usage_reversal import UsageReversals
from generation.queueing.estimating import Estimate, estimate
from generation.queueing.queue import JobQueue
from generation.queueing.signals import Signals
from ledger.clock import Clock
from ledger.errors import Refusal
from ledger.identifiers import AccountId, CommandKey, JobId
from ledger.log.model import LogWriter, Transaction, UnitOfWork
from ledger.log.reader import LogReader
from ledger.ownership import Ownership

RACES_MAX = 5
"""How often a request is decided again because its live session changed meanwhile, or the day ended."""


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
        self.returns = UsageReversals(log=log, engine=queue.engine, clock=clock)
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
        await foresee(self._queue, outline, self._clock(), self._limits)

    async def request(self, request: GenerationRequest) -> Accepted:
        """Hold the price, and queue the job, in one transaction.

        Raises the ledger's refusals (`InsufficientCredits`, `AccountInDebt`) and those of
        `generation.domain.errors`. Repeating the same request gives the first answer.
        """
        verdict = await self._moderation.check_prompt(request.prompt)
        if not verdict.allowed:
            return await self._block(request, verdict.category)
        await self._store.put(sketch_key(request), request.sketch.data, "image/png")
        try:
            state = await self._admit(request)
            unpaid = state == JobState.AWAITING_PAYMENT.value
            opened = await self._open_payment(request) if unpaid else None
        except SessionMoved:
            # Nothing is recorded: another process may accept the same request, and its job needs the sketch.
            raise QueueFull from None
        except Refusal:
            # Nobody will ever make it, as is recorded: who cannot pay must not fill our store either.
            await self._store.delete(sketch_key(request))
            raise
        if not unpaid:
            await self._signals.work_arrived()
        return Accepted(request.job_id, state, request.price, opened)

    async def _admit(self, request: GenerationRequest) -> str:
        """The new job's state. Decided again if the frame that it would replace has changed meanwhile, or the day.

        Raises `SessionMoved` if that has changed each time.
        """
        day = self._clock()
        for _ in range(RACES_MAX):
            asked = Asked(
                request,
                self._digest(request),
                await self._queue.summary(request.account_id, request.graph, self._clock()),
                await self._waiting_frame(request),
                request.networks(day),
            )
            try:
                receipt = await self._log.submit(self._transaction(asked))
            except SessionMoved:
                continue
            except AnotherDay as another:
                day = another.now
                continue
            if "superseded" in receipt.result and not receipt.replayed:
                self._metrics.ended(JobState.SUPERSEDED.value)
            return str(receipt.result["state"])
        raise SessionMoved

    async def _waiting_frame(self, request: GenerationRequest) -> JobId | None:
        if not request.live or request.session_key is None:
            return None
        session = await self._queue.session(request.session_key)
        return None if session is None or session.waiting_job is None else JobId(session.waiting_job)

    def _transaction(self, asked: Asked) -> Transaction:
        request = asked.request
        return Transaction(
            key=request.key,
            actor=request.account_id,
            body=["request_generation", request.job_id, asked.digest],
            streams=admission.streams(asked),
            rows=admission.rows(asked),
            decide=lambda uow: admission.admit(uow, asked, self._limits),
            suspected=request.repeated,
        )

    async def _open_payment(self, request: GenerationRequest) -> Opened | None:
        """How to pay; None if that is not known yet. The sweep goes on asking."""
        if self._funding_process is None:
            return None
        try:
            return await self._funding_process.open(request.order())
        except FundingUnavailable as error:
            self._logger.warning("payment_request_delayed", job_id=request.job_id, error=str(error))
            return None

    async def _block(self, request: GenerationRequest, category: str) -> Accepted:
        """Record a prompt that the check refused: its own end, with nothing held."""
        digest = self._digest(request)

        def decide(uow: UnitOfWork) -> dict[str, str]:
            if uow.state(request.job_id).state is not JobState.UNKNOWN:
                return {"state": state_of(uow, request.job_id)}
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
            return {"state": state_of(uow, request.job_id)}

        receipt = await self._log.submit(
            Transaction(
                key=request.key,
                actor=request.account_id,
                body=["request_generation", request.job_id, digest],
                streams=(request.job_id,),
                decide=decide,
            )
        )
        if not receipt.replayed:
            self._metrics.ended(JobState.BLOCKED.value)
        return Accepted(request.job_id, receipt.result["state"], request.price)

    def _digest(self, request: GenerationRequest) -> str:
        parts = (request.prompt, request.sketch.sha256, str(request.seed), str(request.strength_permille))
        message = "\x00".join(parts).encode()
        return hmac.new(self._digest_secret, message, hashlib.sha256).hexdigest()[:32]

    async def job(self, account_id: AccountId, job_id: JobId) -> Job:
        """A job of this account, or of a guest merged into it. Raises `JobNotFound` for anybody else's."""
        job: Job = (await self._reader.state(job_id)).state
        if job.state is JobState.UNKNOWN or not await self._ownership.owns(account_id, job.account_id):
            raise JobNotFound()
        return job

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

    async def estimate(self, job_id: JobId) -> Estimate | None:
        """Position and an honest range, None if the job does not wait. No range without evidence."""
        place = await self._queue.place(job_id, self._clock())
        if place is None:
            return None
        return estimate(place, await self._queue.recent_milliseconds())

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
