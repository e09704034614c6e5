"""Objects as Stripe sends them, to be spoiled, and a card rail that gets such answers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import stripe

from ledger.identifiers import AccountId, PaymentId
from ledger.money import USD, Money
from rails.contract import Order
from rails.stripe.calls import API_VERSION
from rails.stripe.rail import CardCalls, CardRail
from rails.stripe.terms import CheckoutTerms, Tax
from rails.stripe.transport import HttpxTransport
from rails.stripe.webhooks import WebhookRules
from tests.fuzz.hostile import server

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SECRET = "whsec_fuzz"
RULES = WebhookRules(secrets=("whsec_old", SECRET), api_version=API_VERSION, livemode=False)
PAYMENT = "pay_01jd3z9k4w7q8r5s6t7v8x9y0z"
OURS = "subscr_01jd3z9k4w7q8r5s6t7v8x9y0z"


def event(kind: str, **value: Any) -> dict[str, Any]:
    about = {"metadata": {"payment_id": PAYMENT}, **value}
    facts = {"id": "evt_1", "object": "event", "api_version": API_VERSION, "livemode": False}
    return {**facts, "type": kind, "data": {"object": about}}


EVENTS = (
    event("checkout.session.completed", object="checkout.session", id="cs_1"),
    event("payment_intent.payment_failed", object="payment_intent", id="pi_1"),
    event("charge.refunded", object="charge", id="ch_1", payment_intent="pi_1"),
    event("charge.dispute.created", object="dispute", id="dp_1", payment_intent="pi_1"),
    event(
        "invoice.paid",
        object="invoice",
        id="in_1",
        parent={"subscription_details": {"subscription": "sub_1", "metadata": {"subscription_id": OURS}}},
    ),
    event(
        "customer.subscription.updated",
        object="subscription",
        id="sub_1",
        metadata={"subscription_id": OURS},
    ),
)


class Clock:
    def __call__(self) -> datetime:
        return NOW


def card(body: bytes = b"{}", status: int = 200) -> CardRail:
    transport = HttpxTransport(server(body, status))
    client = stripe.StripeClient(
        "sk_test_x", base_addresses={"api": "http://node.test"}, http_client=transport, max_network_retries=0
    )
    calls = CardCalls(client, transport, deadline_seconds=5)
    terms = CheckoutTerms(tax=Tax.EXCLUSIVE, promotion_codes=True)
    return CardRail(calls, Clock(), RULES, poll_seconds=0, terms=terms)


REFUND = {
    "id": "re_1",
    "object": "refund",
    "amount": 5,
    "status": "succeeded",
    "metadata": {"refund_key": "k"},
}
DISPUTE = {"id": "dp_1", "amount": 5, "status": "lost", "balance_transactions": [{"amount": -5, "fee": 3}]}
CHARGE = {
    "id": "ch_1",
    "created": 1_790_000_000,
    "disputed": False,
    "balance_transaction": {"currency": "usd", "fee": 30},
    "refunds": {"data": [REFUND], "has_more": False},
}
INTENT = {
    "id": "pi_1",
    "status": "succeeded",
    "currency": "usd",
    "amount": 500,
    "amount_received": 500,
    "created": 1_790_000_000,
    "last_payment_error": None,
    "latest_charge": CHARGE,
}
TOTALS = {
    "amount_subtotal": 520,
    "amount_total": 500,
    "total_details": {"amount_discount": 104, "amount_shipping": 0, "amount_tax": 84},
}
SESSION = {
    "id": "cs_1",
    "object": "checkout.session",
    "status": "complete",
    "payment_intent": INTENT,
    **TOTALS,
}
DECLINED = {
    "id": "cs_2",
    "object": "checkout.session",
    "status": "open",
    **TOTALS,
    "payment_intent": {**INTENT, "status": "requires_payment_method", "last_payment_error": {"code": "x"}},
}


PAGE = {"object": "list", "url": "/v1/x", "has_more": False, "data": [{**EVENTS[0]}, {**SESSION}]}


FAULT = {"error": {"type": "idempotency_error", "code": "x", "message": "m"}}
ORDER = Order(
    payment_id=PaymentId(PAYMENT),
    account_id=AccountId("acct_01jd3z9k4w7q8r5s6t7v8x9y0z"),
    ordinal=1,
    amount_due=Money(500, USD),
    description="credits",
    expires_at=NOW,
    return_url="http://llamasketch.test",
)


TRANSACTION = {
    "id": "txn_1",
    "object": "balance_transaction",
    "type": "charge",
    "amount": 500,
    "fee": 45,
    "net": 455,
    "currency": "usd",
    "created": 1_790_000_000,
    "source": {"id": "ch_1", "object": "charge", "payment_intent": "pi_1"},
}
PAYOUT = {
    **TRANSACTION,
    "type": "payout",
    "amount": -455,
    "fee": 0,
    "source": {"id": "po_1", "object": "payout", "automatic": True},
}
BALANCE = {
    "object": "balance",
    "available": [{"amount": 5, "currency": "usd"}],
    "pending": [{"amount": -3, "currency": "eur"}],
}


PRICE = {
    "id": "price_1",
    "metadata": {"plan": "starter"},
    "lookup_key": "starter_month",
    "unit_amount": 800,
    "recurring": {"interval": "month", "interval_count": 1, "usage_type": "licensed", "meter": None},
}
METERED = {
    "id": "price_3",
    "metadata": {"overage": "credit"},
    "lookup_key": "starter_overage",
    "unit_amount": 2,
    "recurring": {"interval": "month", "interval_count": 1, "usage_type": "metered", "meter": "mtr_1"},
}
LINE = {
    "amount": 800,
    "quantity": 1,
    "period": {"start": 1_790_000_000, "end": 1_792_600_000},
    "pricing": {"price_details": {"price": "price_1", "product": "prod_1"}},
    "parent": {"subscription_item_details": {"proration": False}},
}
INVOICE = {
    "id": "in_1",
    "object": "invoice",
    "status": "open",
    "currency": "usd",
    "amount_due": 768,
    "amount_shipping": 0,
    "subtotal": 800,
    "total": 768,
    "total_taxes": [{"amount": 128, "tax_behavior": "exclusive"}],
    "total_discount_amounts": [{"amount": 160, "discount": "di_1"}],
    "discounts": ["di_1"],
    "created": 1_790_000_000,
    "next_payment_attempt": 1_790_000_500,
    "hosted_invoice_url": "https://invoice.test/1",
    "lines": {"data": [LINE]},
    "parent": {"subscription_details": {"subscription": "sub_1", "metadata": {"subscription_id": OURS}}},
    "payments": {"data": [{"payment": {"type": "payment_intent", "payment_intent": "pi_1"}}]},
}
ITEM = {
    "id": "si_1",
    "price": PRICE,
    "current_period_start": 1_790_000_000,
    "current_period_end": 1_792_600_000,
}
METERED_ITEM = {**ITEM, "id": "si_2", "price": METERED, "created": 1_790_000_000}
PHASE = {"start_date": 1_792_600_000, "end_date": 1_795_200_000, "items": [{"price": "price_1"}]}
SUBSCRIPTION = {
    "id": "sub_1",
    "object": "subscription",
    "status": "active",
    "customer": "cus_1",
    "metadata": {"subscription_id": OURS},
    "items": {"data": [ITEM, METERED_ITEM]},
    "schedule": {"id": "sub_sched_1", "phases": [PHASE], "current_phase": {"start_date": 1_790_000_000}},
    "pending_update": {"subscription_items": [ITEM]},
    "pause_collection": None,
    "cancel_at_period_end": False,
    "cancel_at": None,
    "discounts": ["di_1"],
}
PAGE_TO_SUBSCRIBE = {
    "id": "cs_3",
    "object": "checkout.session",
    "status": "open",
    "subscription": None,
    "metadata": {"subscription_id": OURS},
}
