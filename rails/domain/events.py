"""What can have happened to a payment. Amounts are what arrived, never what was asked.

Events about money carry `asked_at`: when the rail was asked, so that an answer that is older
than what is known cannot undo it. No addresses, invoices or names: those live in side tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from ledger.domain.consideration import Worth
from ledger.log.model import Event
from ledger.money import Money, Rate
from rails.breakdown import Breakdown
from rails.domain.invoiced import Invoiced
from rails.domain.pricing import PackPrice
from rails.domain.purchases import Bought, Purchase


class PaymentOpened(Event, frozen=True, kw_only=True):
    """Someone wants to pay: the intent, stored before the rail is asked for anything."""

    account_id: str
    rail: str
    ordinal: int
    amount_due: Money
    credits: int
    """What `amount_due` buys by the quote, or what `purchase` brings."""
    price: PackPrice
    rate: Rate
    rate_source: str
    quote_expires_at: datetime
    attempt_of: str | None = None
    """The first payment of the same top-up, if the payer switched to another rail."""
    hold: bool = False
    job_id: str | None = None
    """Set when this pays for one job alone."""
    link: str | None = None
    """Digest of the link by which somebody who need not be the account's owner opened it."""
    invoiced: Invoiced | None = None
    """What the rail invoiced, if it charges again by itself."""
    purchase: Purchase | None = None
    """What `amount_due` buys, if not credits by the quote. What falls short or is left over becomes
    credits at `price`."""
    charged: bool = False
    """Whether a saved payment method is charged for it, without its payer."""


class InstructionsIssued(Event, frozen=True, kw_only=True):
    """The rail opened a payment request."""

    reference_digest: str
    """SHA-256 of the rail's reference, in hexadecimal."""


class FundsSeen(Event, frozen=True, kw_only=True):
    """Money is on its way; it may still vanish."""

    money_ref: str
    amount: Money
    first_seen_at: datetime
    asked_at: datetime
    breakdown: Breakdown | None = None
    """How `amount` came about, where a discount or tax is in it."""


class FundsHeld(Event, frozen=True, kw_only=True):
    """Money is locked for us until captured or released."""

    money_ref: str
    amount: Money
    first_seen_at: datetime
    asked_at: datetime
    held_until: datetime | None = None
    """Until when it can surely be captured, where the rail says so."""
    breakdown: Breakdown | None = None
    """How `amount` came about, where a discount or tax is in it."""


class FundsReleased(Event, frozen=True, kw_only=True):
    """Held money went back to its payer. It was never ours."""

    money_ref: str
    asked_at: datetime


class FundsVanished(Event, frozen=True, kw_only=True):
    """Money that was on its way never arrived."""

    money_ref: str
    asked_at: datetime


class FundsMismatched(Event, frozen=True, kw_only=True):
    """Money of another asset than asked arrived. It waits in suspense."""

    money_ref: str
    amount: Money
    first_seen_at: datetime
    asked_at: datetime
    fee: Money | None = None
    external_ref: str | None = msgspec.field(default=None, name="proof")
    breakdown: Breakdown | None = None
    """How `amount` came about, where a discount or tax is in it."""


class FundsTooSmall(Event, frozen=True, kw_only=True):
    """Money worth less than one credit arrived. It waits in suspense."""

    money_ref: str
    amount: Money
    first_seen_at: datetime
    asked_at: datetime
    fee: Money | None = None
    external_ref: str | None = msgspec.field(default=None, name="proof")
    breakdown: Breakdown | None = None
    """How `amount` came about, where a discount or tax is in it."""


class FundsUnpriced(Event, frozen=True, kw_only=True):
    """Money arrived while no rate was fresh. It is granted when a rate returns."""

    money_ref: str
    amount: Money
    first_seen_at: datetime
    asked_at: datetime
    fee: Money | None = None
    external_ref: str | None = msgspec.field(default=None, name="proof")
    breakdown: Breakdown | None = None
    """How `amount` came about, where a discount or tax is in it."""


class FundsShort(Event, frozen=True, kw_only=True):
    """Money arrived that does not cover the price of what it is for. It waits for the rest."""

    money_ref: str
    amount: Money
    first_seen_at: datetime
    asked_at: datetime
    fee: Money | None = None
    external_ref: str | None = msgspec.field(default=None, name="proof")
    breakdown: Breakdown | None = None
    """How `amount` came about, where a discount or tax is in it."""


class PaymentSettled(Event, frozen=True, kw_only=True):
    """One funds receipt is ours, and its credits are granted in the same transaction."""

    money_ref: str
    amount: Money
    credits: int
    lot_id: str
    rate: Rate
    rate_basis: str
    """`quote` (first seen in time), `spot` (the rate at crediting) or `assigned` (an operator named the credits)."""
    worth: Worth
    """Net, tax and rail fee of `amount`, and its value at receipt in US cents, rounded down."""
    first_seen_at: datetime
    asked_at: datetime
    fee: Money | None = None
    external_ref: str | None = msgspec.field(default=None, name="proof")
    reason: str = ""
    """Why, if an operator decided it."""
    bought: Bought | None = None
    """The part that bought what the payment is for; `credits` and `worth` include it."""
    breakdown: Breakdown | None = None
    """How `amount` came about, where a discount or tax is in it."""

    @property
    def covers_minor(self) -> int:
        """How much of what was asked it pays for."""
        return self.amount.minor if self.breakdown is None else self.breakdown.price_minor

    @property
    def plain_credits(self) -> int:
        """Credits at the price of plain ones, in the lot `lot_id`."""
        return self.credits - (0 if self.bought is None else self.bought.credits)


class FeeReported(Event, frozen=True, kw_only=True):
    """The rail named its fee after the money had settled."""

    money_ref: str
    fee: Money


class CostsReported(Event, frozen=True, kw_only=True):
    """The rail took something for this money beside its fee, or gave such back."""

    money_ref: str
    costs: Money
    """Everything of the kind that is taken now."""
    asked_at: datetime


class TakenPart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a reversal takes out of one lot."""

    reversal_id: str
    lot_id: str
    credits: int
    worth: Worth
    bought: bool = False
    """Whether it is of the payment's purchase."""


class RestoredPart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a won dispute brings back, as a lot of its own."""

    reversal_id: str
    lot_id: str
    credits: int
    worth: Worth
    bought: bool = False
    """Whether it is of the payment's purchase."""


class PaymentReversed(Event, frozen=True, kw_only=True):
    """Money was taken back, wholly or in part."""

    money_ref: str
    taken: Money
    """Everything taken back so far."""
    parts: tuple[TakenPart, ...] = ()
    """The credits that this event takes back; none if the money was in suspense."""
    asked_at: datetime


class PaymentReinstated(Event, frozen=True, kw_only=True):
    """Money that had been taken back is ours again (a failed refund, a block found again)."""

    money_ref: str
    taken: Money
    """What is still taken back."""
    lot_id: str
    credits: int
    """Credits that this event gives back, as a lot of their own."""
    worth: Worth
    rate: Rate
    """The rate at which they were first credited."""
    asked_at: datetime


class DisputeOpened(Event, frozen=True, kw_only=True):
    """The payer's bank withdrew the money while a dispute is open."""

    money_ref: str
    taken: Money
    parts: tuple[TakenPart, ...] = ()
    asked_at: datetime
    evidence_due_by: datetime | None = None


class DisputeWon(Event, frozen=True, kw_only=True):
    """The dispute ended for us; the money is back."""

    money_ref: str
    taken: Money
    """What is still taken back for other reasons."""
    parts: tuple[RestoredPart, ...] = ()
    asked_at: datetime


class DisputeLost(Event, frozen=True, kw_only=True):
    """The dispute ended against us; nothing more moves."""

    money_ref: str
    reversal_ids: tuple[str, ...] = ()
    asked_at: datetime


class PaymentExpired(Event, frozen=True, kw_only=True):
    """The time to pay ran out, or the payment request was closed. Late money still finds its payment."""

    closed: bool = False


class PaymentDeclined(Event, frozen=True, kw_only=True):
    """The payer tried and was refused."""

    decline_code: str


class RefundRequested(Event, frozen=True, kw_only=True):
    """Money is to be sent back. The credits that it bought are held in the same transaction, if it bought any."""

    refund_id: str
    account_id: str
    """Whose credits are held: they are answered for there, also if it is merged meanwhile."""
    money_ref: str
    amount: Money
    credits: int = 0
    """Held for it; none for money that waited in suspense."""
    lot_id: str = ""
    worth: Worth = Worth()
    """What was paid for those credits."""
    lot_priority: int = 0
    lot_expires_at: datetime | None = None
    requested_at: datetime
    by_hand: bool = False
    """The rail cannot send: an operator does, and says so."""
    reason: str
    """A short code or sentence without personal data."""


class RefundUnresolved(Event, frozen=True, kw_only=True):
    """The rail could not say whether it was sent: it is asked again."""

    refund_id: str


class RefundConfirmed(Event, frozen=True, kw_only=True):
    """The money has left; its credits are gone."""

    refund_id: str
    cost: Money | None = None
    """What sending it took beside the amount, where the rail says so."""
    external_ref: str | None = None
    """Where an accountant finds it, if an operator named it."""


class RefundRejected(Event, frozen=True, kw_only=True):
    """It was not sent; its credits are back."""

    refund_id: str
    reason: str = ""
    """Why, if an operator says so."""


class RefundReturned(Event, frozen=True, kw_only=True):
    """It had been sent and came back later; its credits are granted again, as a lot of their own."""

    refund_id: str
    money_ref: str
    lot_id: str
    credits: int
    worth: Worth
    rate: Rate
    """The rate at which they were first credited."""
    priority: int
    expires_at: datetime | None = None
    asked_at: datetime


EVENTS: Mapping[str, type[Event]] = {
    "rails.payment_opened.v1": PaymentOpened,
    "rails.instructions_issued.v1": InstructionsIssued,
    "rails.funds_seen.v1": FundsSeen,
    "rails.funds_held.v1": FundsHeld,
    "rails.funds_released.v1": FundsReleased,
    "rails.funds_vanished.v1": FundsVanished,
    "rails.funds_mismatched.v1": FundsMismatched,
    "rails.funds_too_small.v1": FundsTooSmall,
    "rails.funds_unpriced.v1": FundsUnpriced,
    "rails.funds_short.v1": FundsShort,
    "rails.payment_settled.v1": PaymentSettled,
    "rails.fee_reported.v1": FeeReported,
    "rails.costs_reported.v1": CostsReported,
    "rails.payment_reversed.v1": PaymentReversed,
    "rails.payment_reinstated.v1": PaymentReinstated,
    "rails.dispute_opened.v1": DisputeOpened,
    "rails.dispute_won.v1": DisputeWon,
    "rails.dispute_lost.v1": DisputeLost,
    "rails.payment_expired.v1": PaymentExpired,
    "rails.payment_declined.v1": PaymentDeclined,
    "rails.refund_requested.v1": RefundRequested,
    "rails.refund_unresolved.v1": RefundUnresolved,
    "rails.refund_confirmed.v1": RefundConfirmed,
    "rails.refund_rejected.v1": RefundRejected,
    "rails.refund_returned.v1": RefundReturned,
}
"""Stored names, for ever."""
