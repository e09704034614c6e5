"""What is known about a payment, folded from its events. Pure, and never refuses a fact."""

from __future__ import annotations

import msgspec

from ledger.errors import Refusal
from ledger.log.model import Category, Event
from rails.domain import events
from rails.domain.receipts import ReceiptRecord, ReceiptStatus, evolve_receipt


class PaymentNotFound(Refusal):
    """The payment's stream never began."""

    code = "payment_not_found"
    message = "There is no such payment."


class Payment(msgspec.Struct, frozen=True, kw_only=True):
    """Everything known about one payment."""

    opened: events.PaymentOpened | None = None
    reference_digest: str | None = None
    receipts: dict[str, ReceiptRecord] = {}
    quoted_minor: int = 0
    """All money ever credited at the quote's rate."""
    quoted_credits: int = 0
    """All credits ever granted at the quote's rate."""
    expired: bool = False
    closed: bool = False
    decline_code: str | None = None

    def facts(self) -> events.PaymentOpened:
        """What was asked. Raises `PaymentNotFound` if the stream is empty."""
        if self.opened is None:
            raise PaymentNotFound
        return self.opened


def evolve(payment: Payment, event: Event) -> Payment:
    """Fold one fact. Never refuses."""
    match event:
        case events.PaymentOpened():
            return msgspec.structs.replace(payment, opened=event)
        case events.InstructionsIssued(reference_digest=digest):
            return msgspec.structs.replace(payment, reference_digest=digest)
        case events.PaymentExpired(closed=closed):
            return msgspec.structs.replace(payment, expired=True, closed=payment.closed or closed)
        case events.PaymentDeclined(decline_code=code):
            return msgspec.structs.replace(payment, decline_code=code)
        case _:
            return _evolve_money(payment, event)


def _evolve_money(payment: Payment, event: Event) -> Payment:
    money_ref: str | None = getattr(event, "money_ref", None)
    if money_ref is None:
        return payment
    receipt = evolve_receipt(payment.receipts.get(money_ref), event)
    if receipt is None:
        return payment
    changed = msgspec.structs.replace(payment, receipts={**payment.receipts, money_ref: receipt})
    if isinstance(event, events.PaymentSettled) and event.rate_basis == "quote":
        return msgspec.structs.replace(
            changed,
            quoted_minor=payment.quoted_minor + event.amount.minor,
            quoted_credits=payment.quoted_credits + event.credits,
        )
    return changed


def may_expire(payment: Payment) -> bool:
    """A payment expires once, and never after it was paid in full."""
    due = payment.facts().amount_due
    return not payment.expired and arrived_minor(payment, due.asset.code) < due.minor


def arrived_minor(payment: Payment, asset_code: str) -> int:
    """What arrived or is on its way in one asset, and was not taken back, in minor units."""
    gone = (ReceiptStatus.RELEASED, ReceiptStatus.VANISHED)
    return sum(
        receipt.amount.minor - receipt.taken_minor
        for receipt in payment.receipts.values()
        if receipt.amount.asset.code == asset_code and receipt.status not in gone
    )


PAYMENTS: Category[Payment] = Category(prefix="pay", events=events.EVENTS, initial=Payment(), evolve=evolve)
"""The kind of stream that a payment is."""
