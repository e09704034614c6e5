"""A job: requested (or awaiting payment) → queued → running → (settling) → one of six ends.

`decide_*` functions may refuse a wish; `evolve` never refuses a fact.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from generation import job_events as e
from generation.errors import JobAlreadyEnded, JobNotFound, StaleLease
from ledger.identifiers import AccountId, HoldId
from ledger.log.model import Category, Event

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
            return _with(job, state=JobState.QUEUED, hold_id=event.hold_id)
        case e.JobStarted():
            return _with(
                job,
                state=JobState.RUNNING,
                worker_id=event.worker_id,
                epoch=event.epoch,
                attempts=job.attempts + 1,
            )
        case e.JobRequeued():
            return _with(job, state=JobState.QUEUED, worker_id=None)
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


JOBS = Category(prefix="job", events=e.EVENTS, initial=Job(), evolve=evolve, snapshot_type=Job)
