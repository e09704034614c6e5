"""A job: requested (or awaiting payment) → queued → running → (settling) → one of six ends.

`decide_*` functions may refuse a wish; `evolve` never refuses a fact.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum

import msgspec

from generation import job_events as e
from generation.errors import JobAlreadyEnded, JobNotFound, StaleLease
from ledger.errors import Refusal
from ledger.identifiers import AccountId, HoldId
from ledger.log.model import Category, Event, LogWriter, Receipt, Transaction

ATTEMPTS_MAX = 3
"""Attempts on different workers before an infrastructure failure becomes final."""


class JobState(StrEnum):
    """Where a job stands, in the API's words."""

    UNKNOWN = "unknown"
    AWAITING_PAYMENT = "awaiting_payment"
    QUEUED = "queued"
    RUNNING = "running"
    SETTLING = "settling"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"
    EXPIRED = "expired"
    BLOCKED = "blocked"

    @property
    def final(self) -> bool:
        """Whether nothing can happen to the job any more."""
        return self in _FINAL


_FINAL = frozenset(
    {
        JobState.COMPLETED,
        JobState.FAILED,
        JobState.CANCELLED,
        JobState.SUPERSEDED,
        JobState.EXPIRED,
        JobState.BLOCKED,
    }
)


class Attempt(msgspec.Struct, frozen=True):
    """A failed attempt: where, and at what."""

    worker_id: str
    code: str
    node: str | None = None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job as folded from its events."""

    state: JobState = JobState.UNKNOWN
    account_id: AccountId = AccountId("")
    hold_id: HoldId | None = None
    price_credits: int = 0
    graph: str = ""
    deadline: datetime | None = None
    session_id: str | None = None
    seq: int | None = None
    live: bool = False
    epoch: int = 0
    worker_id: str | None = None
    attempts: int = 0
    failures: tuple[Attempt, ...] = ()
    payment_id: str | None = None
    captured_credits: int = 0
    reason: str | None = None
    sha256: str | None = None


def evolve(job: Job, event: Event) -> Job:
    """Fold one fact into the state."""
    match event:
        case e.JobRequested():
            return Job(
                state=JobState.QUEUED if event.hold_id else JobState.AWAITING_PAYMENT,
                account_id=event.account_id,
                hold_id=event.hold_id,
                price_credits=event.price_credits,
                graph=event.graph,
                deadline=event.deadline,
                session_id=event.session_id,
                seq=event.seq,
                live=event.live,
            )
        case e.JobFunded():
            return _with(job, state=JobState.QUEUED, hold_id=event.hold_id, payment_id=event.payment_id)
        case e.JobStarted():
            return _with(
                job,
                state=JobState.RUNNING,
                worker_id=event.worker_id,
                epoch=event.epoch,
                attempts=job.attempts + 1,
            )
        case e.JobRequeued():
            counts = event.counts and event.reason != "given_back"
            failed = (Attempt(event.worker_id, event.reason, event.node),) if counts else ()
            return _with(job, state=JobState.QUEUED, worker_id=None, failures=(*job.failures, *failed))
        case e.JobSettling():
            return _with(job, state=JobState.SETTLING, sha256=event.sha256)
        case e.JobCompleted():
            return _with(
                job,
                state=JobState.COMPLETED,
                captured_credits=event.captured_credits,
                sha256=event.sha256,
            )
        case e.JobFailed():
            return _with(job, state=JobState.FAILED, reason=event.reason)
        case e.JobCancelled():
            return _with(job, state=JobState.CANCELLED, reason=event.by)
        case e.JobSuperseded():
            return _with(job, state=JobState.SUPERSEDED, reason=event.by_job)
        case e.JobExpired():
            return _with(job, state=JobState.EXPIRED)
        case e.JobBlocked():
            return _with(job, state=JobState.BLOCKED, reason=event.category)
        case _:
            return job


def _with(job: Job, **changes: object) -> Job:
    return msgspec.structs.replace(job, **changes)


def require_open(job: Job) -> None:
    """Refuse what only makes sense for a job that has not ended."""
    if job.state is JobState.UNKNOWN:
        raise JobNotFound()
    if job.state.final:
        raise JobAlreadyEnded(state=job.state.value)


def require_leased(job: Job, *, worker_id: str, epoch: int) -> None:
    """Refuse whoever does not hold the job's present lease."""
    if job.state is JobState.UNKNOWN:
        raise JobNotFound()
    if job.state is not JobState.RUNNING or job.epoch != epoch or job.worker_id != worker_id:
        raise StaleLease(state=job.state.value, epoch=job.epoch)


class NotTheHolder(Exception):
    """A report came from somebody who does not hold the lease. Nothing is recorded about it: a
    forged report must not use up the command key of the true one.
    """

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        super().__init__(refusal.message)


@contextmanager
def unrecorded() -> Iterator[None]:
    """Turn refusals into `NotTheHolder`."""
    try:
        yield
    except Refusal as refusal:
        raise NotTheHolder(refusal) from None


async def report_to(log: LogWriter, transaction: Transaction) -> Receipt:
    """Submit what a box reports: a report that was taken before gets its first answer again.

    Raises `NotTheHolder`.
    """
    try:
        return await log.submit(transaction)
    except NotTheHolder:
        return await log.submit(msgspec.structs.replace(transaction, suspected=True))


def verdict_on(job: Job, *, worker_id: str, code: str, node: str | None) -> str | None:
    """How a job ends that has just failed on this box, None if it is worth another box.

    The same failure at the same node on two boxes is the job's own fault (`poison`); three failed
    attempts are enough in any case (`infrastructure`).
    """
    if node is not None:
        for earlier in job.failures:
            if (earlier.code, earlier.node) == (code, node) and earlier.worker_id != worker_id:
                return "poison"
    return "infrastructure" if len(job.failures) + 1 >= ATTEMPTS_MAX else None


JOBS = Category(
    prefix="job", events=e.EVENTS, initial=Job(), evolve=evolve, snapshot_type=Job, snapshot_version=2
)
