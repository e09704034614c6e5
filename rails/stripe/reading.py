"""What Stripe's objects say about money. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ledger.money import USD, Money
from rails.breakdown import Breakdown
from rails.contract import (
    FundsReceipt,
    Observation,
    PaymentRequestStatus,
    RailProtocolError,
    ReceiptState,
    Refund,
    SentBack,
)
from rails.reading import understood
from rails.saved import AUTHENTICATION
from rails.stripe import breakdowns
from rails.stripe.amounts import amount_of, name_of, signed

Json = dict[str, Any]
_CODE = re.compile(r"[a-z0-9_]{1,80}")
_GONE = ("succeeded", "pending", "requires_action")
"""A refund in one of these states has left our balance; `failed` and `canceled` came back."""
_ANSWERABLE = ("needs_response", "warning_needs_response")
"""Disputes in these states wait for evidence."""


@dataclass(frozen=True, slots=True)
class Charged:
    """What has to be asked further about a session that was paid."""

    intent: str
    refunds: Sequence[Json]
    more_refunds: bool
    disputed: bool


def read_charged(session: Json) -> Charged | None:
    """The charge of a session; None while there is none. Raises `RailProtocolError`."""
    with understood("Stripe"):
        intent = session["payment_intent"]
        charge = intent["latest_charge"] if intent else None
        if charge is None:
            return None
        refunds = charge["refunds"]
        return Charged(
            name_of(intent["id"]), refunds["data"], bool(refunds["has_more"]), bool(charge["disputed"])
        )


def read_session(session: Json, refunds: Sequence[Json], disputes: Sequence[Json]) -> Observation:
    """Everything known about one Checkout session, its payment intent expanded. Raises `RailProtocolError`."""
    with understood("Stripe"):
        return _read_session(session, refunds, disputes)


def _read_session(session: Json, refunds: Sequence[Json], disputes: Sequence[Json]) -> Observation:
    intent = session["payment_intent"]
    if isinstance(intent, str):
        raise RailProtocolError("Stripe did not expand the payment intent")
    if intent is None and session["status"] == "complete":
        # A promotion code took off everything: there is no money, and nothing is known to have been bought.
        raise RailProtocolError("a session was completed on which nothing was paid")
    parts = breakdowns.of_session(session)
    receipt = None if intent is None else read_receipt(intent, refunds, disputes, parts)
    status = _status(session, intent)
    return Observation(
        reference=name_of(session["id"]),
        status=status,
        receipts=() if receipt is None else (receipt,),
        decline_code=_decline_code(intent) if status is PaymentRequestStatus.DECLINED else None,
        refunds=sent_back(refunds),
    )


def read_intent_alone(intent: Json, refunds: Sequence[Json], disputes: Sequence[Json]) -> Observation:
    """Everything known about a payment intent that charged a saved card. Raises `RailProtocolError`."""
    with understood("Stripe"):
        receipt = read_receipt(intent, refunds, disputes, breakdowns.of_charge(intent))
        status = _status_alone(intent)
        return Observation(
            reference=name_of(intent["id"]),
            status=status,
            receipts=() if receipt is None else (receipt,),
            decline_code=_why_not(intent) if status is PaymentRequestStatus.DECLINED else None,
            refunds=sent_back(refunds),
        )


def _status_alone(intent: Json) -> PaymentRequestStatus:
    match intent["status"]:
        case "succeeded":
            return PaymentRequestStatus.CLOSED
        case "canceled":
            return PaymentRequestStatus.EXPIRED
        case "requires_action":
            return PaymentRequestStatus.DECLINED
        case _:
            declined = intent["last_payment_error"] is not None
            return PaymentRequestStatus.DECLINED if declined else PaymentRequestStatus.OPEN


def _why_not(intent: Json) -> str:
    """`authentication_required` wherever the bank wants its customer, by whatever way Stripe says so."""
    return AUTHENTICATION if intent["status"] == "requires_action" else _decline_code(intent)


def sent_back(refunds: Sequence[Json]) -> tuple[SentBack, ...]:
    """The refunds that our core asked for. Raises `ValueError`."""
    return tuple(
        SentBack(key=name_of(key), outcome=read_refund(refund))
        for refund in refunds
        if (key := refund_key(refund)) is not None
    )


def _status(session: Json, intent: Json | None) -> PaymentRequestStatus:
    declined = intent is not None and intent["last_payment_error"] is not None
    match session["status"]:
        case "open":
            return PaymentRequestStatus.DECLINED if declined else PaymentRequestStatus.OPEN
        case "complete":
            # A delayed method that bounced after the session was completed.
            return PaymentRequestStatus.DECLINED if declined else PaymentRequestStatus.CLOSED
        case "expired":
            # An expired session is no failed payment, whatever was tried before.
            return PaymentRequestStatus.EXPIRED
        case status:
            raise RailProtocolError(f"Stripe reported an unknown session status {status!r}")


def _decline_code(intent: Json | None) -> str:
    error = (intent or {}).get("last_payment_error") or {}
    code = error.get("decline_code") or error.get("code") or error.get("type")
    return code if isinstance(code, str) and _CODE.fullmatch(code) else "card_declined"


def read_receipt(
    intent: Json, refunds: Sequence[Json], disputes: Sequence[Json], breakdown: Breakdown | None = None
) -> FundsReceipt | None:
    """The money of one payment intent, or None while there is none. `breakdown` is of the bill that it pays."""
    charge = intent["latest_charge"]
    match intent["status"]:
        case "requires_payment_method" | "requires_confirmation" | "requires_action" | "canceled":
            return None
        case "processing" | "requires_capture":
            state, amount = ReceiptState.SEEN, amount_of(intent["amount"])
        case "succeeded":
            state, amount = ReceiptState.SETTLED, amount_of(intent["amount_received"])
        case status:
            raise RailProtocolError(f"Stripe reported an unknown payment intent status {status!r}")
    if intent["currency"] != "usd":
        raise RailProtocolError(f"a payment of ours came in {intent['currency']!r}")
    taken = 0
    if state is ReceiptState.SETTLED:
        state, taken = _taken(amount, refunds, disputes)
    return FundsReceipt(
        money_ref=f"stripe:{name_of(intent['id'])}",
        amount=Money(amount, USD),
        state=state,
        first_seen_at=datetime.fromtimestamp((charge or intent)["created"], UTC),
        fee=_fee(charge),
        reversed_amount=Money(taken, USD) if taken else None,
        external_ref=name_of(charge["id"] if charge else intent["id"]),
        evidence_due_by=_evidence_due_by(disputes) if state is ReceiptState.DISPUTED else None,
        costs=_costs(disputes),
        breakdown=breakdown,
    )


def _costs(disputes: Sequence[Json]) -> Money | None:
    """The fees of disputes, less those that were given back."""
    fees = [signed(entry["fee"]) for dispute in disputes for entry in dispute["balance_transactions"]]
    return Money(max(sum(fees), 0), USD) if fees else None


def _fee(charge: Json | None) -> Money | None:
    transaction = charge["balance_transaction"] if charge else None
    # Stripe books the fee a moment after the charge: not known is not nought.
    if transaction is None or transaction["currency"] != "usd":
        return None
    return Money(amount_of(transaction["fee"]), USD)


def _taken(received: int, refunds: Sequence[Json], disputes: Sequence[Json]) -> tuple[ReceiptState, int]:
    """What outside refunds and disputes took, and what state that leaves the money in."""
    refunded = sum(
        amount_of(refund["amount"]) for refund in refunds if refund["status"] in _GONE and not is_ours(refund)
    )
    withdrawn = {dispute["id"]: _withdrawn(dispute) for dispute in disputes}
    taken = min(refunded + sum(withdrawn.values()), received)
    if any(withdrawn[dispute["id"]] and dispute["status"] != "lost" for dispute in disputes):
        return ReceiptState.DISPUTED, taken
    return (ReceiptState.REVERSED if taken else ReceiptState.SETTLED), taken


def _evidence_due_by(disputes: Sequence[Json]) -> datetime | None:
    """The first deadline among disputes that still take evidence (`evidence_details.due_by`, seconds since 1970)."""
    due = [
        amount_of(details["due_by"])
        for dispute in disputes
        if dispute["status"] in _ANSWERABLE and (details := dispute["evidence_details"])["due_by"] is not None
    ]
    return datetime.fromtimestamp(min(due), UTC) if due else None


def _withdrawn(dispute: Json) -> int:
    """What a dispute holds back now: nothing for an inquiry, nothing once it was reinstated."""
    net = sum(signed(transaction["amount"]) for transaction in dispute["balance_transactions"])
    return min(amount_of(dispute["amount"]), -net) if net < 0 else 0


def read_intent(session: Json) -> str | None:
    """The payment intent of a session. Raises `RailProtocolError`."""
    with understood("Stripe"):
        intent = session["payment_intent"]
        return None if intent is None else name_of(intent["id"])


def is_ours(refund: Json) -> bool:
    """Whether our core asked for this refund; its credits were taken before it was sent."""
    return refund_key(refund) is not None


def refund_key(refund: Json) -> str | None:
    """Under which key our core asked for this refund; None if it did not."""
    metadata = refund.get("metadata")
    return metadata.get("refund_key") if isinstance(metadata, dict) else None


def read_refund(refund: Json) -> Refund:
    """How a refund of ours stands."""
    match refund.get("status"):
        case "succeeded" | "pending":
            return Refund.SENT
        case "failed" | "canceled":
            return Refund.FAILED
        case _:
            return Refund.UNKNOWN
