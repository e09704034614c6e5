"""A month becomes a year and back, and larger plans go with their money: on the fake network, the log in memory."""

from __future__ import annotations

from datetime import timedelta

import pytest

from rails.contract import ReceiptState
from rails.recurring import Offer
from rails.subscriptions.record import SubscriptionRecord
from rails.subscriptions.refusals import PlanUnchanged
from tests.rails.core.subscribing import MONTH, PRO, STARTER, UNLIMITED, Town, invoice_of, name_of, unpaid

STARTER_YEAR, PRO_YEAR, UNLIMITED_YEAR = (
    Offer(plan=name, length="year") for name in ("starter", "pro", "unlimited")
)
HALF_A_MONTH = timedelta(days=15, hours=12)


@pytest.fixture(autouse=True)
def sold_by_the_year(town: Town) -> None:
    town.network.subscriptions.prices |= {STARTER_YEAR: 8_000, PRO_YEAR: 20_000, UNLIMITED_YEAR: 40_000}


async def move(
    town: Town, record: SubscriptionRecord, money_of: str, state: ReceiptState
) -> SubscriptionRecord:
    """The money of an invoice goes, or comes back, and the platform has looked."""
    for money_ref in list(town.network.way(money_of).receipts):
        await town.network.change(money_of, money_ref, state)
    await town.payments.deal_with("fake", money_of)
    return await town.subscriptions.observe(record.subscription_id)


async def test_a_year_by_card_brings_the_credits_of_twelve_months(town: Town) -> None:
    record = await town.begin(STARTER_YEAR)
    assert (await town.credits(), await town.plan(), record.length) == (24_000, "starter", "year")
    town.clock.advance(timedelta(days=300))
    assert (await town.credits(), await town.plan()) == (24_000, "starter")


async def test_a_month_becomes_a_year_at_once_for_what_was_shown_and_brings_what_was_shown(
    town: Town,
) -> None:
    record = await town.begin()
    town.clock.advance(HALF_A_MONTH)
    shown, more, at_once = await town.subscriptions.preview(record.subscription_id, STARTER_YEAR)
    assert (at_once, shown.due_now.minor, shown.due_next.minor, more) == (True, 7_600, 8_000, 23_000)
    assert shown.next_at - town.clock() > timedelta(days=364)
    record = await town.subscriptions.change(record.subscription_id, STARTER_YEAR, at=shown.at, key="long")
    assert (record.offer, await town.credits()) == (STARTER_YEAR, 2_000 + more)
    assert record.period_end == shown.next_at
    newest = (await town.payments.topups_of(town.account_id))[0]
    assert (newest.amount_due, newest.credited) == (shown.due_now, more)
    town.clock.advance(timedelta(days=100))
    assert (await town.plan(), await town.credits()) == ("starter", more), (
        "the month's own credits have ended"
    )


async def test_going_round_between_lengths_never_brings_more_than_was_paid_for(town: Town) -> None:
    """Each year that begins anew takes back what the one before had for its rest."""
    record = await town.begin(STARTER_YEAR)
    town.clock.advance(timedelta(days=73))
    record = await town.upgrade(record, PRO_YEAR)
    assert await town.credits() == 24_000 + 72_000 * 4 // 5
    with pytest.raises(PlanUnchanged):
        await town.subscriptions.preview(record.subscription_id, PRO_YEAR)


async def test_a_larger_plan_and_a_longer_time_may_come_together(town: Town) -> None:
    record = await town.begin()
    town.clock.advance(HALF_A_MONTH)
    record = await town.upgrade(record, PRO_YEAR)
    assert (record.offer, await town.plan(), await town.credits()) == (PRO_YEAR, "pro", 2_000 + 95_000)


async def test_a_daily_plan_by_the_year_brings_its_credits_each_day(town: Town) -> None:
    record = await town.begin(UNLIMITED)
    town.clock.advance(timedelta(hours=1))
    record = await town.upgrade(record, UNLIMITED_YEAR)
    account = await town.account()
    assert (await town.plan(), len(account.status.schedules)) == ("unlimited", 2)
    assert sum(each.consideration.worth.net_minor for each in account.status.schedules) == 40_006
    town.clock.advance(timedelta(days=200))
    assert await town.plan() == "unlimited"


@pytest.mark.parametrize("offer", [STARTER, PRO], ids=str)
async def test_a_year_becomes_a_month_after_it_whatever_the_plan(town: Town, offer: Offer) -> None:
    record = await town.begin(STARTER_YEAR)
    shown, more, at_once = await town.subscriptions.preview(record.subscription_id, offer)
    assert (at_once, shown.due_now.minor, more) == (False, 0, 0)
    assert shown.due_next.minor == town.network.subscriptions.prices[offer]
    record = await town.subscriptions.change(record.subscription_id, offer, at=None, key="short")
    assert (record.offer, record.next_plan, record.next_length) == (STARTER_YEAR, offer.plan, "month")
    assert await town.credits() == 24_000
    town.clock.advance(timedelta(days=365))
    await town.network.subscriptions.renew(name_of(record))
    record = await town.subscriptions.observe(record.subscription_id)
    assert (record.offer, record.next_plan, record.next_length) == (offer, None, None)
    town.clock.advance(timedelta(days=2))
    assert (await town.plan(), await town.credits()) == (offer.plan, 2_000 if offer == STARTER else 8_000)


@pytest.mark.parametrize("offer", [PRO, STARTER_YEAR], ids=str)
async def test_what_could_begin_at_once_may_also_wait_for_the_period(town: Town, offer: Offer) -> None:
    record = await town.begin()
    name = record.subscription_id
    shown, more, at_once = await town.subscriptions.preview(name, offer, later=True)
    assert (at_once, shown.due_now.minor, more) == (False, 0, 0)
    record = await town.subscriptions.change(name, offer, at=None, key="later", later=True)
    assert (record.offer, record.next_plan, record.next_length) == (STARTER, offer.plan, offer.length)
    assert (await town.plan(), await town.credits()) == ("starter", 2_000)
    record = await town.renew(record)
    town.clock.advance(timedelta(days=2))
    assert (record.offer, await town.plan()) == (offer, offer.plan)
    assert await town.credits() == (8_000 if offer == PRO else 24_000)


async def test_a_year_that_is_not_paid_changes_nothing_yet(town: Town) -> None:
    record = await town.begin()
    town.clock.advance(timedelta(hours=1))
    town.network.subscriptions.set_card(name_of(record), works=False)
    record = await town.upgrade(record, STARTER_YEAR)
    assert (record.offer, record.pending_plan, record.pending_length) == (STARTER, "starter", "year")
    assert await town.credits() == 2_000
    await town.network.subscriptions.pay_invoice(await unpaid(town, record))
    record = await town.subscriptions.observe(record.subscription_id)
    assert (record.offer, record.pending_length) == (STARTER_YEAR, None)
    assert 24_000 <= await town.credits() < 26_000


async def test_a_larger_plan_goes_with_its_money_and_comes_back_with_it(town: Town) -> None:
    record = await town.begin()
    record = await town.upgrade(record, PRO)
    upgrade, more = await invoice_of(town, record), await town.credits() - 2_000
    record = await move(town, record, upgrade, ReceiptState.DISPUTED)
    assert (await town.plan(), await town.credits()) == ("starter", 2_000)
    await move(town, record, upgrade, ReceiptState.SETTLED)
    assert (await town.plan(), await town.credits()) == ("pro", 2_000 + more)
    town.clock.advance(MONTH - timedelta(hours=1))
    assert await town.plan() == "pro"
    town.clock.advance(timedelta(days=3))
    assert await town.plan() == "free", "it ends with its period"


async def test_of_two_larger_plans_the_one_whose_money_is_ours_stays(town: Town) -> None:
    record = await town.begin()
    record = await town.upgrade(record, PRO, key="1")
    to_pro = await invoice_of(town, record)
    record = await town.upgrade(record, UNLIMITED, key="2")
    to_unlimited = await invoice_of(town, record)
    for money, state, plan in (
        (to_pro, ReceiptState.DISPUTED, "unlimited"),
        (to_unlimited, ReceiptState.DISPUTED, "starter"),
        (to_pro, ReceiptState.SETTLED, "pro"),
        (to_unlimited, ReceiptState.SETTLED, "unlimited"),
    ):
        record = await move(town, record, money, state)
        assert await town.plan() == plan
    account = await town.account()
    assert len(account.status.schedules) == 1, "what came back of the daily plan is earned again"


async def test_a_plan_whose_larger_one_was_lost_is_charged_for_as_the_provider_says(town: Town) -> None:
    record = await town.begin()
    record = await town.upgrade(record, PRO)
    record = await move(town, record, await invoice_of(town, record), ReceiptState.REVERSED)
    assert (record.plan, await town.plan()) == ("pro", "starter")
    record = await town.renew(record)
    assert (record.plan, await town.plan()) == ("pro", "pro")
