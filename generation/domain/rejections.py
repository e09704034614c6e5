"""Why a worker's report was refused, for operators: read from the job's own history, never from what the worker says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from generation.domain.events import JobExpired, JobFailed, JobRequeued, JobStarted
from generation.domain.reasons import Reason
from ledger.log.model import Envelope

HISTORY_MAX = 500
"""Events of one job that are looked at: a job has a handful."""

Cause: TypeAlias = Literal["zombie", "replay", "forged_epoch", "other_worker", "unknown_job"]


def rejection_cause(history: Sequence[Envelope], *, worker_id: str, epoch: int) -> Cause:
    """Which of the ways it is not to hold a lease.

    `forged_epoch`: nobody ever held it. `other_worker`: somebody else did. `zombie`: it was this worker's, and
    was taken away because the worker was silent or late. `replay`: this worker has ended it itself.
    """
    if not history:
        return "unknown_job"
    holders = {e.event.epoch: e.event.worker_id for e in history if isinstance(e.event, JobStarted)}
    if epoch not in holders:
        return "forged_epoch"
    if holders[epoch] != worker_id:
        return "other_worker"
    for entry in history:
        event = entry.event
        if isinstance(event, JobRequeued) and event.epoch == epoch:
            return "zombie" if event.reason == Reason.WORKER_LOST else "replay"
    last = history[-1].event
    lost = isinstance(last, JobExpired) or (isinstance(last, JobFailed) and last.reason == Reason.WORKER_LOST)
    return "zombie" if lost else "replay"
