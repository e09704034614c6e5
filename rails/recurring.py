"""The contract of a rail that charges again by itself: subscriptions.

As with payments, the rail emits facts and the core decides. `subscribe` opens a page; afterwards
`observe_subscription` answers with everything the rail knows now. Each invoice of a subscription is a
payment request of its own: `observe` of its reference answers with its money. What changes a
subscription returns nothing: whoever asked for it asks for the truth next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol, runtime_checkable

from ledger.identifiers import AccountId
from ledger.money import Money
from rails.contract import Instructions, RailError


class SubscriptionStatus(StrEnum):
    """How a subscription stands. Stored."""

    OPENING = "opening"
    """The page to subscribe on is open, and nobody has paid there."""
    INCOMPLETE = "incomplete"
    """The first invoice was tried and is not paid."""
    ACTIVE = "active"
    TRIALING = "trialing"
    PAST_DUE = "past_due"
    """A renewal failed and is tried again."""
    UNPAID = "unpaid"
    """A renewal failed for good; the subscription is kept until it is paid or ended."""
    PAUSED = "paused"
    """Nothing is collected until it is resumed."""
    ENDED = "ended"
    EXPIRED = "expired"
    """It never began: the page was left, or the first invoice stayed unpaid."""


OVER = (SubscriptionStatus.ENDED, SubscriptionStatus.EXPIRED)
"""Nothing comes after these."""


class ChangeRefused(RailError):
    """The rail understood a change of a subscription and refuses it; nothing was done."""

    code = "subscription_change_refused"
    message = "The payment provider refuses this change; nothing was changed."


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A plan for a length of time, under the names that the rail's catalogue has for both."""

    plan: str
    length: str
    """`month` or `year`."""

    @property
    def months(self) -> int:
        """How long it is, in months."""
        return 12 if self.length == "year" else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionOrder:
    """What the core asks a rail to open a page to subscribe for."""

    subscription_id: str
    """Ours; the rail gives it back with everything that it says of the subscription."""
    account_id: AccountId
    offer: Offer
    expires_at: datetime
    return_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceLine:
    """What an invoice asks money for."""

    offer: Offer | None
    """None: it is for something else than a plan of ours."""
    starts_at: datetime
    ends_at: datetime
    proration: bool
    """A part of a period, because of a change."""
    amount_minor: int
    """Negative for a credit."""
    overage_credits: int = 0
    """Credits that were used beyond a plan in that time, which this line bills."""


class InvoiceStatus(StrEnum):
    """Whether an invoice is paid."""

    OPEN = "open"
    PAID = "paid"
    SET_ASIDE = "set_aside"
    """A draft, void or given up: nobody collects it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoice:
    """One invoice of a subscription."""

    reference: str
    status: InvoiceStatus
    due: Money
    """What is asked of the payer, after credits that the rail kept for them."""
    price: Money
    """What that pays for: `due` before discounts and without tax on top of it."""
    created_at: datetime
    lines: Sequence[InvoiceLine]
    next_attempt_at: datetime | None = None
    """When an open one is collected again."""
    pay_url: str | None = None
    """The page where the payer pays an open one with another card, or confirms with the bank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionObservation:
    """Everything the rail knows now about one subscription. Asking twice changes nothing."""

    subscription_id: str
    """Ours, as the order gave it."""
    status: SubscriptionStatus
    reference: str | None = None
    """The rail's own name of the subscription; None until there is one."""
    offer: Offer | None = None
    """What is charged for now."""
    period_start: datetime | None = None
    period_end: datetime | None = None
    cancels: bool = False
    """It ends with its period."""
    next_offer: Offer | None = None
    """What is charged for from the next period on, if that is something else."""
    pending_offer: Offer | None = None
    """A change that takes effect if its open invoice is paid."""
    overage: Money | None = None
    """What it bills for each credit that is used beyond the plan; None if it bills none."""
    invoices: Sequence[Invoice] = ()
    """The newest, oldest first; drafts are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangePreview:
    """What a change would cost, asked of the rail. It charges exactly this if asked for with the same time."""

    due_now: Money
    due_next: Money
    """With the invoice of the next period."""
    next_at: datetime
    """When that is. Another length begins a period anew: then it is the end of the new one."""
    at: datetime
    """The time by which parts of periods are counted."""


@runtime_checkable
class Recurring(Protocol):
    """A rail that charges again by itself. All calls may raise `RailUnavailable`."""

    async def subscribe(self, order: SubscriptionOrder) -> Instructions:
        """Open a page to subscribe on. Idempotent by `order.subscription_id`."""

    def is_subscription(self, reference: str) -> bool:
        """Whether a notification's reference names a subscription, or the page to subscribe on."""

    async def observe_subscription(self, reference: str) -> SubscriptionObservation | None:
        """The truth about a subscription or the page to subscribe on; None if it is none of ours."""

    async def close_subscribing(self, reference: str) -> None:
        """Close the page to subscribe on, if it is still open."""

    async def preview_change(self, reference: str, offer: Offer, *, now: bool) -> ChangePreview:
        """What the change would cost, at once or from the next period on. Raises `ChangeRefused`."""

    async def change_plan(self, reference: str, offer: Offer, *, at: datetime | None, key: str) -> None:
        """Change at once, prorated as of `at`; or, with None, from the next period on. Once per `key`.

        A change that needs money takes effect when it is paid. At once another length begins a period anew, and
        what is left of the old one is credited on its invoice. Raises `ChangeRefused`.
        """

    async def cancel_subscription(self, reference: str) -> None:
        """Let it end with its period, and forget what was scheduled. Raises `ChangeRefused`."""

    async def resume_subscription(self, reference: str) -> None:
        """Take back what was scheduled: a cancellation, another plan. Raises `ChangeRefused`."""

    async def portal(self, reference: str, return_url: str) -> str:
        """A page of the rail for the payer: card, invoices, cancel. Raises `ChangeRefused`."""
