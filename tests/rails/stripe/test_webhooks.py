"""Webhook messages and the event list: notifications, in any order and number, and never from a stranger."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
import stripe

from ledger.clock import system_clock
from rails.contract import (
    Notification,
    NotificationRejected,
    PaymentRequestStatus,
    Rail,
    RailUnavailable,
    ReceiptState,
    RejectionReason,
)
from rails.stripe.calls import API_VERSION
from rails.stripe.rail import CardRail
from rails.stripe.webhooks import EVENT_TYPES, LISTED_TYPES, MAX_TYPES
from rails.testing.harness import RailHarness, only_receipt
from rails.testing.memory_references import MemoryReferences
from tests.rails.stripe.outside import SECRET, CardWorld, Inbox, Sandbox, running_sandbox
from tests.waiting import SECONDS_MAX


@pytest.fixture(scope="module")
async def sandbox(inbox: Inbox, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sandbox]:
    """A sandbox of this module's own: these tests read its events from the very beginning."""
    async with running_sandbox(tmp_path_factory.mktemp("stripe"), inbox) as sandbox:
        yield sandbox


def signed(event: dict[str, Any], secret: str = SECRET, age_seconds: int = 0) -> tuple[dict[str, str], bytes]:
    body = json.dumps(event)
    stamp = int(system_clock().timestamp()) - age_seconds
    header = stripe.WebhookSignature.generate_signature_header(body, secret, stamp)
    return {"stripe-signature": header}, body.encode()


def event(kind: str = "checkout.session.completed", **changes: Any) -> dict[str, Any]:
    payment = {"payment_id": "pay_01jd3z9k4w7q8r5s6t7v8x9y0z"}
    value = {"id": "cs_test_1", "object": "checkout.session", "metadata": payment}
    return {
        "id": "evt_1",
        "object": "event",
        "api_version": API_VERSION,
        "livemode": False,
        "type": kind,
        "data": {"object": {**value, **changes.pop("value", {})}},
        **changes,
    }


# --- webhooks --------------------------------------------------------------------------------------


async def test_a_signed_message_names_its_session(rail: CardRail) -> None:
    assert rail.verify_notification(*signed(event())) == (
        Notification(reference="cs_test_1", notification_id="evt_1"),
    )


async def test_a_message_signed_with_another_secret_is_refused(rail: CardRail) -> None:
    with pytest.raises(NotificationRejected):
        rail.verify_notification(*signed(event(), secret="whsec_of_someone_else"))


async def test_while_a_secret_is_exchanged_both_count(world: CardWorld) -> None:
    rail = await world.start(MemoryReferences(), secrets=("whsec_of_yesterday", SECRET))
    for secret in ("whsec_of_yesterday", SECRET):
        assert rail.verify_notification(*signed(event(), secret=secret))
    with pytest.raises(NotificationRejected) as refused:
        rail.verify_notification(*signed(event(), secret="whsec_of_the_day_before"))
    assert refused.value.reason is RejectionReason.SIGNATURE
    await rail.close()


async def test_a_signature_of_the_future_is_refused_beyond_the_tolerance(rail: CardRail) -> None:
    with pytest.raises(NotificationRejected, match="in the future"):
        rail.verify_notification(*signed(event(), age_seconds=-302))
    assert rail.verify_notification(*signed(event(), age_seconds=-280))


OURS = {"subscription_id": "subscr_01jd3z9k4w7q8r5s6t7v8x9y0z"}


@pytest.mark.parametrize(
    ("kind", "value", "reference"),
    [
        ("customer.subscription.updated", {"object": "subscription", "id": "sub_1"}, "sub_1"),
        ("customer.subscription.deleted", {"object": "subscription", "id": "sub_1"}, "sub_1"),
        ("customer.subscription.paused", {"object": "subscription", "id": "sub_1"}, "sub_1"),
        ("checkout.session.completed", {}, "cs_test_1"),
        ("checkout.session.expired", {}, "cs_test_1"),
        *(
            (
                f"invoice.{what}",
                {
                    "object": "invoice",
                    "id": "in_1",
                    "parent": {"subscription_details": {"subscription": "sub_1", "metadata": OURS}},
                },
                "sub_1",
            )
            for what in ("paid", "payment_failed", "payment_action_required", "voided")
        ),
    ],
)
async def test_a_message_about_a_subscription_names_what_to_ask_about(
    rail: CardRail, kind: str, value: dict[str, Any], reference: str
) -> None:
    found = rail.verify_notification(*signed(event(kind, value={**value, "metadata": OURS})))
    assert [notification.reference for notification in found] == [reference]
    for metadata in ({}, {"subscription_id": "theirs"}, {"subscription_id": 7}, None):
        foreign = {**value, "metadata": metadata, "parent": {"subscription_details": {"metadata": metadata}}}
        assert list(rail.verify_notification(*signed(event(kind, value=foreign)))) == []


@pytest.mark.parametrize(
    "value",
    [
        {"object": "subscription", "id": 5},
        {"object": "subscription", "id": "sub_" + "x" * 400},
        {"object": "subscription", "id": "sub_1; DROP TABLE rail_notifications"},
        {"object": "invoice", "parent": {"subscription_details": {"metadata": OURS}}},
        {"object": "invoice", "parent": {"subscription_details": {"metadata": OURS, "subscription": ["a"]}}},
    ],
)
async def test_a_message_that_names_no_name_is_refused(rail: CardRail, value: dict[str, Any]) -> None:
    message = event("invoice.paid", value={"metadata": OURS, **value})
    with pytest.raises(NotificationRejected):
        rail.verify_notification(*signed(message))


async def test_an_old_signature_is_refused_and_a_recent_one_taken(rail: CardRail) -> None:
    with pytest.raises(NotificationRejected, match="too long ago"):
        rail.verify_notification(*signed(event(), age_seconds=301))
    assert rail.verify_notification(*signed(event(), age_seconds=280))


async def test_a_changed_body_and_a_missing_or_broken_header_are_refused(rail: CardRail) -> None:
    headers, body = signed(event())
    broken = ("", "t=1", "v1=00", "t=x,v1=00", headers["stripe-signature"].replace("v1=", "v0="))
    for header in broken:
        with pytest.raises(NotificationRejected):
            rail.verify_notification({"Stripe-Signature": header}, body)
    for forged in (body.replace(b"cs_test_1", b"cs_test_2"), b"\xff\xfe", b""):
        with pytest.raises(NotificationRejected):
            rail.verify_notification(headers, forged)


async def test_another_api_version_is_refused_with_the_way_out(rail: CardRail) -> None:
    with pytest.raises(NotificationRejected, match=API_VERSION):
        rail.verify_notification(*signed(event(api_version="2025-03-31.basil")))


async def test_a_message_of_the_other_mode_is_refused(rail: CardRail) -> None:
    with pytest.raises(NotificationRejected, match="mode"):
        rail.verify_notification(*signed(event(livemode=True)))


@pytest.mark.parametrize("body", ['{"object": "event"}', "[]", '"event"', "{"])
async def test_a_signed_message_that_is_no_event_is_refused(rail: CardRail, body: str) -> None:
    stamp = int(system_clock().timestamp())
    header = stripe.WebhookSignature.generate_signature_header(body, SECRET, stamp)
    with pytest.raises(NotificationRejected):
        rail.verify_notification({"Stripe-Signature": header}, body.encode())


async def test_messages_that_are_not_about_us_give_no_notification(rail: CardRail) -> None:
    assert list(rail.verify_notification(*signed(event(value={"metadata": {}})))) == []
    assert list(rail.verify_notification(*signed(event(value={"metadata": {"payment_id": "theirs"}})))) == []
    assert list(rail.verify_notification(*signed(event("customer.created")))) == []


async def test_a_dispute_of_an_unseen_payment_says_look_at_everything(rail: CardRail) -> None:
    value = {"object": "dispute", "id": "dp_1", "payment_intent": "pi_unseen", "metadata": {}}
    notifications = rail.verify_notification(*signed(event("charge.dispute.created", value=value)))
    assert [notification.reference for notification in notifications] == [None]


async def test_a_success_of_an_unseen_payment_waits_for_the_message_that_names_its_session(
    rail: CardRail,
) -> None:
    intent = {"object": "payment_intent", "id": "pi_unseen"}
    assert list(rail.verify_notification(*signed(event("payment_intent.succeeded", value=intent)))) == []
    failed = rail.verify_notification(*signed(event("payment_intent.payment_failed", value=intent)))
    assert [notification.reference for notification in failed] == [None]


async def test_a_dispute_of_an_observed_payment_names_its_session(
    rail: CardRail, harness: RailHarness, world: CardWorld
) -> None:
    instructions = await harness.open()
    await world.pay(instructions)
    await rail.observe(instructions.reference)
    await world.dispute(instructions)
    intent = (await world.sandbox.control(f"checkout/{instructions.reference}"))["payment_intent"]
    message = await world.inbox.message("charge.dispute.funds_withdrawn", intent)
    notifications = rail.verify_notification(message.headers, message.body)
    assert [notification.reference for notification in notifications] == [instructions.reference]


# --- how messages arrive ---------------------------------------------------------------------------


async def test_a_duplicated_message_is_the_same_notification_twice(
    rail: CardRail, harness: RailHarness, world: CardWorld
) -> None:
    instructions = await harness.open()
    await world.sandbox.control("faults", {"duplicate": 20})
    await world.pay(instructions)
    kind = "checkout.session.completed"
    all_ = await world.inbox.wait(
        lambda messages: sum(m.is_about(kind, instructions.reference) for m in messages) == 2
    )
    twins = [m for m in all_ if m.is_about(kind, instructions.reference)]
    first, second = (rail.verify_notification(m.headers, m.body) for m in twins)
    assert first == second


async def test_reordered_messages_lead_to_the_same_truth(
    rail: CardRail, harness: RailHarness, world: CardWorld
) -> None:
    instructions = await harness.open()
    await world.sandbox.control("faults", {"reorder": True})
    await world.pay(instructions)
    intent = (await world.sandbox.control(f"checkout/{instructions.reference}"))["payment_intent"]
    await world.inbox.message("payment_intent.created", intent)
    about = [m for m in world.inbox.messages if intent in m.body.decode()]
    kinds = [m.event["type"] for m in about]
    assert kinds.index("checkout.session.completed") < kinds.index("payment_intent.created")
    notifications = [
        notification for m in about for notification in rail.verify_notification(m.headers, m.body)
    ]
    assert {notification.reference for notification in notifications} == {instructions.reference}
    for notification in notifications:
        assert notification.reference is not None
        assert only_receipt(await rail.observe(notification.reference)).state is ReceiptState.SETTLED


async def test_a_message_that_is_refused_is_delivered_again(harness: RailHarness, world: CardWorld) -> None:
    instructions = await harness.open()
    world.inbox.status = 503
    refused = world.inbox.refused
    await world.pay(instructions)
    await world.inbox.refusals(refused + 3)
    world.inbox.status = 200
    await world.inbox.message("checkout.session.completed", instructions.reference)


async def test_dropped_messages_are_made_up_for_by_the_event_list(
    rail: CardRail, harness: RailHarness, world: CardWorld
) -> None:
    early = await harness.open()
    await world.pay(early)
    cursor = await harness.notification_about(early, None)
    await world.sandbox.control("faults", {"drop": 1000})
    late = await harness.open()
    await world.pay(late)
    async with asyncio.timeout(SECONDS_MAX), aclosing(listening(rail, cursor)) as notifications:
        async for notification in notifications:
            if notification.reference == late.reference:
                break
    assert only_receipt(await rail.observe(late.reference)).state is ReceiptState.SETTLED
    assert not any(m.is_about("checkout.session.completed", late.reference) for m in world.inbox.messages)


# --- the event list --------------------------------------------------------------------------------


async def test_no_event_is_skipped_over_many_pages(
    rail: CardRail, harness: RailHarness, world: CardWorld
) -> None:
    first = await harness.open()
    await world.pay(first)
    cursor = await harness.notification_about(first, None)
    references = []
    for _ in range(45):  # three listed events each: more than one page of a hundred
        instructions = await harness.open()
        await world.pay(instructions)
        references.append(instructions.reference)
    assert [r for r in await reported_by(rail, cursor, references[-1]) if r in references] == references
    from_the_start = await reported_by(rail, None, references[-1])
    assert [r for r in from_the_start if r in references] == references
    assert first.reference in from_the_start


async def test_refunds_and_disputes_are_notified_by_the_session_they_belong_to(
    harness: RailHarness, world: CardWorld
) -> None:
    for act in ("refund", "dispute"):
        instructions = await harness.open()
        await world.pay(instructions)
        cursor = await last_cursor(harness.rail, instructions.reference)
        await harness.restart()
        await world.sandbox.control(act, {"session": instructions.reference})
        assert await harness.notification_about(instructions, cursor)


async def test_a_cursor_that_stripe_has_forgotten_starts_from_the_oldest(
    rail: CardRail, harness: RailHarness, world: CardWorld
) -> None:
    instructions = await harness.open()
    await world.pay(instructions)
    assert instructions.reference in await reported_by(rail, "evt_of_long_ago", instructions.reference)


async def test_payments_of_another_shop_on_the_same_account_give_no_notification(
    rail: CardRail, harness: RailHarness, world: CardWorld
) -> None:
    form = {
        "mode": "payment",
        "success_url": "https://other.example/ok",
        "line_items[0][quantity]": "1",
        "line_items[0][price_data][currency]": "usd",
        "line_items[0][price_data][unit_amount]": "900",
        "line_items[0][price_data][product_data][name]": "A hat",
    }
    foreign = (await world.sandbox.api("POST", "checkout/sessions", data=form)).json()["id"]
    await world.sandbox.pay(foreign)
    await world.sandbox.control("refund", {"session": foreign})
    ours = await harness.open()
    await world.pay(ours)
    references = await reported_by(rail, None, ours.reference)
    assert foreign not in references
    assert None not in references
    message = await world.inbox.message("checkout.session.completed", foreign)
    assert list(rail.verify_notification(message.headers, message.body)) == []


async def test_listening_survives_an_outage(rail: CardRail, harness: RailHarness, world: CardWorld) -> None:
    instructions = await harness.open()
    await world.break_down()
    waiting = asyncio.create_task(harness.notification_about(instructions, None))
    with pytest.raises(RailUnavailable, match="reached"):
        await rail.observe(instructions.reference)
    await world.restore()
    await world.pay(instructions)
    await waiting


async def test_an_expired_session_is_notified(rail: CardRail, harness: RailHarness, world: CardWorld) -> None:
    instructions = await harness.open()
    await rail.cancel(instructions.reference)
    await harness.notification_about(instructions, None)
    assert (await rail.observe(instructions.reference)).status is PaymentRequestStatus.EXPIRED


def test_stripe_takes_that_many_types() -> None:
    assert len(set(LISTED_TYPES)) == len(LISTED_TYPES) <= MAX_TYPES
    assert set(LISTED_TYPES) < set(EVENT_TYPES)


async def listening(rail: Rail, cursor: str | None) -> AsyncGenerator[Notification, None]:
    async for notification in rail.listen(cursor):
        yield notification


async def reported_by(rail: CardRail, cursor: str | None, until: str) -> list[str | None]:
    """The references notified at since `cursor`, each once, up to the first notification about `until`."""
    found: dict[str | None, None] = {}
    async with asyncio.timeout(SECONDS_MAX), aclosing(listening(rail, cursor)) as notifications:
        async for notification in notifications:
            assert notification.cursor == notification.notification_id
            found[notification.reference] = None
            if notification.reference == until:
                break
    return list(found)


async def last_cursor(rail: Rail, reference: str) -> str:
    """The cursor after the last notification about a session that has just been paid."""
    async with asyncio.timeout(SECONDS_MAX), aclosing(listening(rail, None)) as notifications:
        about = 0
        async for notification in notifications:
            about += notification.reference == reference
            if about == 3:
                assert notification.cursor is not None
                return notification.cursor
    raise AssertionError("the rail stopped listening")
