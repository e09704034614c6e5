"""Periods are renewed, missed, unpaid, paused and disputed: on the fake network, with the log in memory."""

from __future__ import annotations

from datetime import timedelta

import pytest

from rails.contract import ReceiptState
from rails.domain.topup import TopupState
from rails.payments.refunds import RefundAsked
from rails.recurring import Offer, SubscriptionStatus
from rails.subscriptions.refusals import NotRunning
from tests.rails.core.subscribing import (
    GRACE,
    MONTH,
    PRO,
    STARTER,
    UNLIMITED,
    Town,
    invoice_of,
    name_of,
    unpaid,
)


async def test_each_renewal_grants_once_and_old_credits_lapse(town: Town) -> None:
    record = await town.begin()
    for _ in range(3):
        record = await town.renew(record)
        assert await town.plan() == "starter"
    assert len(await town.payments.topups_of(town.account_id)) == 4
    town.clock.advance(GRACE)
    assert await town.credits() == 2_000


async def test_periods_that_were_missed_are_all_found_at_once(town: Town) -> None:
    record = await town.begin()
    for _ in range(3):
        town.clock.advance(MONTH)
        await town.network.subscriptions.renew(name_of(record))
    await town.again().subscriptions.deal_with("fake", name_of(record))
    known = (await town.account()).status.find_subscription(record.subscription_id)
    assert known is not None
    assert len(known.starts) == 4


async def test_a_failed_renewal_has_its_grace_and_then_the_plan_rests(town: Town) -> None:
    record = await town.begin()
    town.network.subscriptions.set_card(name_of(record), works=False)
    record = await town.renew(record)
    assert record.status is SubscriptionStatus.PAST_DUE
    assert record.pay_url is not None
    assert record.next_attempt_at is not None
    assert await town.plan() == "starter", "the day of grace"
    town.clock.advance(timedelta(days=2))
    assert (await town.plan(), await town.credits()) == ("free", 0)
    await town.network.subscriptions.pay_invoice(await unpaid(town, record))
    record = await town.subscriptions.observe(record.subscription_id)
    assert (record.status, record.pay_url) == (SubscriptionStatus.ACTIVE, None)
    assert (await town.plan(), await town.credits()) == ("starter", 2_000)


async def test_a_renewal_that_failed_for_good_ends_the_plan_until_it_is_paid(town: Town) -> None:
    record = await town.begin()
    town.network.subscriptions.set_card(name_of(record), works=False)
    record = await town.renew(record)
    for _ in range(4):
        town.clock.advance(timedelta(days=4))
        await town.network.subscriptions.try_again(name_of(record))
        record = await town.subscriptions.observe(record.subscription_id)
    assert record.status is SubscriptionStatus.UNPAID
    known = (await town.account()).status.find_subscription(record.subscription_id)
    assert known is not None
    assert known.ended_at is not None
    await town.network.subscriptions.pay_invoice(await unpaid(town, record))
    await town.subscriptions.observe(record.subscription_id)
    assert (await town.plan(), await town.credits()) == ("starter", 2_000)


async def test_what_was_paid_stays_when_the_provider_ends_it(town: Town) -> None:
    record = await town.begin()
    await town.network.subscriptions.end(name_of(record))
    record = await town.subscriptions.observe(record.subscription_id)
    assert (record.status, record.watched) == (SubscriptionStatus.ENDED, False)
    assert await town.credits() == 2_000
    with pytest.raises(NotRunning):
        await town.subscriptions.cancel(record.subscription_id)
    town.clock.advance(MONTH + GRACE)
    assert (await town.plan(), await town.credits()) == ("free", 0)
    await town.begin(PRO)
    assert await town.plan() == "pro"


async def test_a_pause_collects_nothing_and_can_be_taken_back(town: Town) -> None:
    record = await town.begin()
    await town.network.subscriptions.pause(name_of(record), paused=True)
    record = await town.subscriptions.observe(record.subscription_id)
    assert (record.status, await town.plan()) == (SubscriptionStatus.PAUSED, "starter")
    record = await town.subscriptions.resume(record.subscription_id)
    assert record.status is SubscriptionStatus.ACTIVE


async def test_money_of_a_period_that_goes_back_takes_its_credits_along(town: Town) -> None:
    record = await town.begin()
    invoice = await invoice_of(town, record)
    for money_ref in list(town.network.way(invoice).receipts):
        await town.network.change(invoice, money_ref, ReceiptState.REVERSED)
    await town.payments.deal_with("fake", invoice)
    assert await town.credits() == 0
    (topup,) = await town.payments.topups_of(town.account_id)
    assert topup.state is TopupState.REVERSED
    assert await town.plan() == "free"


@pytest.mark.parametrize("offer", [STARTER, UNLIMITED], ids=str)
async def test_a_disputed_period_brings_nothing_and_earns_nothing_until_it_is_won(
    town: Town, offer: Offer
) -> None:
    record = await town.begin(offer)
    invoice = await invoice_of(town, record)
    (money_ref,) = list(town.network.way(invoice).receipts)
    town.clock.advance(timedelta(days=3))
    await town.network.change(invoice, money_ref, ReceiptState.DISPUTED)
    await town.payments.deal_with("fake", invoice)
    account = await town.account()
    assert (await town.plan(), account.status.schedules) == ("free", ())
    assert await town.credits() == 0
    town.clock.advance(timedelta(days=3))
    await town.network.change(invoice, money_ref, ReceiptState.SETTLED)
    await town.payments.deal_with("fake", invoice)
    assert await town.plan() == offer.plan
    account = await town.account()
    if offer == UNLIMITED:
        (schedule,) = account.status.schedules
        assert schedule.consideration.worth.net_minor > 0
    else:
        assert await town.credits() == 2_000


async def test_the_money_of_a_plan_with_daily_images_goes_and_comes_back(town: Town) -> None:
    record = await town.begin(UNLIMITED)
    invoice, account = await invoice_of(town, record), await town.account()
    assert (await town.plan(), len(account.status.schedules)) == ("unlimited", 1)
    town.clock.advance(timedelta(days=3))
    (money_ref,) = town.network.way(invoice).receipts
    await town.network.change(invoice, money_ref, ReceiptState.DISPUTED)
    await town.payments.deal_with("fake", invoice)
    assert (await town.plan(), (await town.account()).status.schedules) == ("free", ())
    await town.network.change(invoice, money_ref, ReceiptState.SETTLED)
    await town.payments.deal_with("fake", invoice)
    assert (await town.plan(), len((await town.account()).status.schedules)) == ("unlimited", 1)


async def test_a_period_of_which_a_part_was_refunded_and_the_rest_is_disputed_brings_its_plan_no_more(
    town: Town,
) -> None:
    record = await town.begin()
    invoice = await invoice_of(town, record)
    (money_ref,) = town.network.way(invoice).receipts
    (paid,) = await town.payments.topups_of(town.account_id)
    asked = RefundAsked(payment_id=paid.payment_id, credits=500, reason="asked for")
    await town.payments.refunds.request(town.account_id, asked, actor="operator:test")
    (row,) = [row for (table, _), row in town.log.tables.items() if table == "rail_refunds"]
    await town.payments.refunds.send(row)
    assert (await town.credits(), await town.plan()) == (1_500, "starter")
    for state, back, left, plan in (
        (ReceiptState.DISPUTED, 600, 0, "free"),
        (ReceiptState.SETTLED, None, 1_500, "starter"),
    ):
        await town.network.change(invoice, money_ref, state, back)
        await town.payments.deal_with("fake", invoice)
        assert (await town.credits(), await town.plan()) == (left, plan)


async def test_a_won_dispute_about_a_period_brings_its_credits_back(town: Town) -> None:
    record = await town.begin()
    invoice = await invoice_of(town, record)
    (money_ref,) = town.network.way(invoice).receipts
    for state, left, plan in (
        (ReceiptState.DISPUTED, 0, "free"),
        (ReceiptState.SETTLED, 2_000, "starter"),
    ):
        await town.network.change(invoice, money_ref, state)
        await town.payments.deal_with("fake", invoice)
        assert (await town.credits(), await town.plan()) == (left, plan)
