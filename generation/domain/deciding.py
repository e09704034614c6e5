"""One decision for every command on a job. Pure: no clock, no I/O, no randomness.

`decide` answers with the events that follow, or refuses by name; a refusal leaves everything as it
was. No event means that the command changes nothing: what it asks for is so already, or was decided
otherwise before. `NotDecided` is raised where the same command may be asked again later.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

import msgspec

from generation.domain import commands as c
from generation.domain import events as e
from generation.domain.commands import FailureKind, JobCommand, Lease
from generation.domain.errors import (
    AskTheWorker,
    JobAlreadyEnded,
    JobNotFound,
    NotDue,
    NotWaiting,
    StaleLease,
)
from generation.domain.job import Job
from generation.domain.reasons import CancelledBy, Reason
from generation.domain.rows import FundingEntry, QueueEntry
from generation.domain.sessions import LiveSession, newer_delivered
from generation.domain.states import JobState
from ledger.identifiers import AccountId, JobId
from ledger.log.model import Event

ATTEMPTS_MAX = 3
"""Attempts before a failure that is not the input's becomes final."""
TRIED_AGAIN = frozenset({FailureKind.INFRASTRUCTURE, FailureKind.SERVICE})
NEVER_POISON = frozenset({"graph_refused", "graph_unknown"})
"""What no request can cause: two workers may lack the same node or model, and the third has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """A job, and the rows that stand beside it: all that a decision may depend on."""

    job_id: JobId
    job: Job
    entry: QueueEntry | None = None
    """None if the job has no place in the queue (any more)."""
    funding: FundingEntry | None = None
    session: LiveSession | None = None
    hold_open: bool = False
    """Whether the hold that stands for this job is still open."""
    payer: AccountId | None = None
    """Whose credits pay, where those of the account that asked were merged into another one's."""


def decide(at: Situation, command: JobCommand, now: datetime) -> list[Event]:
    """The events that answer `command`. Raises refusals of `generation.domain.errors`, or `NotDecided`."""
    match command:
        case c.RequestJob():
            return _request(at, command)
        case c.FundJob():
            return _fund(at, command)
        case c.StartJob(lease):
            return _start(at, lease)
        case c.EndAttempt():
            return _end_attempt(at, command, now)
        case c.CompleteJob():
            return _complete(at, command, now)
        case c.ConcludeSettlement(refusal):
            return _conclude_settlement(at, refusal)
        case c.FailSettlement():
            return _failed(Reason.PAYMENT_FAILED) if at.job.state is JobState.SETTLING else []
        case c.CancelJob():
            return _cancel(at)
        case c.StopPausedJob():
            return _stop_paused(at, now)
        case c.SupersedeJob(by_job):
            return _supersede(at, by_job)
        case c.ExpireJob():
            return _expire(at, now)
        case c.BlockJob(stage, category, lease):
            if lease is not None:
                require_lease(at.job, lease)
            return [] if at.job.state.final else [e.JobBlocked(stage=stage, category=category)]
        case c.FailJob(reason, kind):
            return [] if at.job.state.final else [e.JobFailed(reason=reason, failure=kind.value)]
        case _:
            assert_never(command)


# --- rules that more than one command obeys ---


def require_lease(job: Job, lease: Lease) -> None:
    """Refuse whoever does not hold the job's present lease: `JobNotFound`, `StaleLease`."""
    if job.state is JobState.UNKNOWN:
        raise JobNotFound()
    if job.state is not JobState.RUNNING or (job.worker_id, job.epoch) != (lease.worker_id, lease.epoch):
        raise StaleLease(state=job.state.value, epoch=job.epoch)


def past_deadline(job: Job, now: datetime) -> bool:
    """Whether the job's time is over. A job whose payment is being settled is past saving or losing."""
    due = job.deadline is not None and now >= job.deadline
    return due and job.state is not JobState.SETTLING


def verdict_on(job: Job, attempt: c.EndAttempt) -> FailureKind | str | None:
    """How a job ends whose attempt has just failed, None if it is worth another worker.

    A failure of the input is final. The same failure of two workers at the same node is the job's own
    fault; three failed attempts are enough in any case. What was given back has not failed.
    """
    if attempt.kind == FailureKind.GIVEN_BACK:
        return None
    if attempt.kind not in TRIED_AGAIN:
        return attempt.kind
    blamed = attempt.kind == FailureKind.INFRASTRUCTURE
    if blamed and attempt.node is not None and attempt.code not in NEVER_POISON:
        for earlier in job.failures:
            same = (earlier.code, earlier.node) == (attempt.code, attempt.node)
            if same and earlier.worker_id != attempt.lease.worker_id:
                return FailureKind.POISON
    return attempt.kind if len(job.failures) + 1 >= ATTEMPTS_MAX else None


# --- one function for each command ---


def _request(at: Situation, command: c.RequestJob) -> list[Event]:
    if at.job.state is not JobState.UNKNOWN:
        return []  # asked for under another command key: never a second time
    return [
        e.JobRequested(
            account_id=command.account_id,
            hold_id=command.hold_id,
            price_credits=command.price_credits,
            graph=command.graph,
            deadline=command.deadline,
            input_digest=command.input_digest,
            live=command.live,
            session_id=command.session_id,
            seq=command.seq,
        )
    ]


def _fund(at: Situation, command: c.FundJob) -> list[Event]:
    if at.job.state is not JobState.AWAITING_PAYMENT or at.funding is None or at.entry is None:
        return []
    return [e.JobFunded(payment_id=command.payment_id, hold_id=command.hold_id, deadline=command.deadline)]


def _start(at: Situation, lease: Lease) -> list[Event]:
    leased = at.entry is not None and at.entry.leased_to(lease.worker_id, lease.epoch)
    if at.job.state is not JobState.QUEUED or not leased:
        return []  # another claim, a cancellation or the sweeper came between
    return [e.JobStarted(worker_id=lease.worker_id, epoch=lease.epoch)]


def _end_attempt(at: Situation, attempt: c.EndAttempt, now: datetime) -> list[Event]:
    require_lease(at.job, attempt.lease)
    if at.entry is None:
        raise StaleLease(state=at.job.state.value, epoch=at.job.epoch)
    if at.entry.cancel_asked:
        return [e.JobCancelled(by=CancelledBy.PERSON.value)]
    if past_deadline(at.job, now):
        return [e.JobExpired()]
    verdict = verdict_on(at.job, attempt)
    if verdict is not None:
        return [e.JobFailed(reason=attempt.code, failure=str(verdict))]
    return [
        e.JobRequeued(
            worker_id=attempt.lease.worker_id,
            epoch=at.job.epoch,
            reason=attempt.code,
            counts=attempt.kind != FailureKind.GIVEN_BACK,
            node=attempt.node,
        )
    ]


def _complete(at: Situation, command: c.CompleteJob, now: datetime) -> list[Event]:
    job, lease = at.job, command.lease
    require_lease(job, lease)
    if past_deadline(job, now):
        return [e.JobExpired()]
    newer = newer_delivered(at.session, job.seq or 0) if job.live and at.session is not None else None
    if newer is not None:
        return [e.JobSuperseded(by_job=newer)]
    if job.hold_id is None:
        return _settle(at, command)
    if not at.hold_open:
        # An operator closed it. Nothing may be shown that was not paid for.
        return _failed(Reason.HOLD_CLOSED)
    return [
        e.JobCompleted(
            worker_id=lease.worker_id,
            epoch=lease.epoch,
            sha256=command.sha256,
            size_bytes=command.size_bytes,
            width=command.width,
            height=command.height,
            gpu_milliseconds=command.gpu_milliseconds,
            captured_credits=job.price_credits,
        )
    ]


def _settle(at: Situation, command: c.CompleteJob) -> list[Event]:
    """The image is there; the payment made for it alone is settled next, outside."""
    if at.funding is None or at.entry is None:
        return _failed(Reason.NOT_PAID)
    return [
        e.JobSettling(
            worker_id=command.lease.worker_id,
            epoch=command.lease.epoch,
            sha256=command.sha256,
            size_bytes=command.size_bytes,
        )
    ]


def _conclude_settlement(at: Situation, refusal: str | None) -> list[Event]:
    if at.job.state is not JobState.SETTLING or at.funding is None or at.funding.result is None:
        return []
    if refusal is not None:
        return _failed(refusal)
    return [msgspec.convert(at.funding.result["event"], e.JobCompleted)]


def _cancel(at: Situation) -> list[Event]:
    if at.job.state is JobState.UNKNOWN:
        raise JobNotFound()
    if at.job.state.final:
        raise JobAlreadyEnded(state=at.job.state.value)
    if at.job.state in (JobState.RUNNING, JobState.SETTLING):
        raise AskTheWorker
    return [e.JobCancelled(by=CancelledBy.PERSON.value)]


def _stop_paused(at: Situation, now: datetime) -> list[Event]:
    paused = at.session is not None and at.session.paused
    waits = at.job.state is JobState.QUEUED and at.entry is not None and at.entry.unclaimed(now)
    if not paused or not waits:
        raise NotWaiting
    return [e.JobCancelled(by=CancelledBy.SESSION_PAUSED.value)]


def _supersede(at: Situation, by_job: JobId) -> list[Event]:
    waits = at.job.state is JobState.QUEUED and at.entry is not None and at.entry.worker_id is None
    return [e.JobSuperseded(by_job=by_job)] if waits and at.hold_open else []


def _expire(at: Situation, now: datetime) -> list[Event]:
    if at.job.state.final or at.job.state is JobState.UNKNOWN:
        return []  # it ended by other means
    if not past_deadline(at.job, now):
        raise NotDue
    return [e.JobExpired()]


def _failed(reason: str) -> list[Event]:
    """No image, because nobody pays for it."""
    return [e.JobFailed(reason=str(reason), failure=FailureKind.PAYMENT.value)]
