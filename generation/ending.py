"""How a job ends: one terminal event, its hold settled, its row gone, in one transaction.

A hold may have been settled by somebody else (an operator's sweep of an account): the job still
ends, once, and nothing is settled twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from generation import leftovers, returning
from generation.job import Job, JobState
from generation.job_events import JobExpired
from generation.tables import FUNDING, QUEUE
from ledger.domain import holds as holds_
from ledger.domain.commands import ExpireHold, ReleaseHold
from ledger.domain.drafts import expire_in, release_in
from ledger.identifiers import JobId
from ledger.log.model import Draft, Event, SideTable


def rows_of(job_id: str) -> tuple[tuple[SideTable, str], ...]:
    """The rows that a transaction which may end this job declares."""
    return (QUEUE, job_id), (FUNDING, job_id)


def end_without_charge(
    draft: Draft, job_id: JobId, event: Event, *, reason: str, row: Mapping[str, Any] | None = None
) -> str:
    """Append an end that costs nothing and give back what was held. Returns the new state.

    `row` is the queue's row, for a transaction that does not declare it.
    """
    job: Job = draft.state(job_id)
    returning.note(draft, job_id, job, draft.get(QUEUE, job_id) if row is None else row)
    leftovers.note(draft, job_id, job)
    draft.append(job_id, [event])
    _let_go(draft, job, reason)
    draft.delete(QUEUE, job_id)
    if job.hold_id is None:
        _release_payment(draft, job_id)
    return str(draft.state(job_id).state.value)


def expire(draft: Draft, job_id: JobId, row: Mapping[str, Any] | None = None) -> str:
    """Hold and job share one deadline and expire together. `row`: see `end_without_charge`."""
    return end_without_charge(draft, job_id, JobExpired(), reason="expired", row=row)


def past_deadline(draft: Draft, job: Job) -> bool:
    """Whether the job's time is over. A job whose payment is being settled is past saving or losing."""
    due = job.deadline is not None and draft.now >= job.deadline
    return due and job.state is not JobState.SETTLING


def hold_is_open(draft: Draft, job: Job) -> bool:
    """Whether the hold that stands for this job is still open."""
    return job.hold_id is not None and holds_.get(draft.state(job.account_id).holds, job.hold_id) is not None


def _let_go(draft: Draft, job: Job, reason: str) -> None:
    if job.hold_id is None or not hold_is_open(draft, job):
        return
    hold = holds_.get(draft.state(job.account_id).holds, job.hold_id)
    if hold is not None and hold.deadline <= draft.now:
        expire_in(draft, job.account_id, ExpireHold(hold_id=job.hold_id))
    else:
        release_in(draft, job.account_id, ReleaseHold(hold_id=job.hold_id, reason=reason))


def _release_payment(draft: Draft, job_id: JobId) -> None:
    """Money that was promised for this job alone goes back; the keeper does it, until it is done."""
    row = draft.get(FUNDING, job_id)
    if row is not None:
        draft.put(FUNDING, {**row, "state": "releasing", "due_at": draft.now})
