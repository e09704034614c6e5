"""A job: requested (or awaiting payment) → queued → running → (settling) → one of six ends.

`generation.domain.deciding` may refuse a command; `evolve` never refuses a fact.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from generation.domain import events as e
from generation.domain.states import JobState
from ledger.identifiers import AccountId, HoldId
from ledger.log.model import Category, Event


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
            return _with(
                job,
                state=JobState.QUEUED,
                hold_id=event.hold_id,
                payment_id=event.payment_id,
                deadline=event.deadline or job.deadline,
            )
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


JOBS = Category(
    prefix="job", events=e.EVENTS, initial=Job(), evolve=evolve, snapshot_type=Job, snapshot_version=2
)
