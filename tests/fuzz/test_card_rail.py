"""Whatever Stripe sends, as an answer or as a webhook: it is read, or refused by name."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import stripe
from hypothesis import strategies as st

from ledger.money import USD, Money
from rails.contract import NotificationRejected, RailProtocolError, RejectionReason
from rails.metered import NotBillable, UsageReport
from rails.recurring import ChangeRefused, Offer, SubscriptionOrder
from rails.stripe.books import read_contents, read_movement
from rails.stripe.reading import read_charged, read_intent, read_refund, read_session, refund_key
from rails.stripe.reading_subscriptions import (
    intents_of,
    prices_in,
    read_invoice,
    read_managed,
    read_offer,
    read_session_of_subscription,
    read_subscription,
)
from rails.stripe.webhooks import open_message
from tests.fuzz.fuzzing import fuzzed
from tests.fuzz.hostile import TEXTS, answered, bodies, spoiled, whole_bodies
from tests.fuzz.receipts import NAMED, is_whole
from tests.fuzz.stripe_objects import (
    BALANCE,
    DECLINED,
    DISPUTE,
    EVENTS,
    FAULT,
    INTENT,
    INVOICE,
    METERED,
    NOW,
    ORDER,
    OURS,
    PAGE,
    PAGE_TO_SUBSCRIBE,
    PAYMENT,
    PAYOUT,
    PRICE,
    REFUND,
    RULES,
    SECRET,
    SESSION,
    SUBSCRIPTION,
    TRANSACTION,
    card,
)

METER = {"id": "mtr_1", "event_name": "llamasketch_overage", "aggregated_value": 3.0}
BILLED = (
    SUBSCRIPTION,
    INVOICE,
    PAGE_TO_SUBSCRIBE,
    PRICE,
    {**PAGE, "data": [PRICE, METERED]},
    {**PAGE, "data": [METER]},
    FAULT,
)


def signature(body: bytes, at: int) -> str:
    text = body.decode(errors="replace")
    return str(stripe.WebhookSignature.generate_signature_header(text, SECRET, at))


@fuzzed(body=bodies(*EVENTS), age=st.sampled_from([0, 0, 0, 299, -299, 301, -301, -86_400, 10**9]))
def test_a_signed_webhook_message_is_read_or_rejected(body: bytes, age: int) -> None:
    header = signature(body, int(NOW.timestamp()) - age)
    try:
        found = card().verify_notification({"stripe-signature": header}, body)
    except NotificationRejected:
        return
    assert abs(age) <= 300
    for notification in found:
        assert notification.notification_id is not None
        assert notification.notification_id.isprintable()


@fuzzed(header=st.text(max_size=60) | TEXTS | st.from_regex(r"t=\d+,v1=[0-9a-fé]*"))
def test_a_header_that_nobody_signed_is_rejected_for_its_signature(header: str) -> None:
    with pytest.raises(NotificationRejected) as refused:
        open_message({"stripe-signature": header}, json.dumps(EVENTS[0]).encode(), RULES, NOW)
    assert refused.value.reason is RejectionReason.SIGNATURE


@fuzzed(session=spoiled(SESSION, DECLINED), refund=spoiled(REFUND), dispute=spoiled(DISPUTE))
def test_a_checkout_session_is_understood_or_refused(session: Any, refund: Any, dispute: Any) -> None:
    for read in (read_charged, read_intent):
        with contextlib.suppress(RailProtocolError):
            read(session)
    with contextlib.suppress(RailProtocolError):
        for receipt in read_session(session, [refund], [dispute]).receipts:
            is_whole(receipt)
    if isinstance(refund, dict):
        refund_key(refund)
        read_refund(refund)


@fuzzed(
    *whole_bodies(SESSION, PAGE, FAULT),
    body=bodies(SESSION, PAGE, FAULT),
    status=st.sampled_from([200, 200, 200, 400, 404, 500]),
)
def test_the_card_rail_understands_answers_or_refuses_them(
    loop: asyncio.Runner, body: bytes, status: int
) -> None:
    rail = card(body, status)
    answered(loop, lambda: rail.open(ORDER), *NAMED)
    answered(loop, lambda: rail._calls.refunds("pi_1"), *NAMED)
    answered(loop, lambda: rail._events_after(None), *NAMED)
    answered(loop, lambda: rail.observe("cs_1"), *NAMED)
    answered(loop, rail.health, *NAMED)
    answered(loop, lambda: rail._find_session(PAYMENT), *NAMED)
    answered(loop, lambda: _first(rail.listen("evt_0")), *NAMED)


@fuzzed(transaction=spoiled(TRANSACTION, PAYOUT), part=spoiled(TRANSACTION))
def test_a_balance_transaction_is_understood_or_refused(transaction: Any, part: Any) -> None:
    with contextlib.suppress(RailProtocolError):
        movement = read_movement(transaction)
        assert type(movement.amount.minor) is int
        assert movement.movement_ref.isprintable()
        assert (movement.money_ref or "x").isprintable()
    with contextlib.suppress(RailProtocolError):
        whole = read_contents(read_movement(PAYOUT), [part])
        assert whole.consists_of is not None
        assert type(whole.consists_of.minor) is int


@fuzzed(
    body=bodies({**PAGE, "data": [TRANSACTION]}, {**PAGE, "data": [PAYOUT]}, BALANCE, FAULT),
    status=st.sampled_from([200, 200, 200, 400, 404, 500]),
)
def test_the_card_rail_understands_its_books_or_refuses_them(
    loop: asyncio.Runner, body: bytes, status: int
) -> None:
    rail = card(body, status)
    answered(loop, lambda: rail.movements(None, NOW), *NAMED)
    answered(loop, lambda: rail.movements("x", NOW), *NAMED)
    answered(loop, rail.holdings, *NAMED)


@fuzzed(
    subscription=spoiled(SUBSCRIPTION),
    invoice=spoiled(INVOICE),
    session=spoiled(PAGE_TO_SUBSCRIBE),
    price=st.one_of(spoiled(PRICE), spoiled(METERED)),
)
def test_a_subscription_is_understood_or_refused(
    subscription: Any, invoice: Any, session: Any, price: Any
) -> None:
    offers = {"price_1": Offer(plan="starter", length="month")}
    for read in (
        lambda: read_offer(price),
        lambda: prices_in(subscription, [invoice]),
        lambda: read_managed(subscription),
        lambda: intents_of(invoice),
        lambda: read_session_of_subscription(session),
        lambda: read_subscription(subscription, [invoice], offers),
    ):
        with contextlib.suppress(RailProtocolError):
            read()
    with contextlib.suppress(RailProtocolError):
        for receipt in read_invoice(invoice, [(INTENT, [REFUND], [DISPUTE])]).receipts:
            is_whole(receipt)
    with contextlib.suppress(RailProtocolError):
        seen = read_subscription(subscription, [invoice], offers)
        for each in seen.invoices if seen else ():
            assert type(each.due.minor) is int
            assert each.due.minor >= 0
            assert each.reference.isprintable()


@fuzzed(
    *whole_bodies(*BILLED),
    body=bodies(*BILLED),
    status=st.sampled_from([200, 200, 200, 400, 404, 500]),
)
def test_the_card_rail_understands_answers_about_subscriptions_or_refuses_them(
    loop: asyncio.Runner, body: bytes, status: int
) -> None:
    rail, offer = card(body, status), Offer(plan="starter", length="month")
    order = SubscriptionOrder(
        subscription_id=OURS,
        account_id=ORDER.account_id,
        offer=offer,
        expires_at=NOW,
        return_url="http://llamasketch.test",
    )
    named = (*NAMED, ChangeRefused)
    answered(loop, lambda: rail.subscribe(order), *named)
    for reference in ("cs_3", "sub_1"):
        answered(loop, lambda name=reference: rail.observe_subscription(name), *named)
    answered(loop, lambda: rail.observe("in_1"), *named)
    answered(loop, lambda: rail.invoice_paid_by("pi_1"), *named)
    answered(loop, lambda: rail._offer("price_2"), *named)
    answered(loop, lambda: rail.close_subscribing("cs_3"), *named)
    use = UsageReport(report_id="use_1", credits=1, used_at=NOW)
    answered(loop, lambda: rail.report_usage("sub_1", use), *named, NotBillable)
    answered(loop, lambda: rail.usage_total("sub_1", NOW), *named)
    answered(loop, lambda: rail.preview_change("sub_1", offer, now=True), *named)
    for at in (NOW, None):
        answered(loop, lambda at=at: rail.change_plan("sub_1", offer, at=at, key="k"), *named)
    answered(loop, lambda: rail.cancel_subscription("sub_1"), *named)
    answered(loop, lambda: rail.resume_subscription("sub_1"), *named)
    answered(loop, lambda: rail.portal("sub_1", "http://llamasketch.test"), *named)
    answered(loop, lambda: rail.refund("in_1", Money(5, USD), None, "k"), *named)


async def _first(notifications: AsyncIterator[Any]) -> Any:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.01):
            async for notification in notifications:
                return notification
    return None
