"""What happens to a job. Ids, amounts and digests only; prompts and sketches live elsewhere."""

from __future__ import annotations

from datetime import datetime

from ledger.identifiers import AccountId, HoldId, JobId
from ledger.log.model import Event


class JobRequested(Event, frozen=True, kw_only=True):
    """Somebody asked for an image. Funded by a hold on credits, or still to be paid."""

    account_id: AccountId
    hold_id: HoldId | None = None
    price_credits: int
    graph: str
    deadline: datetime
    input_digest: str
    """Keyed digest of prompt, sketch and parameters (hex)."""
    live: bool = False
    session_id: str | None = None
    seq: int | None = None


class JobFunded(Event, frozen=True, kw_only=True):
    """The payment that this job waited for is held or here; the job is queued."""

    payment_id: str
    hold_id: HoldId | None = None
    deadline: datetime | None = None
    """From now on, instead of the one until which it was to be paid; None in events from before."""


class JobStarted(Event, frozen=True, kw_only=True):
    """A worker took the job."""

    worker_id: str
    epoch: int


class JobRequeued(Event, frozen=True, kw_only=True):
    """The attempt ended without a result and the job waits again."""

    worker_id: str
    epoch: int
    reason: str
    counts: bool = True
    """Whether it was a failed attempt; a worker that gives its work back did not fail."""
    node: str | None = None
    """The graph's node that failed, where the worker knows it."""


class JobSettling(Event, frozen=True, kw_only=True):
    """The image is there and verified; the payment made for it alone is being settled."""

    worker_id: str
    epoch: int
    sha256: str
    size_bytes: int


class JobCompleted(Event, frozen=True, kw_only=True):
    """The image was verified and delivered, and its credits were captured."""

    worker_id: str
    epoch: int
    sha256: str
    """Digest of the delivered file (hex)."""
    size_bytes: int
    width: int
    height: int
    gpu_milliseconds: int
    captured_credits: int


class JobFailed(Event, frozen=True, kw_only=True):
    """No image, no charge."""

    reason: str
    failure: str
    """`input`, `infrastructure`, `poison`."""


class JobCancelled(Event, frozen=True, kw_only=True):
    """The person who asked does not want it any more. No charge."""

    by: str


class JobSuperseded(Event, frozen=True, kw_only=True):
    """A newer frame of the same live session took its place. No charge."""

    by_job: JobId


class JobExpired(Event, frozen=True, kw_only=True):
    """Nobody could paint it before its deadline. No charge."""


class JobBlocked(Event, frozen=True, kw_only=True):
    """The moderation check refused it. No charge."""

    stage: str
    """`prompt` or `image`."""
    category: str


EVENTS: dict[str, type[Event]] = {
    "generation.job_requested.v1": JobRequested,
    "generation.job_funded.v1": JobFunded,
    "generation.job_started.v1": JobStarted,
    "generation.job_requeued.v1": JobRequeued,
    "generation.job_settling.v1": JobSettling,
    "generation.job_completed.v1": JobCompleted,
    "generation.job_failed.v1": JobFailed,
    "generation.job_cancelled.v1": JobCancelled,
    "generation.job_superseded.v1": JobSuperseded,
    "generation.job_expired.v1": JobExpired,
    "generation.job_blocked.v1": JobBlocked,
}
