"""What can be asked for: a wish for an image, and the answer to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from generation.funding import Opened
from generation.images import Sketch
from generation.queue import Tier
from generation.quotas import NetworkQuota
from ledger.identifiers import AccountId, CommandKey, HoldId, JobId

PIXELS_PER_CREDIT = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on waiting work."""

    job_seconds: int = 600
    """How long a job may wait and run before it expires, with its hold."""
    queue_max: int = 20_000
    session_credits_max: int = 500
    variations_max: int = 16
    """Variations per live session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """One request for an image, validated. `job_id`, `hold_id` and `key` come with it so that
    the same request always means the same job.
    """

    key: CommandKey
    job_id: JobId
    hold_id: HoldId
    account_id: AccountId
    tier: Tier
    prompt: str
    sketch: Sketch
    seed: int
    strength_permille: int
    live: bool = False
    session_id: str | None = None
    seq: int | None = None
    variation: bool = False
    """One of the few pictures beside a session's frames: it stands behind them and replaces nothing."""
    session_cap: int | None = None
    """The person's own spending limit for this session, in credits; never above ours."""
    funding: str | None = None
    """How it is paid, if a payment is made for it alone; None takes credits."""
    networks: tuple[NetworkQuota, ...] = field(default=())
    repeated: bool = False
    """Whether the client has sent this before, as far as we know."""


class Accepted(NamedTuple):
    """The answer to a wish. `opened` says how to pay where a payment is made for it alone."""

    job_id: JobId
    state: str
    price_credits: int
    opened: Opened | None = None


def price_of(width: int, height: int) -> int:
    """Credits for an image of this size in pixels: one per started megapixel of 1024 × 1024."""
    return max(1, -(-width * height // PIXELS_PER_CREDIT))
