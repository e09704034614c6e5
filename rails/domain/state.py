"""What is known about a payment, folded from its events. Pure, and never refuses a fact."""

from __future__ import annotations

from datetime import timedelta

import msgspec

from ledger.errors import Refusal
from ledger.log.model import Category, Event
from rails.domain import events
from rails.domain.receipts import ReceiptRecord, ReceiptStatus, evolve_receipt
from rails.domain.refunding import RefundRecord, evolve_refund

LATE_GRACE = timedelta(minutes=60)
"""Money first seen this long after a quote's expiry still gets the quote's rate."""


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
    """All that was ever credited at the quote's rate, of what was asked."""
    quoted_credits: int = 0
    """All credits ever granted at the quote's rate."""
    purchases: int = 0
    """How often what the payment is for was granted."""
    expired: bool = False
    closed: bool = False
    decline_code: str | None = None
    refunds: dict[str, RefundRecord] = {}
    """What was sent back, or is to be, by its id, oldest first."""

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
        case (
            events.RefundRequested()
            | events.RefundUnresolved()
            | events.RefundConfirmed()
            | events.RefundRejected()
            | events.RefundReturned()
        ):
            changed = msgspec.structs.replace(payment, refunds=evolve_refund(payment.refunds, event))
            return _evolve_money(changed, event)
        case _:
            return _evolve_money(payment, event)


def _evolve_money(payment: Payment, event: Event) -> Payment:
    if isinstance(event, events.RefundConfirmed):
        return _sent_back(payment, event.refund_id)
    money_ref: str | None = getattr(event, "money_ref", None)
    if money_ref is None:
        return payment
    receipt = evolve_receipt(payment.receipts.get(money_ref), event)
    if receipt is None:
        return payment
    changed = msgspec.structs.replace(payment, receipts={**payment.receipts, money_ref: receipt})
    if isinstance(event, events.PaymentSettled) and event.bought is not None:
        lot_id = event.bought.lot_id
        known = any(r.bought and r.bought.lot_id == lot_id for r in payment.receipts.values())
        return changed if known else msgspec.structs.replace(changed, purchases=payment.purchases + 1)
    if isinstance(event, events.PaymentSettled) and event.rate_basis == "quote":
        return msgspec.structs.replace(
            changed,
            quoted_minor=payment.quoted_minor + event.covers_minor,
            quoted_credits=payment.quoted_credits + event.credits,
        )
    return changed


def _sent_back(payment: Payment, refund_id: str) -> Payment:
    refund = payment.refunds.get(refund_id)
    receipt = None if refund is None else payment.receipts.get(refund.asked.money_ref)
    if refund is None or receipt is None:
        return payment
    asked = refund.asked
    less = receipt.refunded(asked.lot_id, asked.credits, asked.amount.minor)
    return msgspec.structs.replace(payment, receipts={**payment.receipts, asked.money_ref: less})


def may_expire(payment: Payment) -> bool:
    """A payment expires once, and never after it was paid in full."""
    due = payment.facts().amount_due
    return not payment.expired and arrived_minor(payment, due.asset.code) < due.minor


def arrived_minor(payment: Payment, asset_code: str) -> int:
    """What arrived or is on its way of what was asked in one asset, and was not taken back, in minor units."""
    gone = (ReceiptStatus.RELEASED, ReceiptStatus.VANISHED)
    return sum(
        receipt.covers_left()
        for receipt in payment.receipts.values()
        if receipt.amount.asset.code == asset_code and receipt.status not in gone
    )


PAYMENTS: Category[Payment] = Category(prefix="pay", events=events.EVENTS, initial=Payment(), evolve=evolve)
"""The kind of stream that a payment is."""
