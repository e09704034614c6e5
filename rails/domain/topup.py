"""A payment as its payer sees it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import msgspec

from ledger.money import Money, Rate
from rails.breakdown import Breakdown
from rails.domain.pricing import credits_down
from rails.domain.purchases import PackSold, Purchase
from rails.domain.receipts import ReceiptRecord, ReceiptStatus
from rails.domain.refunding import RefundState
from rails.domain.state import LATE_GRACE, Payment, arrived_minor

WATCH_AFTER_EXPIRY = timedelta(hours=3)
"""How long after its quote a payment is still asked about unbidden; notifications count for ever."""

WATCH_UNDER_WAY = timedelta(days=30)
"""The same while money is under way or waits for a rate."""


class TopupState(StrEnum):
    """The public states."""

    OPENING = "opening"
    WAITING = "waiting"
    SEEN = "seen"
    UNDERPAID = "underpaid"
    PAID = "paid"
    EXPIRED = "expired"
    DECLINED = "declined"
    SUSPENSE = "suspense"
    UNPRICED = "unpriced"
    REVERSED = "reversed"
    DISPUTED = "disputed"


_ON_ITS_WAY = (ReceiptStatus.SEEN, ReceiptStatus.HELD)
_HERE = (ReceiptStatus.SETTLED, ReceiptStatus.SHORT)
_SUSPENDED = (ReceiptStatus.MISMATCHED, ReceiptStatus.TOO_SMALL)


def topup_state(payment: Payment) -> TopupState:
    """The one word that matters most to the payer now."""
    receipts = payment.receipts.values()
    statuses = {receipt.status for receipt in receipts}
    if ReceiptStatus.DISPUTED in statuses:
        return TopupState.DISPUTED
    if ReceiptStatus.UNPRICED in statuses:
        return TopupState.UNPRICED
    if any(status in statuses for status in (*_ON_ITS_WAY, *_HERE)):
        return _by_amount(payment, statuses)
    if any(is_suspended(receipt) for receipt in receipts):
        return TopupState.SUSPENSE
    if ReceiptStatus.REVERSED in statuses or any(r.taken_minor or r.refunded_minor for r in receipts):
        return TopupState.REVERSED
    if payment.expired:
        return TopupState.EXPIRED
    if payment.decline_code is not None:
        return TopupState.DECLINED
    return TopupState.OPENING if payment.reference_digest is None else TopupState.WAITING


def is_suspended(receipt: ReceiptRecord) -> bool:
    """Whether it is money that waits for somebody to decide."""
    gone = receipt.taken_minor or receipt.refunded_minor >= receipt.amount.minor > 0
    return receipt.status in _SUSPENDED and not gone


def _by_amount(payment: Payment, statuses: set[ReceiptStatus]) -> TopupState:
    due = payment.facts().amount_due
    gross = sum(
        receipt.covers_minor
        for receipt in payment.receipts.values()
        if receipt.status in (*_ON_ITS_WAY, *_HERE) and receipt.amount.asset == due.asset
    )
    accepted = any(
        receipt.status is ReceiptStatus.SETTLED and receipt.amount.asset != due.asset
        for receipt in payment.receipts.values()
    )
    if gross < due.minor and not accepted and _is_worth_asking_for(payment, due.minor - gross):
        return TopupState.UNDERPAID
    return TopupState.SEEN if statuses & set(_ON_ITS_WAY) else TopupState.PAID


def _is_worth_asking_for(payment: Payment, rest: int) -> bool:
    """A rest that would buy no credit is forgiven, such as what an exchange takes out of what it sends. What is
    bought as a whole wants its whole price."""
    facts = payment.facts()
    if facts.purchase is not None or facts.invoiced is not None:
        return True
    return credits_down(Money(rest, facts.amount_due.asset), facts.rate, facts.price) >= 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One funds receipt, without anything that names its payer."""

    money_ref: str
    amount: Money
    state: str
    held_until: datetime | None = None
    """Of held money: until when it can surely be captured, where the rail says so."""
    breakdown: Breakdown | None = None
    """How the amount came about, where a discount or tax is in it."""
    confirmations: int | None = None
    """Of money on its way into a chain: the blocks that confirm it by now, where that is known."""

    def to_json(self) -> dict[str, Any]:
        """An entry of `received` of the API's top-up object."""
        shown = {**money_json(self.amount), "state": self.state, "reference": self.money_ref}
        if self.confirmations is not None:
            shown["confirmations"] = self.confirmations
        if self.breakdown is not None:
            parts = self.breakdown
            shown["breakdown"] = {
                "price_minor": parts.price_minor,
                "discount_minor": parts.discount_minor,
                "tax_minor": parts.tax_minor,
                "tax_on_top_minor": parts.tax_on_top_minor,
                "net_minor": parts.net_minor,
            }
        return shown


@dataclass(frozen=True, slots=True, kw_only=True)
class SentBackView:
    """One refund, without where it goes."""

    refund_id: str
    state: RefundState
    amount: Money
    credits: int
    requested_at: datetime
    by_hand: bool

    def to_json(self) -> dict[str, Any]:
        """An entry of `refunds` of the API's top-up object. Whether the rail knows already is our own worry."""
        state = "requested" if self.state.open else self.state.value
        return {
            "id": self.refund_id,
            "state": state,
            **money_json(self.amount),
            "credits": self.credits,
            "requested_at": self.requested_at.isoformat(),
            "by_hand": self.by_hand,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class TopupView:
    """Everything a client may show about a payment. `instructions` may have been erased."""

    payment_id: str
    account_id: str
    rail: str
    state: TopupState
    credits: int
    """Asked for."""
    amount_due: Money
    amount_missing: Money
    received: tuple[Received, ...]
    credited: int
    """Granted and not taken back."""
    rate: Rate
    rate_source: str
    quote_expires_at: datetime
    expired: bool
    instructions: Mapping[str, Any] | None
    decline_code: str | None
    created_at: datetime
    root_id: str
    hold: bool
    job_id: str | None
    purchase: Purchase | None
    """What it is for, if not credits by the quote."""
    purchases: int
    """How often that was granted."""
    rest_awaited_until: datetime | None
    """Until when money that does not cover the price waits for the rest."""
    link: str | None
    """Digest of the link that it was opened by."""
    refunds: tuple[SentBackView, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The API's top-up object."""
        shown = {
            "id": self.payment_id,
            "rail": self.rail,
            "state": self.state.value,
            "credits": self.credits,
            "amount_due": money_json(self.amount_due),
            "amount_missing": money_json(self.amount_missing),
            "received": [receipt.to_json() for receipt in self.received],
            "credited": self.credited,
            "quote": {
                "rate": rate_json(self.rate),
                "source": self.rate_source,
                "expires_at": self.quote_expires_at.isoformat(),
                "expired": self.expired,
            },
            "instructions": self.instructions,
            "attempt_of": None if self.root_id == self.payment_id else self.root_id,
            "created_at": self.created_at.isoformat(),
        }
        if self.purchase is not None:
            shown["purchase"] = self._purchase_json(self.purchase)
        if self.job_id is not None:
            shown["generation_id"] = self.job_id
        if self.decline_code is not None:
            shown["decline_code"] = self.decline_code
        if self.refunds:
            shown["refunds"] = [refund.to_json() for refund in self.refunds]
        return shown

    def _purchase_json(self, purchase: Purchase) -> dict[str, Any]:
        waits = self.rest_awaited_until
        return {
            "kind": purchase.kind,
            "name": purchase.name,
            "label": purchase.label,
            "price_usd_minor": purchase.price_usd_minor,
            "months": purchase.months,
            "lasts_seconds": purchase.pack.lasts_seconds if isinstance(purchase, PackSold) else None,
            "granted": self.purchases,
            "rest_awaited_until": None if waits is None else waits.isoformat(),
        }


def money_json(money: Money) -> dict[str, Any]:
    """`{"amount_minor": 500, "asset": "USD"}`."""
    return {"amount_minor": money.minor, "asset": money.asset.code}


def rate_json(rate: Rate) -> dict[str, str]:
    """The exact rate of minor units, as decimal strings, with the codes it leads from and to."""
    return {
        "numerator": str(rate.numerator),
        "denominator": str(rate.denominator),
        "from": rate.source.code,
        "to": rate.target.code,
    }


def view(
    payment_id: str,
    payment: Payment,
    row: Mapping[str, Any],
    instructions: Mapping[str, Any] | None,
    confirmations: Callable[[str], int | None] = lambda _: None,
) -> TopupView:
    """What the payer sees of a payment whose row of `rail_payments` is `row`. `confirmations` counts the blocks with
    some money."""
    facts = payment.facts()
    missing = max(facts.amount_due.minor - arrived_minor(payment, facts.amount_due.asset.code), 0)
    return TopupView(
        payment_id=payment_id,
        account_id=row["account_id"],
        rail=facts.rail,
        state=topup_state(payment),
        credits=facts.credits,
        amount_due=facts.amount_due,
        amount_missing=Money(missing, facts.amount_due.asset),
        received=tuple(_received(receipt, confirmations) for receipt in payment.receipts.values()),
        credited=sum(receipt.credits_left for receipt in payment.receipts.values()),
        rate=facts.rate,
        rate_source=facts.rate_source,
        quote_expires_at=facts.quote_expires_at,
        expired=payment.expired,
        instructions=instructions,
        decline_code=payment.decline_code,
        created_at=row["opened_at"],
        root_id=facts.attempt_of or payment_id,
        hold=facts.hold,
        job_id=facts.job_id,
        purchase=facts.purchase,
        purchases=payment.purchases,
        rest_awaited_until=facts.quote_expires_at + LATE_GRACE if _waits_for_the_rest(payment) else None,
        link=facts.link,
        refunds=tuple(
            SentBackView(
                refund_id=refund.asked.refund_id,
                state=refund.state,
                amount=refund.asked.amount,
                credits=refund.asked.credits,
                requested_at=refund.asked.requested_at,
                by_hand=refund.asked.by_hand,
            )
            for refund in payment.refunds.values()
        ),
    )


def _waits_for_the_rest(payment: Payment) -> bool:
    return any(receipt.status is ReceiptStatus.SHORT for receipt in payment.receipts.values())


def _received(receipt: ReceiptRecord, confirmations: Callable[[str], int | None]) -> Received:
    held = receipt.status is ReceiptStatus.HELD
    coming = receipt.status is ReceiptStatus.SEEN
    return Received(
        money_ref=receipt.money_ref,
        amount=receipt.amount,
        state=receipt.status.value,
        held_until=receipt.held_until if held else None,
        breakdown=receipt.breakdown,
        confirmations=confirmations(receipt.money_ref) if coming else None,
    )


def payment_row(payment_id: str, payment: Payment, account_id: str, opened_at: datetime) -> dict[str, Any]:
    """The row of `rail_payments` that follows from the payment's state."""
    facts = payment.facts()
    state = topup_state(payment)
    return {
        "payment_id": payment_id,
        "account_id": account_id,
        "rail": facts.rail,
        "root_id": facts.attempt_of or payment_id,
        "state": state.value,
        "unpaid": state in (TopupState.OPENING, TopupState.WAITING, TopupState.DECLINED)
        and not payment.expired,
        "unpriced": state is TopupState.UNPRICED
        or any(receipt.status is ReceiptStatus.UNPRICED for receipt in payment.receipts.values()),
        "suspended": any(is_suspended(receipt) for receipt in payment.receipts.values()),
        "watch_until": _watch_until(payment, state),
        "quote_expires_at": facts.quote_expires_at,
        "opened_at": opened_at,
        "payment": msgspec.to_builtins(payment),
    }


def _watch_until(payment: Payment, state: TopupState) -> datetime | None:
    """Until when it is asked about unbidden; None if nothing is expected to change by itself."""
    facts = payment.facts()
    if payment.expired and not payment.receipts:
        return None
    match state:
        case _ if _waits_for_the_rest(payment):
            return facts.quote_expires_at + WATCH_UNDER_WAY
        case TopupState.SEEN | TopupState.UNPRICED:
            return facts.quote_expires_at + WATCH_UNDER_WAY
        case TopupState.OPENING | TopupState.WAITING | TopupState.DECLINED | TopupState.UNDERPAID:
            return facts.quote_expires_at + WATCH_AFTER_EXPIRY
        case _:
            return None


def payment_of(row: Mapping[str, Any]) -> Payment:
    """The payment's state out of its row."""
    return msgspec.convert(row["payment"], Payment)
