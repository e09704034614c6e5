"""Jobs that are paid by a payment made for them alone: each moved along with its payment.

What has to be done outside is written down in `job_funding` first, and a sweeper does it until it is done. The
gateway wires the port (`generation.domain.funding`) to whatever takes money.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
import structlog
from msgspec.structs import replace

from generation.domain.commands import ConcludeSettlement, FailJob, FailSettlement, FailureKind, FundJob
from generation.domain.deciding import Situation
from generation.domain.fairness import PAID
from generation.domain.funding import (
    Funding,
    FundingOrder,
    FundingState,
    FundingUnavailable,
    Opened,
    Within,
)
from generation.domain.reasons import Reason
from generation.domain.requests import Limits
from generation.domain.rows import FundingEntry, FundingStep
from generation.domain.states import JobState
from generation.jobs import paying_apart
from generation.jobs.admission import take_turn
from generation.jobs.metrics import Metrics
from generation.jobs.recording import hold_id_of, record, rows_of, situation, state_of
from generation.queueing.queue import JobQueue
from generation.queueing.signals import Signals
from generation.queueing.watch import QueueSummary
from generation.store.tables import FUNDING, QUEUE, RESULTS, SHARES, job_funding
from ledger.clock import Clock
from ledger.domain.applying import hold_in
from ledger.domain.commands import HoldCredits
from ledger.errors import Refusal
from ledger.followups.backoff import Backoff
from ledger.followups.rows import FollowUps
from ledger.followups.sweeper import Sweeper, SweepRules
from ledger.identifiers import AccountId, Identifiers, JobId
from ledger.log.model import LogWriter, SideTable, Transaction, UnitOfWork
from ledger.ownership import Ownership

FUNDINGS = FollowUps(
    kind="job_funding", table=job_funding, waiting=job_funding.c.state != FundingStep.HELD.value
)
RULES = SweepRules(at_once=100, backoff=Backoff(first_milliseconds=2_000, longest_milliseconds=60_000))
"""A promise to pay lasts for minutes: whatever fails is tried again at least once in each."""
RETRY_SECONDS = {
    FundingStep.OPENING: 2,
    FundingStep.WAITING: 1,
    FundingStep.SETTLING: 3,
    FundingStep.RELEASING: 5,
}
"""Seconds until something that went well is asked about again. Of a held payment nothing is asked."""
SETTLING_HOLD = timedelta(minutes=5)
MERGES_MAX = 32
"""Merges that are followed from the account that asked to whoever pays; more are a fault."""


class PayerMerged(Exception):
    """The account that was to pay was merged meanwhile. Nothing is recorded: it is decided again for `into`."""

    def __init__(self, into: str) -> None:
        super().__init__(into)
        self.into = AccountId(into)


class FundingProcess:
    """Moves jobs along with their payments."""

    def __init__(
        self,
        *,
        funding: Funding,
        log: LogWriter,
        queue: JobQueue,
        signals: Signals,
        clock: Clock,
        identifiers: Identifiers,
        metrics: Metrics | None = None,
        randomness: random.Random | None = None,
        job_seconds: int = Limits().job_seconds,
    ) -> None:
        self.sweeper = Sweeper(
            FUNDINGS,
            self._tend,
            engine=queue.engine,
            clock=clock,
            randomness=randomness or random.SystemRandom(),
            rules=RULES,
        )
        self._funding = funding
        self._log = log
        self._queue = queue
        self._ownership = Ownership(queue.engine)
        self._signals = signals
        self._clock = clock
        self._ids = identifiers
        self._metrics = metrics or Metrics()
        self._job_seconds = job_seconds
        self._settling_now: set[str] = set()
        self._logger = structlog.get_logger("generation.jobs.funding")

    async def open(self, order: FundingOrder) -> Opened:
        """Ask for a payment request and remember it.

        Raises `FundingUnavailable`, and the sweep tries again; or a refusal, and the job has ended.
        """
        try:
            opened = await self._funding.open(order)
        except Refusal as refusal:
            await self._fail(order.account_id, order.job_id, reason=refusal.code)
            raise

        def decide(uow: UnitOfWork) -> None:
            entry = situation(uow, order.job_id).funding
            if entry is None or entry.state not in (FundingStep.OPENING, FundingStep.RELEASING):
                return
            state = FundingStep.WAITING if entry.state is FundingStep.OPENING else entry.state
            due = uow.now + timedelta(seconds=RETRY_SECONDS[state])
            uow.put(FUNDING, entry.step(state, due, reference=opened.reference).to_row())

        await self._submit(order.account_id, order.job_id, "open", decide)
        return opened

    async def look_at(self, job_id: str) -> None:
        """Its money may have come: the step that the sweep would take a moment later."""
        async with self._queue.engine.connect() as connection:
            wanted = sa.select(job_funding).where(
                job_funding.c.job_id == job_id, job_funding.c.state == FundingStep.WAITING.value
            )
            row = (await connection.execute(wanted)).mappings().one_or_none()
        if row is not None:
            await self._see_whether_paid(FundingEntry.from_row(dict(row)))

    async def _tend(self, row: Mapping[str, Any]) -> datetime:
        """The work of one row; returns when it is due again, unless the step has written or deleted it.

        Raises what went wrong. What nobody can tell about the money (`FundingUnavailable`) is a failure, too.
        """
        entry = FundingEntry.from_row(row)
        await self._take_step(entry)
        return self._clock() + timedelta(seconds=RETRY_SECONDS[entry.state])

    # --- one step for each state; each may be repeated ---

    async def _take_step(self, entry: FundingEntry) -> None:
        match entry.state:
            case FundingStep.OPENING:
                await self._open_again(entry)
            case FundingStep.WAITING:
                await self._see_whether_paid(entry)
            case FundingStep.SETTLING:
                await self._settle_again(entry)
            case FundingStep.RELEASING:
                await self._give_back(entry)
            case FundingStep.HELD:
                return

    async def _open_again(self, entry: FundingEntry) -> None:
        if await self._queue.entry(entry.job_id) is None:
            return
        await self.open(_order(entry))

    async def _see_whether_paid(self, entry: FundingEntry) -> None:
        found = await self._funding.look(entry.reference or "")
        match found.state:
            case FundingState.HELD:
                await self._fund(entry, settled=False, held_until=found.held_until)
            case FundingState.SETTLED:
                await self._fund(entry, settled=True)
            case FundingState.FAILED:
                await self._fail(entry.account_id, entry.job_id, reason=Reason.NOT_PAID.value)
            case _:
                return

    async def _settle_again(self, entry: FundingEntry) -> None:
        if entry.job_id in self._settling_now:
            return  # whoever took the report is at it
        state, ended_here = await self._settle(entry.job_id, entry.account_id, entry.reference or "")
        if state == JobState.SETTLING.value:
            raise FundingUnavailable("nobody knows whether it is settled")
        if not ended_here:
            return
        self._metrics.ended(state)
        if state == JobState.COMPLETED.value and entry.result is not None:
            shown = entry.result["row"]
            self._metrics.delivered(
                gpu_milliseconds=shown["gpu_milliseconds"],
                paint_milliseconds=shown["paint_milliseconds"],
                earned_credits=entry.price_credits,
            )

    async def _give_back(self, entry: FundingEntry) -> None:
        """Money of a job that has ended. Settled before that, it stays as a credit.

        Without a reference a payment may be open all the same: whoever opened it died before noting it, or is
        slow. Its payer may have seen it, so it must be closed; if there is none, none may come after this.
        """
        reference = entry.reference or await self._funding.retract(_order(entry))
        if reference is not None:
            state = await self._funding.release(reference)
            if state not in (FundingState.FAILED, FundingState.SETTLED):
                raise FundingUnavailable("nobody knows whether it went back")

        def decide(uow: UnitOfWork) -> None:
            uow.delete(FUNDING, entry.job_id)

        await self._submit(entry.account_id, entry.job_id, "released", decide)

    # --- what the steps decide ---

    async def _fund(self, entry: FundingEntry, *, settled: bool, held_until: datetime | None = None) -> None:
        """The money is promised, or here: the job takes its place in the queue.

        From now on it has the time of any other job, and never longer than the money is held.
        """
        summary = await self._queue.summary(entry.account_id, "", self._clock())

        def decide(uow: UnitOfWork) -> None:
            at = situation(uow, entry.job_id)
            # A merged guest holds nothing: the credits are with whoever it was merged into, and pay in the end.
            held = settled and not uow.state(entry.account_id).status.merged_into
            hold_id = hold_id_of(entry.job_id) if held else None
            deadline = uow.now + timedelta(seconds=self._job_seconds)
            command = FundJob(
                payment_id=entry.reference or "",
                hold_id=hold_id,
                deadline=deadline if held_until is None else min(deadline, held_until),
            )
            if record(uow, at, command):
                _queue_funded(uow, at, summary, command)

        try:
            await self._submit(entry.account_id, entry.job_id, "fund", decide, (SHARES, entry.account_id))
        except Refusal as refusal:
            # The credits are spent otherwise, or repay a debt: they stay where they are.
            self._logger.warning("funds_not_held", job_id=entry.job_id, refusal=refusal.code)
            await self._fail(entry.account_id, entry.job_id, reason=refusal.code)
            return
        await self._signals.work_arrived()

    async def _fail(self, account_id: AccountId, job_id: JobId, *, reason: str) -> None:
        def decide(uow: UnitOfWork) -> bool:
            at = situation(uow, job_id)
            if at.job.state is not JobState.AWAITING_PAYMENT:
                return False  # another process has found the money, or the job is over
            return bool(record(uow, at, FailJob(reason, FailureKind.PAYMENT)))

        if await self._submit(account_id, job_id, "end", decide):
            self._metrics.ended(JobState.FAILED.value)

    async def settle(self, job_id: JobId, account_id: AccountId, reference: str) -> str:
        """Take the money for a verified image, and show it. Returns the job's state.

        What ends by this the caller counts; what ends by a later attempt is counted here.
        """
        self._settling_now.add(job_id)
        try:
            state, _ = await self._settle(job_id, account_id, reference)
        finally:
            self._settling_now.discard(job_id)
        return state

    async def _settle(self, job_id: JobId, account_id: AccountId, reference: str) -> tuple[str, bool]:
        """(state, whether it ended by this)."""
        payer = await self._ownership.owner_of(account_id)
        for _ in range(MERGES_MAX):
            try:
                return await self._settle_for(job_id, account_id, payer, reference)
            except PayerMerged as merged:
                payer = merged.into
        raise FundingUnavailable("the account was merged too often")

    async def _settle_for(
        self, job_id: JobId, account_id: AccountId, payer: AccountId, reference: str
    ) -> tuple[str, bool]:
        """The same, on the credits of `payer`: the account, or whose it was merged into. May raise `PayerMerged`."""
        ended, here = JobState.COMPLETED.value, False

        def conclude(uow: UnitOfWork, lots: Sequence[str]) -> None:
            nonlocal ended, here
            here = not uow.state(job_id).state.final
            ended = _conclude(uow, job_id, payer, lots)

        # The job's own account, too: whoever pays need not have asked.
        streams = (account_id, job_id) if payer == account_id else (account_id, job_id, payer)
        within = Within(streams=streams, rows=rows_of(job_id, account_id), decide=conclude)
        try:
            state = await self._funding.settle(reference, within)
        except FundingUnavailable:
            state = FundingState.UNKNOWN
        match state:
            case FundingState.SETTLED:
                return ended, here and JobState(ended).final
            case FundingState.FAILED:
                return JobState.FAILED.value, await self._payment_failed(job_id, account_id)
            case _:
                return JobState.SETTLING.value, False

    async def _payment_failed(self, job_id: JobId, account_id: AccountId) -> bool:
        def decide(uow: UnitOfWork) -> bool:
            return bool(record(uow, situation(uow, job_id), FailSettlement()))

        return bool(await self._submit(account_id, job_id, Reason.PAYMENT_FAILED.value, decide))

    async def _submit(
        self,
        account_id: AccountId,
        job_id: JobId,
        what: str,
        decide: Callable[[UnitOfWork], object],
        *more: tuple[SideTable, str],
    ) -> object:
        receipt = await self._log.submit(
            Transaction(
                key=self._ids.command(),
                actor="system:funding",
                body=[what, job_id],
                streams=(account_id, job_id),
                rows=(*rows_of(job_id, account_id), *more),
                decide=decide,
            )
        )
        return receipt.result


def _order(entry: FundingEntry) -> FundingOrder:
    return FundingOrder(
        job_id=entry.job_id,
        account_id=entry.account_id,
        method=entry.method,
        price_credits=entry.price_credits,
    )


def _queue_funded(uow: UnitOfWork, at: Situation, summary: QueueSummary, command: FundJob) -> None:
    """A place in the line. Money that is here is held as credits; money that is promised, or with somebody whom the
    guest has become, stays where it is."""
    assert at.entry is not None
    assert at.funding is not None
    price, account_id = at.job.price_credits, at.entry.account_id
    if command.hold_id is not None:
        hold = HoldCredits(
            hold_id=command.hold_id,
            job_id=at.job_id,
            credits=price,
            deadline=command.deadline,
            allowance=False,
        )
        hold_in(uow, account_id, hold)
        uow.delete(FUNDING, at.job_id)
    else:
        paying_apart.leave(uow, account_id, at.entry.deadline)
        paying_apart.enter(uow, account_id, command.deadline)
        uow.put(FUNDING, replace(at.funding, state=FundingStep.HELD).to_row())
    turn = take_turn(uow, account_id, summary.virtual_time, price, PAID)
    held = command.hold_id is not None
    queued = replace(
        at.entry, state=JobState.QUEUED, held=held, weight=PAID.weight, deadline=command.deadline
    )
    uow.put(QUEUE, queued.at(turn).to_row())


def _conclude(uow: UnitOfWork, job_id: JobId, payer: AccountId, lots: Sequence[str]) -> str:
    """Hold what was paid, capture it, and deliver. Money that cannot be used for it stays as a credit.

    Raises `PayerMerged`.
    """
    at = situation(uow, job_id)
    result = None if at.funding is None else at.funding.result
    if at.job.state is not JobState.SETTLING or result is None:
        return at.job.state.value
    if into := uow.state(payer).status.merged_into:
        raise PayerMerged(into)
    at = dataclasses.replace(at, payer=payer)
    hold = HoldCredits(
        hold_id=hold_id_of(job_id),
        job_id=job_id,
        credits=at.job.price_credits,
        deadline=uow.now + SETTLING_HOLD,
        only_lot=lots[0] if lots else None,
        allowance=False,
    )
    refusal = None
    try:
        hold_in(uow, payer, hold)
    except Refusal as refused:
        refusal = refused.code
    record(uow, at, ConcludeSettlement(refusal))
    if refusal is None:
        uow.put(RESULTS, {**result["row"], "completed_at": uow.now})
    uow.delete(FUNDING, job_id)
    return state_of(uow, job_id)
