"""A decided command becomes events and rows, in one unit of work.

`record` is the only place where a job's events are appended: what follows from each (the queue's row,
the hold, the payment, notes for later) is done here, so that no two paths can differ in it.
A hold may have been closed by somebody else (an operator): the job still ends, once, and nothing is
settled twice.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec

from generation.domain import events as e
from generation.domain.commands import JobCommand, SupersedeJob
from generation.domain.deciding import Situation, decide
from generation.domain.errors import NotTheHolder
from generation.domain.job import Job
from generation.domain.rows import FundingEntry, FundingStep, QueueEntry, entry_after
from generation.domain.sessions import LiveSession
from generation.domain.states import JobState
from generation.jobs import orphaned_uploads, paying_apart, usage_reversal
from generation.store.tables import FUNDING, QUEUE, SESSIONS
from ledger.domain import holds as holds_
from ledger.domain.applying import capture_in, expire_in, release_in
from ledger.domain.commands import CaptureHold, ExpireHold, ReleaseHold
from ledger.errors import Refusal
from ledger.identifiers import HoldId, JobId
from ledger.log.model import Event, LogWriter, Receipt, SideTable, Transaction, UnitOfWork


def rows_of(job_id: str, account_id: str) -> tuple[tuple[SideTable, str], ...]:
    """The rows that a transaction on this job of this account declares."""
    return (QUEUE, job_id), (FUNDING, job_id), *paying_apart.rows_of_account(account_id)


def hold_id_of(job_id: str) -> HoldId:
    """The hold that stands for a job whose payment was made for it alone."""
    return HoldId("hold_" + job_id.removeprefix("job_"))


def situation(uow: UnitOfWork, job_id: JobId, *, session_key: str | None = None) -> Situation:
    """What a command on this job is decided from.

    The transaction declares the streams of the job and its account, `rows_of` of both, and the session.
    """
    entry, funding = uow.get(QUEUE, job_id), uow.get(FUNDING, job_id)
    return Situation(
        job_id=job_id,
        job=uow.state(job_id),
        entry=None if entry is None else QueueEntry.from_row(entry),
        funding=None if funding is None else FundingEntry.from_row(funding),
        session=session_of(uow, session_key),
        hold_open=hold_is_open(uow, uow.state(job_id)),
    )


def session_of(uow: UnitOfWork, session_key: str | None) -> LiveSession | None:
    """The live session of this name, None if there is none."""
    row = None if session_key is None else uow.get(SESSIONS, session_key)
    return None if row is None else LiveSession.from_row(row)


def hold_is_open(uow: UnitOfWork, job: Job) -> bool:
    """Whether the hold that stands for this job is still open."""
    return job.hold_id is not None and holds_.get(uow.state(job.account_id).holds, job.hold_id) is not None


def record(uow: UnitOfWork, at: Situation, command: JobCommand) -> list[Event]:
    """Decide, append, and do all that follows. Returns the events; none if nothing changes."""
    return perform(uow, at, decide(at, command, uow.now))


def perform(uow: UnitOfWork, at: Situation, events: list[Event]) -> list[Event]:
    """Append what was decided, and do all that follows."""
    if events:
        uow.append(at.job_id, events)
    for event in events:
        _follow(uow, at, event)
    return events


def give_way(uow: UnitOfWork, job_id: JobId, by_job: JobId) -> int:
    """Supersede a waiting frame that another account's frame cannot take over the hold of: it is released, and the
    free images are counted back. Returns its price in credits, 0 if it does not wait any more; its session is not
    touched. The transaction declares what `situation` needs.
    """
    if uow.get(QUEUE, job_id) is None:
        return 0
    at = situation(uow, job_id)
    if at.entry is None or not record(uow, at, SupersedeJob(by_job=by_job)):
        return 0
    usage_reversal.note(uow, replace(at, entry=msgspec.structs.replace(at.entry, session_id=None)))
    _let_go(uow, at.job, _REASONS[e.JobSuperseded])
    return at.job.price_credits


def record_report(uow: UnitOfWork, at: Situation, command: JobCommand) -> list[Event]:
    """Record what a worker reports. A refusal becomes `NotTheHolder`: a forged report must not use up
    the command key of the true one.
    """
    try:
        events = decide(at, command, uow.now)
    except Refusal as refusal:
        raise NotTheHolder(refusal) from None
    return perform(uow, at, events)


async def report_to(log: LogWriter, transaction: Transaction) -> Receipt:
    """Submit what a worker reports: a report that was taken before gets its first answer again.

    Raises `NotTheHolder`.
    """
    try:
        return await log.submit(transaction)
    except NotTheHolder:
        return await log.submit(msgspec.structs.replace(transaction, suspected=True))


def state_of(uow: UnitOfWork, job_id: JobId) -> str:
    """The job's state as it is now, in the API's words."""
    job: Job = uow.state(job_id)
    return job.state.value


def _follow(uow: UnitOfWork, at: Situation, event: Event) -> None:
    match event:
        case e.JobFunded(hold_id=hold_id):  # whoever asked knows the turn, and puts the queue's row
            if hold_id is not None:
                _leave_those_paid_apart(uow, at)
        case e.JobRequested():
            pass  # likewise
        case e.JobStarted() | e.JobRequeued() | e.JobSettling():
            _move_on(uow, at, event)
        case e.JobCompleted():
            _deliver(uow, at)
        case e.JobSuperseded() if at.job.state is JobState.QUEUED:
            uow.delete(QUEUE, at.job_id)  # what becomes of its hold is whoever's who supersedes it
            orphaned_uploads.note_end(uow, at.job_id)
        case _:
            _end_without_charge(uow, at, event)


def _move_on(uow: UnitOfWork, at: Situation, event: Event) -> None:
    entry = None if at.entry is None else entry_after(at.entry, event)
    assert entry is not None, "these events are only decided of a job with an entry"
    uow.put(QUEUE, entry.to_row())
    if isinstance(event, e.JobSettling):
        orphaned_uploads.note_uploads(uow, at.job_id, at.job)


def _deliver(uow: UnitOfWork, at: Situation) -> None:
    if at.job.state is not JobState.SETTLING and at.job.epoch > 1:
        # Of its own upload whoever took the report takes care, and in the end `unreferenced_objects`.
        orphaned_uploads.note_uploads(uow, at.job_id, at.job)
    capture_in(
        uow, at.payer or at.job.account_id, CaptureHold(hold_id=at.job.hold_id or hold_id_of(at.job_id))
    )
    _leave_those_paid_apart(uow, at)
    uow.delete(QUEUE, at.job_id)


def _end_without_charge(uow: UnitOfWork, at: Situation, event: Event) -> None:
    """Give back what was held and what was counted; money promised for this job alone goes back."""
    usage_reversal.note(uow, at)
    orphaned_uploads.note_end(uow, at.job_id)
    if at.hold_open:
        _let_go(uow, at.job, reason=_REASONS[type(event)])
    _leave_those_paid_apart(uow, at)
    uow.delete(QUEUE, at.job_id)
    if at.job.hold_id is None and at.funding is not None:
        uow.put(FUNDING, at.funding.step(FundingStep.RELEASING, uow.now).to_row())


def _leave_those_paid_apart(uow: UnitOfWork, at: Situation) -> None:
    if at.entry is not None and not at.entry.held:
        paying_apart.leave(uow, at.entry.account_id, at.entry.deadline)


_REASONS: dict[type[Event], str] = {
    e.JobFailed: "failed",
    e.JobCancelled: "cancelled",
    e.JobSuperseded: "superseded",
    e.JobExpired: "expired",
    e.JobBlocked: "blocked",
}
"""Why a hold was released, as the ledger records it."""


def _let_go(uow: UnitOfWork, job: Job, reason: str) -> None:
    assert job.hold_id is not None
    hold = holds_.get(uow.state(job.account_id).holds, job.hold_id)
    if hold is not None and hold.deadline <= uow.now:
        expire_in(uow, job.account_id, ExpireHold(hold_id=job.hold_id))
    elif hold is not None:
        release_in(uow, job.account_id, ReleaseHold(hold_id=job.hold_id, reason=reason))
