"""Why a box's report was refused, for operators: read from the job's own history, never from what the box says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from generation.job_events import JobExpired, JobFailed, JobRequeued, JobStarted
from ledger.log.model import Envelope

WORKER_LOST = "worker_lost"
HISTORY_MAX = 500
"""Events of one job that are looked at: a job has a handful."""

Cause: TypeAlias = Literal["zombie", "replay", "forged_epoch", "other_box", "unknown_job"]


def why_refused(history: Sequence[Envelope], *, worker_id: str, epoch: int) -> Cause:
    """Which of the ways it is not to hold a lease.

    `forged_epoch`: nobody ever held it. `other_box`: somebody else did. `zombie`: it was this box's, and
    was taken away because the box was silent or late. `replay`: this box has ended it itself.
    """
    if not history:
        return "unknown_job"
    holders = {e.event.epoch: e.event.worker_id for e in history if isinstance(e.event, JobStarted)}
    if epoch not in holders:
        return "forged_epoch"
    if holders[epoch] != worker_id:
        return "other_box"
    for entry in history:
        event = entry.event
        if isinstance(event, JobRequeued) and event.epoch == epoch:
            return "zombie" if event.reason == WORKER_LOST else "replay"
    last = history[-1].event
    lost = isinstance(last, JobExpired) or (isinstance(last, JobFailed) and last.reason == WORKER_LOST)
    return "zombie" if lost else "replay"
