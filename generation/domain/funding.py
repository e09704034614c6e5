"""A payment made for one job alone: what generation asks of whoever takes the money. A port.

    awaiting_payment → queued → running → settling → completed

Three ends only: the money is settled and the image shown in one transaction; the money goes back and
nothing is charged; or it was settled for a job that can no longer be served, and stays as a credit.
While nobody knows, the image is withheld.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from generation.domain.errors import GenerationError
from ledger.identifiers import AccountId, JobId
from ledger.log.model import SideTable, UnitOfWork


class FundingUnavailable(GenerationError):
    """Whoever takes the money does not answer; ask again."""

    code = "funding_unavailable"
    message = "Whether the payment is good cannot be known right now."


class FundingState(StrEnum):
    """What is so about the money."""

    WAITING = "waiting"
    HELD = "held"
    """Promised and reserved: it can be settled or released."""
    SETTLED = "settled"
    """Ours; its credits are on the account."""
    FAILED = "failed"
    """It is not coming, or has gone back."""
    UNKNOWN = "unknown"


class Looked(NamedTuple):
    """What is known about a payment."""

    state: FundingState
    held_until: datetime | None = None
    """Of held money: when it goes back by itself, as far as can be foreseen, with a margin. None: not known to."""


@dataclass(frozen=True, slots=True)
class FundingOrder:
    """What is to be paid, and what for."""

    job_id: JobId
    account_id: AccountId
    method: str
    price_credits: int


class Opened(NamedTuple):
    """A payment request: our reference to it, and what the payer is shown (JSON)."""

    reference: str
    instructions: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Within:
    """What is decided in the very transaction that records the settlement and grants its credits.

    `decide` gets the lots that this payment granted, newest first; it must not refuse. It may run
    when the settlement was recorded before.
    """

    streams: Sequence[str]
    rows: Sequence[tuple[SideTable, str]]
    decide: Callable[[UnitOfWork, Sequence[str]], None]


class Funding(Protocol):
    """Takes money for one job. Everything may raise `FundingUnavailable` and may be repeated."""

    async def open(self, order: FundingOrder) -> Opened:
        """A payment request for this job; the same one again however often it is asked for."""

    async def retract(self, order: FundingOrder) -> str | None:
        """What was opened for this order, whether or not anybody learnt of it. None: nothing, and nothing ever will."""

    async def look(self, reference: str) -> Looked:
        """What is known now, without asking outside."""

    async def settle(self, reference: str, within: Within) -> FundingState:
        """Take held money: `SETTLED` with `within` decided, `FAILED`, or `UNKNOWN`."""

    async def release(self, reference: str) -> FundingState:
        """Give it back: `FAILED` (nothing kept), `SETTLED` (it was ours already), or `UNKNOWN`."""
