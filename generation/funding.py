"""Jobs that are paid by a payment made for them alone.

    awaiting_payment → queued → running → settling → completed

The gateway wires the port to whatever takes money; nothing here knows how that is done. Three
ends only: the money is settled and the image shown in one transaction; the money goes back and
nothing is charged; or it was settled for a job that can no longer be served, and stays as a
credit. While nobody knows, the image is withheld. What has to be done outside is written down in
`job_funding` first, and the keeper does it until it is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

import sqlalchemy as sa
import structlog

from generation.ending import end_without_charge, rows_of
from generation.errors import GenerationError
from generation.job import Job, JobState
from generation.job_events import JobCompleted, JobFailed, JobFunded
from generation.metrics import Metrics
from generation.queue import PAID, JobQueue, Standing, Turn, turn_of
from generation.signals import Signals
from generation.tables import FUNDING, QUEUE, RESULTS, SHARES, job_funding
from ledger.clock import Clock
from ledger.domain.commands import CaptureHold, HoldCredits
from ledger.domain.drafts import capture_in, hold_in
from ledger.errors import Refusal
from ledger.identifiers import AccountId, HoldId, Identifiers, JobId
from ledger.log.model import Draft, LogWriter, SideTable, Transaction

SWEEP_LIMIT = 100
PATIENCE = {"opening": 2, "waiting": 1, "settling": 3, "releasing": 5}
"""Seconds until something is asked about again."""
SETTLING_HOLD = timedelta(minutes=5)


class FundingUnavailable(GenerationError):
    """Whoever takes the money does not answer; ask again."""


class FundingState(StrEnum):
    """What is so about the money."""

    WAITING = "waiting"
    HELD = "held"
    """Promised and reserved: it can be settled or released."""
    SETTLED = "settled"
    """Ours; its credits are on the account."""
    FAILED = "failed"
    """It is not coming, or has gone back."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class FundingOrder:
    """What is to be paid, and what for."""

    job_id: JobId
    account_id: AccountId
    method: str
    price_credits: int


class Opened(NamedTuple):
    """A way to pay: our reference to it, and what the payer is shown (JSON)."""

    reference: str
    instructions: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Within:
    """What is decided in the very transaction that records the settlement and grants its credits.

    `decide` gets the lots that this payment granted, newest first; it must not refuse. It may run
    when the settlement was recorded before.
    """

    streams: Sequence[str]
    rows: Sequence[tuple[SideTable, str]]
    decide: Callable[[Draft, Sequence[str]], None]


class Funding(Protocol):
    """Takes money for one job. Everything may raise `FundingUnavailable` and may be repeated."""

    async def open(self, order: FundingOrder) -> Opened:
        """A way to pay for this job; the same one again however often it is asked for."""

    async def look(self, reference: str) -> FundingState:
        """What is known now, without asking outside."""

    async def settle(self, reference: str, within: Within) -> FundingState:
        """Take held money: `SETTLED` with `within` decided, `FAILED`, or `UNKNOWN`."""

    async def release(self, reference: str) -> FundingState:
        """Give it back: `FAILED` (nothing kept), `SETTLED` (it was ours already), or `UNKNOWN`."""


class FundingKeeper:
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
    ) -> None:
        self._funding = funding
        self._log = log
        self._queue = queue
        self._signals = signals
        self._clock = clock
        self._ids = identifiers
        self._metrics = metrics or Metrics()
        self._settling_now: set[str] = set()
        self._logger = structlog.get_logger("generation.funding")

    async def open(self, order: FundingOrder) -> Opened:
        """Ask for a way to pay and remember it.

        Raises `FundingUnavailable`, and the sweep tries again; or a refusal, and the job has ended.
        """
        try:
            opened = await self._funding.open(order)
        except Refusal as refusal:
            failed = JobFailed(reason=refusal.code, failure="payment")
            await self._end(order.account_id, order.job_id, failed)
            raise

        def decide(draft: Draft) -> None:
            row = draft.get(FUNDING, order.job_id)
            if row is not None and row["state"] in ("opening", "releasing"):
                state = "waiting" if row["state"] == "opening" else row["state"]
                draft.put(FUNDING, {**row, "state": state, "reference": opened.reference})

        await self._submit(order.account_id, order.job_id, "open", decide)
        return opened

    async def sweep(self) -> int:
        """Do what is due, at most a hundred of them; returns how many were."""
        query = (
            sa.select(job_funding)
            .where(job_funding.c.state != "held", job_funding.c.due_at <= self._clock())
            .order_by(job_funding.c.due_at)
            .limit(SWEEP_LIMIT)
        )
        async with self._queue.engine.connect() as connection:
            rows = (await connection.execute(query)).all()
        await asyncio.gather(*(self._tend(row) for row in rows))
        return len(rows)

    async def _tend(self, row: Any) -> None:
        try:
            await getattr(self, f"_{row.state}")(row)
        except (FundingUnavailable, Refusal) as error:
            self._logger.warning("funding_delayed", job_id=row.job_id, error=type(error).__name__)
        await self._later(row)

    async def _later(self, row: Any) -> None:
        due = self._clock() + timedelta(seconds=PATIENCE[row.state])
        async with self._queue.engine.begin() as connection:
            await connection.execute(
                sa.update(job_funding)
                .where(job_funding.c.job_id == row.job_id, job_funding.c.state == row.state)
                .values(due_at=due)
            )

    # --- one step for each state; each may be repeated ---

    async def _opening(self, row: Any) -> None:
        job_id, account_id = JobId(row.job_id), AccountId(row.account_id)
        queued = await self._queue.queue_row(job_id)
        if queued is not None:
            await self.open(
                FundingOrder(
                    job_id=job_id,
                    account_id=account_id,
                    method=row.method,
                    price_credits=row.price_credits,
                )
            )

    async def _waiting(self, row: Any) -> None:
        match await self._funding.look(row.reference):
            case FundingState.HELD:
                await self._fund(row, settled=False)
            case FundingState.SETTLED:
                await self._fund(row, settled=True)
            case FundingState.FAILED:
                await self._end(row.account_id, row.job_id, JobFailed(reason="not_paid", failure="payment"))
            case _:
                return

    async def _settling(self, row: Any) -> None:
        if row.job_id in self._settling_now:
            return  # whoever took the report is at it
        state, ended_here = await self._settle(row.job_id, row.account_id, row.reference)
        if not ended_here:
            return
        self._metrics.ended(state)
        if state == JobState.COMPLETED.value:
            shown = row.result["row"]
            self._metrics.delivered(
                gpu_milliseconds=shown["gpu_milliseconds"],
                paint_milliseconds=shown["paint_milliseconds"],
                earned_credits=row.price_credits,
            )

    async def _releasing(self, row: Any) -> None:
        """Money of a job that has ended. Settled before that, it stays as a credit."""
        if row.reference is not None:
            state = await self._funding.release(row.reference)
            if state not in (FundingState.FAILED, FundingState.SETTLED):
                return

        def decide(draft: Draft) -> None:
            draft.delete(FUNDING, row.job_id)

        await self._submit(row.account_id, row.job_id, "released", decide)

    async def _fund(self, row: Any, *, settled: bool) -> None:
        """The money is promised, or here: the job takes its place in the queue."""
        standing = await self._queue.standing(row.account_id, "", self._clock())
        hold_id = HoldId("hold_" + row.job_id.removeprefix("job_"))

        def decide(draft: Draft) -> None:
            job: Job = draft.state(row.job_id)
            funding, queued = draft.get(FUNDING, row.job_id), draft.get(QUEUE, row.job_id)
            if job.state is not JobState.AWAITING_PAYMENT or funding is None or queued is None:
                return
            if settled:
                assert job.deadline is not None, "every job has a deadline"
                command = HoldCredits(
                    hold_id=hold_id,
                    job_id=row.job_id,
                    credits=job.price_credits,
                    deadline=job.deadline,
                    allowance=False,
                )
                hold_in(draft, row.account_id, command)
                draft.delete(FUNDING, row.job_id)
            else:
                draft.put(FUNDING, {**funding, "state": "held"})
            funded = JobFunded(payment_id=row.reference, hold_id=hold_id if settled else None)
            draft.append(row.job_id, [funded])
            turn = _turn(draft, row, job, standing)
            draft.put(
                QUEUE,
                {
                    **queued,
                    "state": "queued",
                    "rank": turn.rank,
                    "tag": turn.tag,
                    "weight": PAID.weight,
                    "held": settled,
                },
            )

        await self._submit(row.account_id, row.job_id, "fund", decide, (SHARES, row.account_id))
        await self._signals.work_arrived()

    async def _end(self, account_id: str, job_id: str, event: JobFailed) -> None:
        def decide(draft: Draft) -> bool:
            job: Job = draft.state(job_id)
            if job.state.final:
                return False
            end_without_charge(draft, JobId(job_id), event, reason="failed")
            return True

        if await self._submit(account_id, job_id, "end", decide):
            self._metrics.ended(JobState.FAILED.value)

    async def settle(self, job_id: str, account_id: str, reference: str) -> str:
        """Take the money for a verified image, and show it. Returns the job's state.

        What ends by this the caller counts; what ends by a later attempt is counted here.
        """
        self._settling_now.add(job_id)
        try:
            state, _ = await self._settle(job_id, account_id, reference)
        finally:
            self._settling_now.discard(job_id)
        return state

    async def _settle(self, job_id: str, account_id: str, reference: str) -> tuple[str, bool]:
        """(state, whether it ended by this)."""
        ended, here = JobState.COMPLETED.value, False

        def complete(draft: Draft, lots: Sequence[str]) -> None:
            nonlocal ended, here
            here = not draft.state(job_id).state.final
            ended = _complete(draft, JobId(job_id), lots)

        # The job's own account, too: after a merge the money goes to another one.
        within = Within(streams=(account_id, job_id), rows=rows_of(job_id), decide=complete)
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

    async def _payment_failed(self, job_id: str, account_id: str) -> bool:
        def decide(draft: Draft) -> bool:
            if draft.state(job_id).state is not JobState.SETTLING:
                return False
            failed = JobFailed(reason="payment_failed", failure="payment")
            end_without_charge(draft, JobId(job_id), failed, reason="failed")
            return True

        return bool(await self._submit(account_id, job_id, "payment_failed", decide))

    async def _submit(
        self,
        account_id: str,
        job_id: str,
        what: str,
        decide: Callable[[Draft], object],
        *more: tuple[SideTable, str],
    ) -> object:
        receipt = await self._log.submit(
            Transaction(
                key=self._ids.command(),
                actor="system:funding",
                body=[what, job_id],
                streams=(account_id, job_id),
                rows=(*rows_of(job_id), *more),
                decide=decide,
            )
        )
        return receipt.result


def funding_row(order: FundingOrder, now: datetime) -> dict[str, Any]:
    """The intent, stored together with the job; the keeper opens the way to pay."""
    return {
        "job_id": order.job_id,
        "account_id": order.account_id,
        "method": order.method,
        "price_credits": order.price_credits,
        "state": "opening",
        "reference": None,
        "result": None,
        "due_at": now + timedelta(seconds=PATIENCE["opening"]),
    }


def _turn(draft: Draft, row: Any, job: Job, standing: Standing) -> Turn:
    share = draft.get(SHARES, row.account_id)
    finish = share["finish"] if share else 0
    turn, finish = turn_of(standing.virtual_time, finish, job.price_credits, PAID)
    draft.put(SHARES, {"account_id": row.account_id, "finish": finish})
    return turn


def _complete(draft: Draft, job_id: JobId, lots: Sequence[str]) -> str:
    """Capture what was just paid and deliver. Money that cannot be used for it stays as a credit."""
    job: Job = draft.state(job_id)
    row = draft.get(FUNDING, job_id)
    if job.state is not JobState.SETTLING or row is None or row["result"] is None:
        return job.state.value
    hold_id = HoldId("hold_" + job_id.removeprefix("job_"))
    command = HoldCredits(
        hold_id=hold_id,
        job_id=job_id,
        credits=job.price_credits,
        deadline=draft.now + SETTLING_HOLD,
        only_lot=lots[0] if lots else None,
        allowance=False,
    )
    try:
        hold_in(draft, job.account_id, command)
    except Refusal as refusal:
        draft.append(job_id, [JobFailed(reason=refusal.code, failure="payment")])
    else:
        capture_in(draft, job.account_id, CaptureHold(hold_id=hold_id))
        draft.append(job_id, [JobCompleted(**row["result"]["event"])])
        shown = row["result"]["row"]
        draft.put(RESULTS, {**shown, "completed_at": draft.now})
    draft.delete(QUEUE, job_id)
    draft.delete(FUNDING, job_id)
    return str(draft.state(job_id).state.value)
