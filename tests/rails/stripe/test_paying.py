"""What a payer and a bank may do, seen through `observe`."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from ledger.money import BTC, USD, Money
from rails.contract import PaymentRequestStatus, RailProtocolError, RailUnavailable, ReceiptState, Refund
from rails.stripe.rail import CardRail
from rails.testing.harness import RailHarness, only_receipt
from rails.testing.worlds import Impossible
from tests.rails.stripe.outside import CardWorld


async def test_a_paid_session_is_one_receipt_with_its_fee(harness: RailHarness, world: CardWorld) -> None:
    order = harness.order(minor=500)
    instructions = await harness.open(order)
    await world.pay(instructions)
    seen = await harness.rail.observe(instructions.reference)
    receipt = only_receipt(seen)
    assert seen.status is PaymentRequestStatus.CLOSED
    assert receipt.state is ReceiptState.SETTLED
    assert receipt.money_ref.startswith("stripe:pi_")
    assert receipt.amount == Money(500, USD)
    assert receipt.fee == Money(45, USD)  # 2.9 % + 30 cents, half up
    assert (receipt.external_ref or "").startswith("ch_")


async def test_the_session_carries_our_payment_id_and_return_url(
    harness: RailHarness, world: CardWorld
) -> None:
    order = harness.order()
    instructions = await harness.open(order)
    session = (await world.sandbox.api("GET", f"checkout/sessions/{instructions.reference}")).json()
    assert session["client_reference_id"] == order.payment_id
    assert session["metadata"] == {"payment_id": order.payment_id}
    assert session["success_url"] == session["cancel_url"] == order.return_url
    assert session["expires_at"] == int(order.expires_at.timestamp())
    assert instructions.url == session["url"]


async def test_a_decline_is_said_and_the_next_try_succeeds(harness: RailHarness, world: CardWorld) -> None:
    instructions = await harness.open()
    for code in ("insufficient_funds", "expired_card", "generic_decline"):
        await world.sandbox.pay(instructions.reference, "declined", decline_code=code)
        declined = await harness.rail.observe(instructions.reference)
        assert (declined.status, declined.decline_code) == (PaymentRequestStatus.DECLINED, code)
        assert not declined.receipts
    await world.pay(instructions)
    paid = await harness.rail.observe(instructions.reference)
    assert only_receipt(paid).state is ReceiptState.SETTLED
    assert (paid.status, paid.decline_code) == (PaymentRequestStatus.CLOSED, None)


async def test_an_abandoned_3d_secure_challenge_does_not_poison_a_later_try(
    harness: RailHarness, world: CardWorld
) -> None:
    instructions = await harness.open()
    await world.sandbox.pay(instructions.reference, "abandoned")
    abandoned = await harness.rail.observe(instructions.reference)
    assert (abandoned.status, list(abandoned.receipts)) == (PaymentRequestStatus.OPEN, [])
    await world.sandbox.pay(instructions.reference, "authentication_failed")
    failed = await harness.rail.observe(instructions.reference)
    assert failed.decline_code == "payment_intent_authentication_failure"
    await world.pay(instructions)
    assert only_receipt(await harness.rail.observe(instructions.reference)).state is ReceiptState.SETTLED


async def test_an_expired_session_is_no_failed_payment(harness: RailHarness, world: CardWorld) -> None:
    instructions = await harness.open()
    await world.decline(instructions)
    await world.move_clock(timedelta(hours=2))
    expired = await harness.rail.observe(instructions.reference)
    assert (expired.status, expired.decline_code, list(expired.receipts)) == (
        PaymentRequestStatus.EXPIRED,
        None,
        [],
    )
    with pytest.raises(Impossible):
        await world.pay(instructions)


async def test_a_delayed_method_settles_only_when_the_money_came(
    harness: RailHarness, world: CardWorld
) -> None:
    instructions = await harness.open()
    await world.sandbox.pay(instructions.reference, "processing")
    seen = await harness.rail.observe(instructions.reference)
    assert seen.status is PaymentRequestStatus.CLOSED
    assert only_receipt(seen).state is ReceiptState.SEEN
    await world.sandbox.control(f"checkout/{instructions.reference}/settle", {"outcome": "succeeded"})
    settled = only_receipt(await harness.rail.observe(instructions.reference))
    assert settled.state is ReceiptState.SETTLED
    assert settled.money_ref == only_receipt(seen).money_ref


async def test_a_delayed_method_that_bounces_is_declined_money_gone(
    harness: RailHarness, world: CardWorld
) -> None:
    instructions = await harness.open()
    await world.sandbox.pay(instructions.reference, "processing")
    await world.sandbox.control(f"checkout/{instructions.reference}/settle", {"outcome": "failed"})
    bounced = await harness.rail.observe(instructions.reference)
    assert bounced.status is PaymentRequestStatus.DECLINED
    assert not bounced.receipts


async def test_outside_refunds_add_up_and_a_failed_one_comes_back(
    harness: RailHarness, world: CardWorld
) -> None:
    instructions = await harness.open(harness.order(minor=2000))
    await world.pay(instructions)
    target = {"session": instructions.reference}
    await world.sandbox.control("refund", {**target, "amount": 300})
    second = await world.sandbox.control("refund", {**target, "amount": 200})
    receipt = only_receipt(await harness.rail.observe(instructions.reference))
    assert (receipt.state, receipt.reversed_amount) == (ReceiptState.REVERSED, Money(500, USD))
    await world.sandbox.control("refund", {"refund": second["id"], "status": "failed"})
    receipt = only_receipt(await harness.rail.observe(instructions.reference))
    assert receipt.reversed_amount == Money(300, USD)
    await world.sandbox.control("refund", target)
    receipt = only_receipt(await harness.rail.observe(instructions.reference))
    assert receipt.reversed_amount == receipt.amount


async def test_a_dispute_withdraws_and_a_win_reinstates(harness: RailHarness, world: CardWorld) -> None:
    instructions = await harness.open(harness.order(minor=2000))
    await world.pay(instructions)
    target = {"session": instructions.reference}
    await world.sandbox.control("dispute", {**target, "amount": 1500})
    receipt = only_receipt(await harness.rail.observe(instructions.reference))
    assert (receipt.state, receipt.reversed_amount) == (ReceiptState.DISPUTED, Money(1500, USD))
    await world.end_dispute(instructions, won=True)
    receipt = only_receipt(await harness.rail.observe(instructions.reference))
    assert (receipt.state, receipt.reversed_amount) == (ReceiptState.SETTLED, None)


async def test_a_lost_dispute_is_reversed_for_good(harness: RailHarness, world: CardWorld) -> None:
    instructions = await harness.open(harness.order(minor=2000))
    await world.pay(instructions)
    await world.dispute(instructions)
    await world.end_dispute(instructions, won=False)
    receipt = only_receipt(await harness.rail.observe(instructions.reference))
    assert (receipt.state, receipt.reversed_amount) == (ReceiptState.REVERSED, Money(2000, USD))


async def test_an_inquiry_withdraws_nothing(harness: RailHarness, world: CardWorld) -> None:
    instructions = await harness.open()
    await world.pay(instructions)
    await world.sandbox.control("dispute", {"session": instructions.reference, "status": "inquiry"})
    assert only_receipt(await harness.rail.observe(instructions.reference)).state is ReceiptState.SETTLED


# --- refunds of our own ----------------------------------------------------------------------------


async def test_our_refund_is_sent_once_per_key(
    rail: CardRail, harness: RailHarness, world: CardWorld
) -> None:
    instructions = await harness.open(harness.order(minor=2000))
    await world.pay(instructions)
    reference = instructions.reference
    assert await rail.refund(reference, Money(700, USD), None, "key-1") is Refund.SENT
    assert await rail.refund(reference, Money(700, USD), None, "key-1") is Refund.SENT
    assert await rail.refund(reference, Money(300, USD), None, "key-2") is Refund.SENT
    intent = (await world.sandbox.control(f"checkout/{reference}"))["payment_intent"]
    refunds = (await world.sandbox.api("GET", f"refunds?payment_intent={intent}")).json()["data"]
    assert sorted(refund["amount"] for refund in refunds) == [300, 700]
    # The core has taken those credits itself: it is not told again as a reversal.
    assert only_receipt(await rail.observe(reference)).state is ReceiptState.SETTLED


async def test_a_refund_whose_answer_is_lost_is_unknown_and_then_known(
    rail: CardRail, harness: RailHarness, world: CardWorld
) -> None:
    instructions = await harness.open(harness.order(minor=2000))
    await world.pay(instructions)
    await world.lose_next_answer()
    ask = rail.refund(instructions.reference, Money(700, USD), None, "lost")
    assert await ask is Refund.UNKNOWN
    assert await rail.refund(instructions.reference, Money(700, USD), None, "lost") is Refund.SENT
    intent = (await world.sandbox.control(f"checkout/{instructions.reference}"))["payment_intent"]
    refunds = (await world.sandbox.api("GET", f"refunds?payment_intent={intent}")).json()["data"]
    assert len(refunds) == 1


async def test_a_refund_that_bounces_later_is_told_when_asked_again(
    rail: CardRail, harness: RailHarness, world: CardWorld
) -> None:
    instructions = await harness.open(harness.order(minor=2000))
    await world.pay(instructions)
    assert await rail.refund(instructions.reference, Money(700, USD), None, "bounce") is Refund.SENT
    intent = (await world.sandbox.control(f"checkout/{instructions.reference}"))["payment_intent"]
    refund = (await world.sandbox.api("GET", f"refunds?payment_intent={intent}")).json()["data"][0]
    await world.sandbox.control("refund", {"refund": refund["id"], "status": "failed"})
    assert await rail.refund(instructions.reference, Money(700, USD), None, "bounce") is Refund.FAILED


async def test_a_refund_is_refused_when_disputed_or_too_large_or_unpaid(
    rail: CardRail, harness: RailHarness, world: CardWorld
) -> None:
    disputed, paid, unpaid = await harness.open(), await harness.open(), await harness.open()
    for instructions in (disputed, paid):
        await world.pay(instructions)
    await world.dispute(disputed)
    assert await rail.refund(disputed.reference, Money(100, USD), None, "a") is Refund.FAILED
    assert await rail.refund(paid.reference, Money(10_000_000, USD), None, "b") is Refund.FAILED
    assert await rail.refund(unpaid.reference, Money(100, USD), None, "c") is Refund.FAILED


# --- when the network or Stripe fails --------------------------------------------------------------


async def test_a_time_out_after_commit_opens_no_second_session(
    harness: RailHarness, world: CardWorld
) -> None:
    order = harness.order()
    await world.lose_next_answer()
    with pytest.raises(RailUnavailable):
        await harness.rail.open(order)
    await harness.rail.open(order)
    await harness.restart()
    await harness.rail.open(order)
    assert len(await _sessions_of(world, order.payment_id)) == 1


async def test_a_failure_kept_under_its_key_does_not_block_a_payment_for_ever(
    harness: RailHarness, world: CardWorld
) -> None:
    order = harness.order()
    await world.sandbox.control("faults", {"error_500": 1})
    with pytest.raises(RailUnavailable):
        await harness.rail.open(order)
    # From now on Stripe repeats that 500 under the same key.
    instructions = await harness.rail.open(order)
    assert len(await _sessions_of(world, order.payment_id)) == 1
    assert await harness.rail.open(order) == instructions


async def test_an_order_asked_again_with_a_moved_expiry_gives_the_same_session(
    harness: RailHarness, world: CardWorld
) -> None:
    order = harness.order()
    first = await harness.rail.open(order)
    await world.move_clock(timedelta(minutes=45))  # less than Stripe's half hour is left of the order
    assert (await harness.rail.open(order)).reference == first.reference
    assert len(await _sessions_of(world, order.payment_id)) == 1


async def test_two_processes_opening_at_once_open_one_session(harness: RailHarness, world: CardWorld) -> None:
    other = await world.start(harness.references)
    order = harness.order()
    first, second = await asyncio.gather(harness.rail.open(order), other.open(order))
    await other.close()
    assert first == second


async def test_a_500_while_observing_is_an_outage_and_not_an_answer(
    harness: RailHarness, world: CardWorld
) -> None:
    instructions = await harness.open()
    await world.sandbox.control("faults", {"refuse_500": 1})
    with pytest.raises(RailUnavailable):
        await harness.rail.observe(instructions.reference)
    assert (await harness.rail.observe(instructions.reference)).status is PaymentRequestStatus.OPEN


async def test_the_sdk_tries_again_by_itself_when_it_may(harness: RailHarness, world: CardWorld) -> None:
    patient = await world.start(harness.references, retries=2)
    await world.sandbox.control("faults", {"refuse_500": 1})
    order = harness.order()
    await patient.open(order)
    await patient.close()
    assert len(await _sessions_of(world, order.payment_id)) == 1


async def test_a_wrong_key_is_said_by_health_and_opens_nothing(
    harness: RailHarness, world: CardWorld
) -> None:
    stranger = await world.start(harness.references, key="sk_test_of_someone_else")
    health = await stranger.health()
    assert not health.ok
    assert "key" in health.detail
    with pytest.raises(RailUnavailable):
        await stranger.open(harness.order())
    await stranger.close()


async def test_an_unknown_session_and_an_unpayable_order_are_protocol_errors(harness: RailHarness) -> None:
    with pytest.raises(RailProtocolError):
        await harness.rail.observe("cs_test_unheard_of")
    with pytest.raises(RailProtocolError):
        await harness.rail.open(harness.order(minor=10))
    with pytest.raises(ValueError):
        await harness.rail.open(harness.order(minor=1000, hold=True))


async def test_other_currencies_are_refused(harness: RailHarness) -> None:
    order = harness.order(minor=1000)
    with pytest.raises(ValueError):
        await harness.rail.open(replace(order, amount_due=Money(1000, BTC)))


async def _sessions_of(world: CardWorld, payment_id: str) -> list[str]:
    page = (await world.sandbox.api("GET", "checkout/sessions?limit=100")).json()
    return [entry["id"] for entry in page["data"] if entry["client_reference_id"] == payment_id]
