"""Objects about money that moved: charges, balance transactions, refunds, disputes."""

from __future__ import annotations

import stripe

from sandbox.stripe.context import Context
from sandbox.stripe.shapes import blank, nulls
from sandbox.stripe.store import Json

FEE_PER_TEN_THOUSAND = 290
FEE_FIXED_CENTS = 30
DISPUTE_FEE_CENTS = 1500
DAY_SECONDS = 86_400
_CATEGORIES = {"adjustment": "dispute"}
_BACK = {"adjustment": "dispute_reversal", "payout_failure": "payout_reversal"}
"""What reports call a transaction that brings money, where that is not its type."""


def card_fee(amount: int) -> int:
    """2.9 % + 30 cents, rounded half up to a cent."""
    return (amount * FEE_PER_TEN_THOUSAND + 5_000) // 10_000 + FEE_FIXED_CENTS


def charge(context: Context, intent: Json, method: Json, *, status: str) -> Json:
    """A `charge` of a payment intent: `succeeded`, `pending` or `failed`."""
    succeeded = status == "succeeded"
    return {
        **blank(stripe.Charge),
        "id": context.new_id("ch"),
        "object": "charge",
        "amount": intent["amount"],
        "amount_captured": intent["amount"] if succeeded else 0,
        "amount_refunded": 0,
        "billing_details": {
            **nulls("email name phone tax_id"),
            "address": nulls("city country line1 line2 postal_code state"),
        },
        "calculated_statement_descriptor": "LLAMASKETCH",
        "captured": succeeded,
        "created": context.now(),
        "currency": intent["currency"],
        "customer": intent["customer"],
        "description": intent["description"],
        "disputed": False,
        "fraud_details": {},
        "livemode": False,
        "metadata": dict(intent["metadata"]),
        "outcome": {
            **nulls("advice_code network_advice_code network_decline_code reason"),
            "network_status": "approved_by_network",
            "risk_level": "normal",
            "risk_score": 12,
            "seller_message": "Payment complete.",
            "type": "authorized",
        },
        "paid": succeeded,
        "payment_intent": intent["id"],
        "payment_method": method["id"],
        "payment_method_details": {"type": "card", "card": _card_details(intent["amount"], method["card"])},
        "radar_options": {},
        "refunded": False,
        "status": status,
    }


def _card_details(amount: int, card: Json) -> Json:
    return {
        "amount_authorized": amount,
        **nulls("authorization_code capture_before installments mandate network_transaction_id"),
        **nulls("three_d_secure transaction_link_id wallet"),
        "brand": card["brand"],
        "checks": card["checks"],
        "country": card["country"],
        "exp_month": card["exp_month"],
        "exp_year": card["exp_year"],
        "extended_authorization": {"status": "disabled"},
        "fingerprint": card["fingerprint"],
        "funding": card["funding"],
        "incremental_authorization": {"status": "unavailable"},
        "last4": card["last4"],
        "multicapture": {"status": "unavailable"},
        "network": "visa",
        "network_token": {"used": False},
        "overcapture": {"maximum_amount_capturable": amount, "status": "unavailable"},
        "regulated_status": "unregulated",
    }


def balance_transaction(
    context: Context, *, kind: str, amount: int, currency: str, source: str, fee: int, description: str
) -> Json:
    """A `balance_transaction`; `net` is always amount less fee."""
    details = {
        "amount": fee,
        "application": None,
        "currency": currency,
        "description": "Dispute fee" if kind == "adjustment" else "Stripe processing fees",
        "type": "stripe_fee",
    }
    now = context.now()
    return {
        "id": context.new_id("txn"),
        "object": "balance_transaction",
        "amount": amount,
        "available_on": now + 2 * DAY_SECONDS,
        "balance_type": "payments",
        "created": now,
        "currency": currency,
        "description": description,
        "exchange_rate": None,
        "fee": fee,
        "fee_details": [details] if fee else [],
        "net": amount - fee,
        "reporting_category": _CATEGORIES.get(kind, kind) if amount < 0 else _BACK.get(kind, kind),
        "source": source,
        "status": "pending",
        "type": kind,
        "_sandbox": {},
    }


def refund(context: Context, the_charge: Json, amount: int, status: str, **given: object) -> Json:
    """A `refund` of a card charge."""
    return {
        **blank(stripe.Refund),
        "id": context.new_id("re"),
        "object": "refund",
        "amount": amount,
        "balance_transaction": None,
        "charge": the_charge["id"],
        "created": context.now(),
        "currency": the_charge["currency"],
        "destination_details": {
            "card": {
                "reference_status": "pending",
                "reference_type": "acquirer_reference_number",
                "type": "refund",
            },
            "type": "card",
        },
        "metadata": {},
        "payment_intent": the_charge["payment_intent"],
        "status": status,
        **given,
    }


def dispute(context: Context, the_charge: Json, amount: int, reason: str, *, inquiry: bool) -> Json:
    """A `dispute` that needs a response; an inquiry withdraws no funds."""
    now = context.now()
    return {
        "id": context.new_id("dp"),
        "object": "dispute",
        "amount": amount,
        "balance_transactions": [],
        "charge": the_charge["id"],
        "created": now,
        "currency": the_charge["currency"],
        "enhanced_eligibility_types": [],
        "evidence": {**blank(stripe.Dispute.Evidence), "enhanced_evidence": {}},
        "evidence_details": {
            "due_by": now + 9 * DAY_SECONDS,
            "enhanced_eligibility": {},
            "has_evidence": False,
            "past_due": False,
            "submission_count": 0,
            "submission_method": "not_submitted",
        },
        "intended_submission_method": None,
        "is_charge_refundable": inquiry,
        "livemode": False,
        "metadata": {},
        "network_reason_code": "10.4",
        "payment_intent": the_charge["payment_intent"],
        "payment_method_details": {
            "card": {
                "brand": "visa",
                "case_type": "inquiry" if inquiry else "chargeback",
                "network": "visa",
                "network_reason_code": "10.4",
            },
            "type": "card",
        },
        "reason": reason,
        "status": "warning_needs_response" if inquiry else "needs_response",
    }
