"""What Stripe's objects say about money. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from ledger.money import USD, Money
from rails.contract import Observation, Piece, PieceState, RailProtocolError, Refund, Standing

Json = dict[str, Any]

_GONE = ("succeeded", "pending", "requires_action")
"""A refund in one of these states has left our balance; `failed` and `canceled` came back."""


def read_session(session: Json, refunds: Sequence[Json], disputes: Sequence[Json]) -> Observation:
    """Everything known about one Checkout session, its payment intent expanded."""
    intent = session["payment_intent"]
    if isinstance(intent, str):
        raise RailProtocolError("Stripe did not expand the payment intent")
    piece = None if intent is None else read_piece(intent, refunds, disputes)
    standing = _standing(session, intent)
    return Observation(
        reference=session["id"],
        standing=standing,
        pieces=() if piece is None else (piece,),
        decline_code=_decline_code(intent) if standing is Standing.DECLINED else None,
    )


def _standing(session: Json, intent: Json | None) -> Standing:
    declined = intent is not None and intent["last_payment_error"] is not None
    match session["status"]:
        case "open":
            return Standing.DECLINED if declined else Standing.OPEN
        case "complete":
            # A delayed method that bounced after the session was completed.
            return Standing.DECLINED if declined else Standing.CLOSED
        case "expired":
            # An expired session is no failed payment, whatever was tried before.
            return Standing.EXPIRED
        case status:
            raise RailProtocolError(f"Stripe reported an unknown session status {status!r}")


def _decline_code(intent: Json | None) -> str:
    error = (intent or {}).get("last_payment_error") or {}
    return str(error.get("decline_code") or error.get("code") or error.get("type") or "card_declined")


def read_piece(intent: Json, refunds: Sequence[Json], disputes: Sequence[Json]) -> Piece | None:
    """The money of one payment intent, or None while there is none."""
    charge = intent["latest_charge"]
    match intent["status"]:
        case "requires_payment_method" | "requires_confirmation" | "requires_action" | "canceled":
            return None
        case "processing" | "requires_capture":
            state, amount = PieceState.SEEN, intent["amount"]
        case "succeeded":
            state, amount = PieceState.SETTLED, intent["amount_received"]
        case status:
            raise RailProtocolError(f"Stripe reported an unknown payment intent status {status!r}")
    if intent["currency"] != "usd":
        raise RailProtocolError(f"a payment of ours came in {intent['currency']!r}")
    taken = 0
    if state is PieceState.SETTLED:
        state, taken = _taken(intent["amount_received"], refunds, disputes)
    return Piece(
        money_ref=f"stripe:{intent['id']}",
        amount=Money(amount, USD),
        state=state,
        first_seen_at=datetime.fromtimestamp((charge or intent)["created"], UTC),
        fee=_fee(charge),
        reversed_amount=Money(taken, USD) if taken else None,
        proof=charge["id"] if charge else intent["id"],
    )


def _fee(charge: Json | None) -> Money | None:
    transaction = charge["balance_transaction"] if charge else None
    # Stripe books the fee a moment after the charge: not known is not nought.
    if transaction is None or transaction["currency"] != "usd":
        return None
    return Money(transaction["fee"], USD)


def _taken(received: int, refunds: Sequence[Json], disputes: Sequence[Json]) -> tuple[PieceState, int]:
    """What outside refunds and disputes took, and what state that leaves the money in."""
    refunded = sum(
        refund["amount"] for refund in refunds if refund["status"] in _GONE and not is_ours(refund)
    )
    withdrawn = {dispute["id"]: _withdrawn(dispute) for dispute in disputes}
    taken = min(refunded + sum(withdrawn.values()), received)
    if any(withdrawn[dispute["id"]] and dispute["status"] != "lost" for dispute in disputes):
        return PieceState.DISPUTED, taken
    return (PieceState.REVERSED if taken else PieceState.SETTLED), taken


def _withdrawn(dispute: Json) -> int:
    """What a dispute holds back now: nothing for an inquiry, nothing once it was reinstated."""
    net = sum(transaction["amount"] for transaction in dispute["balance_transactions"])
    return min(int(dispute["amount"]), -net) if net < 0 else 0


def is_ours(refund: Json) -> bool:
    """Whether our core asked for this refund; its credits were taken before it was sent."""
    return "refund_key" in (refund["metadata"] or {})


def read_refund(refund: Json) -> Refund:
    """How a refund of ours stands."""
    match refund["status"]:
        case "succeeded" | "pending":
            return Refund.SENT
        case "failed" | "canceled":
            return Refund.FAILED
        case _:
            return Refund.UNKNOWN
