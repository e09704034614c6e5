"""Asking for images: price, hold, queue, cancel, and where a job stands."""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime, timedelta
from typing import Any

import structlog

from generation import quotas
from generation.ending import end_without_charge, rows_of
from generation.errors import (
    AllowanceSharedOut,
    JobAlreadyEnded,
    JobNotFound,
    NoWorkerCanServe,
    QueueFull,
    TooManyInFlight,
)
from generation.estimating import Estimate, estimate
from generation.funding import FundingKeeper, FundingOrder, FundingUnavailable, Opened, funding_row
from generation.job import Job, JobState, require_open
from generation.job_events import JobBlocked, JobCancelled, JobRequested
from generation.live import LiveSessions, SessionMoved, TakenOver, enter, session_key
from generation.metrics import Metrics
from generation.moderation import Moderation
from generation.queue import SLOT, VARIATION_SLOTS, JobQueue, Standing, Turn, turn_of
from generation.quotas import NetworkQuota
from generation.returning import Returns
from generation.signals import Signals
from generation.storage import ObjectStore
from generation.tables import FUNDING, INPUTS, QUEUE, SESSIONS, SHARES
from generation.wishes import Accepted, Limits, Wish, price_of
from ledger.clock import Clock
from ledger.domain.commands import HoldCredits
from ledger.domain.drafts import hold_in
from ledger.domain.refusals import InsufficientCredits
from ledger.errors import Refusal
from ledger.identifiers import AccountId, CommandKey, JobId
from ledger.log.model import Draft, LogWriter, Transaction
from ledger.log.reader import LogReader

__all__ = [
    "SKETCH_GRAPH",
    "Accepted",
    "Generations",
    "Limits",
    "NetworkQuota",
    "Wish",
    "price_of",
]

SKETCH_GRAPH = "sketch@1"


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
        keeper: FundingKeeper | None = None,
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
        self._limits = limits or Limits()
        self._keeper = keeper
        self._metrics = metrics or Metrics()
        self.returns = Returns(log=log, engine=queue.engine)
        self.sessions = LiveSessions(
            log=log, queue=queue, returns=self.returns, limits=self._limits, metrics=self._metrics
        )
        self._logger = structlog.get_logger("generation.service")

    async def request(self, wish: Wish) -> Accepted:
        """Hold the price, and queue the job, in one transaction.

        Raises the ledger's refusals (`InsufficientCredits`, `AccountInDebt`) and those of
        `generation.errors`. Repeating the same wish gives the first answer.
        """
        verdict = await self._moderation.check_prompt(wish.prompt)
        price = price_of(wish.sketch.width, wish.sketch.height)
        if not verdict.allowed:
            return await self._block(wish, price, verdict.category)
        await self._store.put(_sketch_key(wish), wish.sketch.data, "image/png")
        try:
            return await self._queued(wish, price)
        except Refusal:
            # Nobody will ever paint it: who cannot pay must not fill our store either.
            await self._store.delete(_sketch_key(wish))
            raise

    async def _queued(self, wish: Wish, price: int) -> Accepted:
        for _ in range(5):
            standing = await self._queue.standing(wish.account_id, SKETCH_GRAPH, self._clock())
            replaced = await self._waiting_frame(wish)
            try:
                receipt = await self._log.submit(self._request_transaction(wish, price, standing, replaced))
            except SessionMoved:
                continue
            if "superseded" in receipt.result and not receipt.replayed:
                self._metrics.ended(JobState.SUPERSEDED.value)
            state = receipt.result["state"]
            if state == JobState.AWAITING_PAYMENT.value:
                return Accepted(wish.job_id, state, price, await self._open_payment(wish, price))
            await self._signals.work_arrived()
            return Accepted(wish.job_id, state, price)
        raise QueueFull()

    async def _open_payment(self, wish: Wish, price: int) -> Opened | None:
        """How to pay; None if that is not known yet. The keeper goes on asking."""
        if self._keeper is None:
            return None
        try:
            return await self._keeper.open(_order(wish, price))
        except FundingUnavailable as error:
            self._logger.warning("way_to_pay_delayed", job_id=wish.job_id, error=str(error))
            return None

    async def _waiting_frame(self, wish: Wish) -> str | None:
        if not wish.live or wish.session_id is None:
            return None
        session = await self._queue.session(session_key(wish.account_id, wish.session_id))
        return None if session is None else session.waiting_job

    def _request_transaction(
        self, wish: Wish, price: int, standing: Standing, replaced: str | None
    ) -> Transaction:
        streams: list[str] = [wish.account_id, wish.job_id]
        rows = [(SHARES, str(wish.account_id)), *quotas.rows(wish.networks)]
        if wish.session_id is not None:
            rows.append((SESSIONS, session_key(wish.account_id, wish.session_id)))
        if replaced is not None:
            streams.append(replaced)
            rows.extend(rows_of(replaced))

        def decide(draft: Draft) -> dict[str, str]:
            known: Job = draft.state(wish.job_id)
            if known.state is not JobState.UNKNOWN:  # asked for under another key: never a second time
                return {"state": known.state.value}
            self._check_bounds(draft, wish, standing)
            deadline = draft.now + timedelta(seconds=self._limits.job_seconds)
            if wish.funding is None:
                funded = self._fund(draft, wish, price, deadline, replaced, standing)
            else:
                funded = TakenOver(Turn(0, 0), 0, [])
                draft.put(FUNDING, funding_row(_order(wish, price), draft.now))
            requested = self._requested(wish, price, deadline)
            draft.append(wish.job_id, [requested])
            state: JobState = draft.state(wish.job_id).state
            draft.put(QUEUE, _queue_row(wish, draft.now, deadline, funded, state))
            draft.put(INPUTS, _inputs_row(wish, draft.now))
            answer = {"state": state.value}
            return {**answer, "superseded": replaced or ""} if funded.superseded else answer

        return Transaction(
            key=wish.key,
            actor=wish.account_id,
            body=["request_generation", wish.job_id, self._digest(wish)],
            streams=streams,
            rows=rows,
            decide=decide,
            suspected=wish.repeated,
        )

    def _check_bounds(self, draft: Draft, wish: Wish, standing: Standing) -> None:
        if not standing.servable:
            raise NoWorkerCanServe(graph=SKETCH_GRAPH)
        if standing.queued >= self._limits.queue_max:
            raise QueueFull()
        # Counted twice: by rows, which include unpaid jobs, and by holds, which no race can get past.
        held = sum(len(bucket) for bucket in draft.state(wish.account_id).holds)
        if max(standing.in_flight, held) >= wish.tier.in_flight_max:
            raise TooManyInFlight(limit=wish.tier.in_flight_max)

    def _fund(
        self,
        draft: Draft,
        wish: Wish,
        price: int,
        deadline: datetime,
        replaced: str | None,
        standing: Standing,
    ) -> TakenOver:
        """Hold the price, or take over the hold of the frame that is replaced and its rank."""
        if _in_session(wish):
            taken = enter(draft, wish, price, deadline=deadline, replaced=replaced, limits=self._limits)
            if taken is not None:
                return taken
        shared_out = quotas.exhausted(draft, wish.networks, price)
        command = HoldCredits(
            hold_id=wish.hold_id,
            job_id=wish.job_id,
            credits=price,
            deadline=deadline,
            allowance=shared_out is None,
        )
        try:
            held = hold_in(draft, wish.account_id, command)
        except InsufficientCredits:
            if shared_out is None:
                raise
            raise AllowanceSharedOut(cap=shared_out) from None
        counted = quotas.count(draft, wish.networks, held.allowance_credits)
        turn = _take_turn(draft, wish, price, standing)
        return TakenOver(turn, held.allowance_credits if counted else 0, counted)

    def _requested(self, wish: Wish, price: int, deadline: datetime) -> JobRequested:
        return JobRequested(
            account_id=wish.account_id,
            hold_id=wish.hold_id if wish.funding is None else None,
            price_credits=price,
            graph=SKETCH_GRAPH,
            deadline=deadline,
            input_digest=self._digest(wish),
            live=wish.live,
            session_id=wish.session_id,
            seq=wish.seq,
        )

    async def _block(self, wish: Wish, price: int, category: str) -> Accepted:
        """Record a prompt that the check refused: its own end, with nothing held."""

        def decide(draft: Draft) -> dict[str, str]:
            requested = JobRequested(
                account_id=wish.account_id,
                price_credits=price,
                graph=SKETCH_GRAPH,
                deadline=draft.now,
                input_digest=self._digest(wish),
            )
            draft.append(wish.job_id, [requested, JobBlocked(stage="prompt", category=category)])
            return {"state": JobState.BLOCKED.value}

        receipt = await self._log.submit(
            Transaction(
                key=wish.key,
                actor=wish.account_id,
                body=["request_generation", wish.job_id, self._digest(wish)],
                streams=(wish.job_id,),
                decide=decide,
            )
        )
        if not receipt.replayed:
            self._metrics.ended(JobState.BLOCKED.value)
        return Accepted(wish.job_id, receipt.result["state"], price)

    def _digest(self, wish: Wish) -> str:
        parts = (wish.prompt, wish.sketch.sha256, str(wish.seed), str(wish.strength_permille))
        message = "\x00".join(parts).encode()
        return hmac.new(self._digest_secret, message, hashlib.sha256).hexdigest()[:32]

    async def job(self, account_id: AccountId, job_id: JobId) -> Job:
        """A job of this account. Raises `JobNotFound` for anybody else's."""
        job: Job = (await self._reader.state(job_id)).state
        if job.state is JobState.UNKNOWN or job.account_id != account_id:
            raise JobNotFound()
        return job

    async def cancel(self, account_id: AccountId, job_id: JobId) -> Job:
        """Stop a job. Queued: released at once. Running: the worker is told, and a verified
        upload that is faster wins. Cancelling again is fine; an ended job is `JobAlreadyEnded`.
        """
        job = await self.job(account_id, job_id)
        if job.state is JobState.CANCELLED:
            return job
        if job.state.final:
            raise JobAlreadyEnded(state=job.state.value)
        if job.state in _PAST_CANCELLING:
            await self._queue.ask_cancel(job_id)
            return job

        def decide(draft: Draft) -> None:
            state: Job = draft.state(job_id)
            require_open(state)
            if state.state in _PAST_CANCELLING:
                raise SessionMoved
            end_without_charge(draft, job_id, JobCancelled(by="person"), reason="cancelled")

        transaction = Transaction(
            key=CommandKey(f"{job_id}:cancel"),
            actor=account_id,
            body=["cancel", job_id],
            streams=(account_id, job_id),
            rows=rows_of(job_id),
            decide=decide,
        )
        try:
            receipt = await self._log.submit(transaction)
        except SessionMoved:
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

    async def image_url(self, account_id: AccountId, job_id: JobId, *, thumbnail: bool = False) -> str | None:
        """A link to the image that expires in an hour, None if there is none."""
        await self.job(account_id, job_id)
        result = await self._queue.result(job_id)
        if result is None:
            return None
        key = result.thumbnail_key if thumbnail else result.image_key
        return await self._store.download_url(key, expires_in=timedelta(hours=1))


_PAST_CANCELLING = (JobState.RUNNING, JobState.SETTLING)


def _take_turn(draft: Draft, wish: Wish, price: int, standing: Standing) -> Turn:
    share = draft.get(SHARES, wish.account_id)
    turn, finish = turn_of(standing.virtual_time, share["finish"] if share else 0, price, wish.tier)
    draft.put(SHARES, {"account_id": wish.account_id, "finish": finish})
    later = VARIATION_SLOTS * SLOT if wish.variation else 0
    return Turn(turn.rank + later, turn.tag + later)


def _order(wish: Wish, price: int) -> FundingOrder:
    return FundingOrder(
        job_id=wish.job_id, account_id=wish.account_id, method=wish.funding or "", price_credits=price
    )


def _in_session(wish: Wish) -> bool:
    return wish.session_id is not None and (wish.live or wish.variation)


def _queue_row(
    wish: Wish, now: datetime, deadline: datetime, funded: TakenOver, state: JobState
) -> dict[str, Any]:
    return {
        "job_id": wish.job_id,
        "account_id": wish.account_id,
        "session_id": session_key(wish.account_id, wish.session_id) if _in_session(wish) else None,
        "graph": SKETCH_GRAPH,
        "state": state.value,
        "rank": funded.turn.rank,
        "tag": funded.turn.tag,
        "weight": wish.tier.weight,
        "held": wish.funding is None,
        "free_credits": funded.free_credits,
        "networks": funded.networks or None,
        "requested_at": now,
        "deadline": deadline,
        "refused_workers": [],
    }


def _inputs_row(wish: Wish, now: datetime) -> dict[str, Any]:
    return {
        "job_id": wish.job_id,
        "account_id": wish.account_id,
        "prompt": wish.prompt,
        "seed": wish.seed,
        "strength": wish.strength_permille,
        "width": wish.sketch.width,
        "height": wish.sketch.height,
        "sketch_key": _sketch_key(wish),
        "sketch_sha256": wish.sketch.sha256,
        "requested_at": now,
    }


def _sketch_key(wish: Wish) -> str:
    """By the command and not by the job: a refused attempt must not delete what a later one needs."""
    return f"sketches/{wish.key.replace(':', '-')}.png"
