"""What Stripe answers about saved cards is understood or refused by name."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st

from ledger.money import USD, Money
from rails.saved import ChargeLapsed, MethodUnusable, SaveOrder
from tests.fuzz.fuzzing import fuzzed
from tests.fuzz.hostile import answered, bodies, whole_bodies
from tests.fuzz.receipts import NAMED
from tests.fuzz.stripe_objects import FAULT, NOW, ORDER, PAGE, card

CARD: dict[str, Any] = {
    "id": "pm_1",
    "object": "payment_method",
    "customer": "cus_1",
    "card": {"brand": "visa", "last4": "4242", "exp_month": 12, "exp_year": 2034},
    "billing_details": {"address": {"country": "DE", "postal_code": "10115", "city": None}},
}
INTENT: dict[str, Any] = {
    **CARD,
    "id": "pi_1",
    "object": "payment_intent",
    "amount": 500,
    "amount_received": 500,
    "created": 1_790_000_000,
    "currency": "usd",
    "last_payment_error": None,
    "latest_charge": None,
    "metadata": {"payment_id": ORDER.payment_id, "charged": "saved", "tax_behavior": "inclusive"},
    "amount_details": {"tax": {"total_tax_amount": 80}},
    "tax_amount_exclusive": 0,
    "tax_amount_inclusive": 80,
    "amount_total": 500,
    "status": "succeeded",
}
SETUP: dict[str, Any] = {
    "id": "cs_1",
    "object": "checkout.session",
    "status": "complete",
    "url": None,
    "setup_intent": {"id": "seti_1", "object": "setup_intent", "status": "succeeded", "payment_method": CARD},
}
DECLINED = {
    "error": {"type": "card_error", "code": "card_declined", "message": "No.", "payment_intent": INTENT}
}


ANSWERS = (CARD, INTENT, SETUP, DECLINED, {**PAGE, "data": [INTENT]}, FAULT)


@fuzzed(
    *whole_bodies(*ANSWERS),
    body=bodies(*ANSWERS),
    status=st.sampled_from([200, 200, 200, 400, 402, 404, 500]),
)
def test_the_card_rail_understands_answers_about_saved_cards_or_refuses_them(
    loop: asyncio.Runner, body: bytes, status: int
) -> None:
    rail, named = card(body, status), (*NAMED, MethodUnusable, ChargeLapsed)
    order = SaveOrder(
        saving_id="saving_1",
        account_id=ORDER.account_id,
        expires_at=NOW,
        return_url="http://llamasketch.test",
    )
    dollars = replace(ORDER, amount_due=Money(500, USD), hold=False)
    answered(loop, lambda: rail.save_method(order), *named)
    answered(loop, lambda: rail.observe_saving("cs_1"), *named)
    answered(loop, lambda: rail.observe_method("cus_1/pm_1"), *named)
    answered(loop, lambda: rail.forget_method("cus_1/pm_1"), *named)
    for expires_at in (NOW, NOW + timedelta(hours=1)):
        charge = replace(dollars, expires_at=expires_at)
        answered(loop, lambda charge=charge: rail.charge(charge, "cus_1/pm_1"), *named)
    answered(loop, lambda: rail.observe("pi_1"), *named)
    answered(loop, lambda: rail.cancel("pi_1"), *named)
    answered(loop, lambda: rail.charge_of("pi_1"), *named)
