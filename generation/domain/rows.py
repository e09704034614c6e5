"""What is kept beside a job's events while it lives: its entry in the queue, its payment, its live session.

Typed and pure. `from_row` and `to_row` translate from and to the columns of the tables of the same name.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from generation.domain import events as e
from generation.domain.fairness import Turn
from generation.domain.states import JobState
from ledger.identifiers import AccountId, JobId
from ledger.log.model import Event


class JobProgress(NamedTuple):
    """How far a worker is: steps done, steps to do, and a count of everything that moved, steps or not."""

    value: int = 0
    maximum: int = 0
    moved: int = 0


class QueueEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A job that has not ended, as the queue knows it (`job_queue`)."""

    job_id: JobId
    account_id: AccountId
    session_id: str | None = None
    """The live session of a frame or variation."""
    graph: str
    state: JobState
    rank: int
    tag: int
    weight: int = 1
    held: bool = True
    """Whether a hold on credits stands for it; else a payment made for it alone."""
    free_credits: int = 0
    """Credits of the daily allowance in it, counted at `networks` (ids of network allowances)."""
    networks: list[str] | None = None
    requested_at: datetime
    deadline: datetime
    attempts: int = 0
    refused_workers: list[str] = []
    """Workers that failed on it."""
    epoch: int = 0
    """The number of its newest lease."""
    worker_id: str | None = None
    lease_expires_at: datetime | None = None
    leased_at: datetime | None = None
    progress_value: int = 0
    progress_max: int = 0
    progress_moved: int = 0
    cancel_asked: bool = False

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> QueueEntry:
        """From the table's columns."""
        return cls(**{**row, "state": JobState(row["state"])})

    def to_row(self) -> dict[str, Any]:
        """All of the table's columns."""
        return {**msgspec.structs.asdict(self), "state": self.state.value}

    def leased_to(self, worker_id: str, epoch: int) -> bool:
        """Whether this worker holds this lease."""
        return (self.worker_id, self.epoch) == (worker_id, epoch)

    def unclaimed(self, now: datetime) -> bool:
        """Whether no worker has it. One that took it and never began lets it go when its lease lapses."""
        return self.lease_expires_at is None or self.lease_expires_at < now

    def at(self, turn: Turn) -> QueueEntry:
        """In another place of the line."""
        return replace(self, rank=turn.rank, tag=turn.tag)


def entry_after(entry: QueueEntry, event: Event) -> QueueEntry | None:
    """The entry as an event of its job leaves it; None once the job has ended."""
    match event:
        case e.JobFunded(hold_id=hold_id, deadline=deadline):
            return replace(
                entry,
                state=JobState.QUEUED,
                held=hold_id is not None,
                deadline=deadline or entry.deadline,
            )
        case e.JobStarted():
            return replace(entry, state=JobState.RUNNING, attempts=entry.attempts + 1)
        case e.JobRequeued(worker_id=worker_id, counts=failed):
            refused = [*entry.refused_workers, worker_id] if failed else entry.refused_workers
            return replace(
                entry,
                state=JobState.QUEUED,
                worker_id=None,
                lease_expires_at=None,
                leased_at=None,
                refused_workers=refused,
            )
        case e.JobSettling():
            return replace(entry, state=JobState.SETTLING, lease_expires_at=None)
        case _:
            return None


class FundingStep(StrEnum):
    """What has to be done next about a payment made for one job."""

    OPENING = "opening"
    """Ask for a payment request."""
    WAITING = "waiting"
    """See whether the money is promised or here."""
    HELD = "held"
    """Nothing: the image is being made."""
    SETTLING = "settling"
    """Take the money, then show the image."""
    RELEASING = "releasing"
    """Give it back."""


class FundingEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A payment made for one job alone (`job_funding`)."""

    job_id: JobId
    account_id: AccountId
    method: str
    price_credits: int
    state: FundingStep
    reference: str | None = None
    """The payment, once its request is open."""
    result: dict[str, Any] | None = None
    """The verified image's facts while the payment is settled: `event` and `row`."""
    due_at: datetime

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> FundingEntry:
        """From the table's columns."""
        mine = {name: row[name] for name in cls.__struct_fields__}
        return cls(**{**mine, "state": FundingStep(row["state"])})

    def to_row(self) -> dict[str, Any]:
        """All of the table's columns. Whatever is written begins without failures."""
        mine = msgspec.structs.asdict(self)
        return {**mine, "state": self.state.value, "attempts": 0, "last_problem": None}

    def step(self, state: FundingStep, due_at: datetime, **changes: Any) -> FundingEntry:
        """The same payment at another step, due then."""
        return replace(self, state=state, due_at=due_at, **changes)
