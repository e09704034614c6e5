"""What can be asked of a job. Each is decided by `generation.domain.deciding.decide`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

from ledger.identifiers import AccountId, HoldId, JobId


class FailureKind(StrEnum):
    """Whose fault it is that an attempt gave no image."""

    INPUT = "input"
    """The request's own: it would fail everywhere."""
    INFRASTRUCTURE = "infrastructure"
    """The worker's: another one may do."""
    SERVICE = "service"
    """Ours: our store refused a download or an upload. Tried again, and no worker is blamed."""
    POISON = "poison"
    """The request's own, although each worker took it for its own fault."""
    PAYMENT = "payment"
    """Nobody paid for it."""
    GIVEN_BACK = "given_back"
    """Nobody's: a worker that shuts down returns its job."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A worker's right to report on a job: only the present one counts."""

    worker_id: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestJob:
    """An image is asked for: on a hold of credits, or on a payment to come (`hold_id` None)."""

    account_id: AccountId
    hold_id: HoldId | None
    price_credits: int
    graph: str
    deadline: datetime
    input_digest: str
    live: bool = False
    session_id: str | None = None
    seq: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FundJob:
    """The payment is promised (`hold_id` None), or here and held as credits."""

    payment_id: str
    hold_id: HoldId | None
    deadline: datetime
    """Until when it has to be painted from now on."""


@dataclass(frozen=True, slots=True)
class StartJob:
    """A worker has leased the job."""

    lease: Lease


@dataclass(frozen=True, slots=True, kw_only=True)
class EndAttempt:
    """An attempt gave no image: the worker failed, gave the job back, or was not heard of any more."""

    lease: Lease
    kind: str
    """`FailureKind`, or another word of the worker's: final, as `input` is."""
    code: str
    node: str | None = None
    """The graph's node that failed, where the worker knows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompleteJob:
    """A worker's image was verified."""

    lease: Lease
    sha256: str
    size_bytes: int
    width: int
    height: int
    gpu_milliseconds: int


@dataclass(frozen=True, slots=True)
class ConcludeSettlement:
    """The payment of a `settling` job is settled. `refusal` is the code if its credits could not be held."""

    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class FailSettlement:
    """The payment of a `settling` job has gone back."""


@dataclass(frozen=True, slots=True)
class CancelJob:
    """The person does not want it any more."""


@dataclass(frozen=True, slots=True)
class StopPausedJob:
    """Its live session is paused: what waits is cancelled."""


@dataclass(frozen=True, slots=True)
class SupersedeJob:
    """A newer frame of its session asks for its place and its hold."""

    by_job: JobId


@dataclass(frozen=True, slots=True)
class ExpireJob:
    """Its deadline may have passed."""


@dataclass(frozen=True, slots=True)
class BlockJob:
    """Moderation refused it: `stage` is `prompt` or `image`. With a lease it is a worker's report."""

    stage: str
    category: str
    lease: Lease | None = None


@dataclass(frozen=True, slots=True)
class FailJob:
    """It cannot be made: its inputs were erased, or nobody pays."""

    reason: str
    kind: FailureKind


JobCommand: TypeAlias = (
    RequestJob
    | FundJob
    | StartJob
    | EndAttempt
    | CompleteJob
    | ConcludeSettlement
    | FailSettlement
    | CancelJob
    | StopPausedJob
    | SupersedeJob
    | ExpireJob
    | BlockJob
    | FailJob
)
