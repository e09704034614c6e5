"""What can be asked for: a request for an image, and the answer to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from generation.domain.fairness import Tier
from generation.domain.funding import FundingOrder, Opened
from generation.domain.quotas import QuotasOf, nowhere
from generation.domain.sessions import SessionLimits
from generation.domain.sketches import Sketch
from ledger.identifiers import AccountId, CommandKey, HoldId, JobId

PIXELS_PER_CREDIT = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on waiting work."""

    job_seconds: int = 600
    """How long a job may wait and run before it expires, with its hold."""
    queue_max: int = 20_000
    """Jobs that may wait for a worker; and likewise, jobs that are paid by payments of their own."""
    paid_apart_account: int = 8
    """Images of one account that may wait for payments of their own, or be made for them. Each holds back its payer's
    money, and a place with everybody on the way."""
    paid_apart_networks: tuple[int, int] = (60, 240)
    """The same of one address and of one site, asked for within `job_seconds`, whatever has become of them."""
    paid_apart: int = 400
    """The same of everybody."""
    session_credits_max: int = 500
    variations_max: int = 16
    """Variations per live session."""

    @property
    def of_session(self) -> SessionLimits:
        """Those that bound one live session."""
        return SessionLimits(self.session_credits_max, self.variations_max)


SKETCH_GRAPH = "sketch@1"
"""The graph that ships with the worker and is sold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One request for an image, validated. `job_id`, `hold_id` and `key` come with it so that
    the same request always means the same job.
    """

    key: CommandKey
    job_id: JobId
    hold_id: HoldId
    account_id: AccountId
    tier: Tier | None = None
    """How it is served; None goes by the account's plan."""
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
    networks: QuotasOf = nowhere
    """Where its free images are counted, on the day on which it is decided."""
    graph: str = SKETCH_GRAPH
    """What workers run for it."""
    sent_digest: str = ""
    """Keyed digest of what the client sent under a key of its own; empty if it gave none."""

    @property
    def price(self) -> int:
        """In credits."""
        return price_of(self.sketch.width, self.sketch.height)

    @property
    def session_key(self) -> str | None:
        """The name of its session's row; None if it is neither a frame nor a variation."""
        in_session = self.session_id is not None and (self.live or self.variation)
        return session_key(self.account_id, self.session_id) if in_session else None

    def order(self) -> FundingOrder:
        """What is to be paid, where a payment is made for it alone."""
        return FundingOrder(self.job_id, self.account_id, self.funding or "", self.price)


class Accepted(NamedTuple):
    """The answer to a request. `opened` says how to pay where a payment is made for it alone."""

    job_id: JobId
    state: str
    price_credits: int
    opened: Opened | None = None
    rank: int | None = None
    """Where it stands in line, if it has just got its place."""


def price_of(width: int, height: int) -> int:
    """Credits for an image of this size in pixels: one per started megapixel of 1024 × 1024."""
    return max(1, -(-width * height // PIXELS_PER_CREDIT))


def session_key(account_id: str, session_id: str | None) -> str:
    """The name of a session's row. `session_id` is the digest that jobs carry."""
    return f"{account_id}/{session_id}"
