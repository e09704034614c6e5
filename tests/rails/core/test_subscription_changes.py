"""Larger and smaller plans, cancelling and resuming: on the fake network, with the log in memory."""

from __future__ import annotations

from datetime import timedelta

import pytest

from rails.contract import RailUnavailable
from rails.recurring import SubscriptionStatus
from rails.subscriptions.refusals import ChangeWaits, PlanUnchanged, PreviewStale
from rails.subscriptions.service import PREVIEW_LASTS
from tests.rails.core.subscribing import GRACE, PRO, STARTER, UNLIMITED, Town, name_of, unpaid


async def test_a_larger_plan_brings_what_was_shown_for_what_was_shown(town: Town) -> None:
    record = await town.begin()
    town.clock.advance(timedelta(days=15, hours=12))
    shown, more, is_larger = await town.subscriptions.preview(record.subscription_id, PRO)
    assert (is_larger, shown.due_now.minor, more) == (True, 600, 3_000)
    record = await town.subscriptions.change(record.subscription_id, PRO, at=shown.at, key="up")
    assert (record.plan, await town.plan(), await town.credits()) == ("pro", "pro", 2_000 + more)
    newest = (await town.payments.topups_of(town.account_id))[0]
    assert (newest.amount_due, newest.credited) == (shown.due_now, more)
    record = await town.renew(record)
    assert (record.plan, await town.credits()) == ("pro", 8_000)


async def test_a_larger_plan_that_is_not_paid_changes_nothing_yet(town: Town) -> None:
    record = await town.begin()
    town.network.subscriptions.set_card(name_of(record), works=False)
    record = await town.upgrade(record, PRO)
    assert (record.plan, record.pending_plan, await town.plan()) == ("starter", "pro", "starter")
    assert (await town.credits(), record.pay_url is not None) == (2_000, True)
    with pytest.raises(ChangeWaits):
        await town.subscriptions.preview(record.subscription_id, UNLIMITED)
    await town.network.subscriptions.pay_invoice(await unpaid(town, record))
    record = await town.subscriptions.observe(record.subscription_id)
    assert (record.plan, record.pending_plan, await town.plan()) == ("pro", None, "pro")


async def test_a_larger_plan_that_nobody_paid_for_brings_nothing(town: Town) -> None:
    record = await town.begin()
    await town.network.subscriptions.switch_at_once(name_of(record), UNLIMITED)
    record = await town.subscriptions.observe(record.subscription_id)
    assert (record.plan, await town.plan(), await town.credits()) == ("unlimited", "starter", 2_000)


async def test_a_smaller_plan_comes_after_the_period_in_the_portal_too(town: Town) -> None:
    record = await town.begin(PRO)
    shown, more, is_larger = await town.subscriptions.preview(record.subscription_id, STARTER)
    assert (is_larger, shown.due_now.minor, shown.due_next.minor, more) == (False, 0, 800, 0)
    record = await town.subscriptions.change(record.subscription_id, STARTER, at=None, key="down")
    assert (record.plan, record.next_plan, await town.plan()) == ("pro", "starter", "pro")
    known = (await town.account()).status.find_subscription(record.subscription_id)
    assert known is not None
    assert known.next_plan == "starter"
    record = await town.renew(record)
    assert (record.plan, record.next_plan, await town.plan()) == ("starter", None, "starter")
    record = await town.upgrade(record, PRO)
    await town.network.subscriptions.switch_at_once(name_of(record), STARTER)
    await town.subscriptions.observe(record.subscription_id)
    assert await town.plan() == "pro", "what was paid lasts as long as it was paid for"


async def test_cancelling_and_resuming_are_facts_of_the_account(town: Town) -> None:
    record = await town.begin()
    for act, cancels in (
        (town.subscriptions.cancel, True),
        (town.subscriptions.resume, False),
        (town.subscriptions.cancel, True),
    ):
        record = await act(record.subscription_id)
        known = (await town.account()).status.find_subscription(record.subscription_id)
        assert known is not None
        assert known.cancels is record.cancels is cancels
    record = await town.renew(record)
    assert (record.status, await town.plan()) == (SubscriptionStatus.ENDED, "free")
    town.clock.advance(GRACE)
    assert await town.credits() == 0


async def test_a_change_must_be_one_and_its_price_fresh(town: Town) -> None:
    record = await town.begin()
    name = record.subscription_id
    with pytest.raises(PlanUnchanged):
        await town.subscriptions.preview(name, STARTER)
    shown, _, _ = await town.subscriptions.preview(name, PRO)
    for at in (None, shown.at + timedelta(seconds=1), shown.at - PREVIEW_LASTS - timedelta(seconds=1)):
        with pytest.raises(PreviewStale):
            await town.subscriptions.change(name, PRO, at=at, key="up")
    assert await town.credits() == 2_000


async def test_an_answer_lost_after_the_change_is_made_up_for_by_the_sweep(town: Town) -> None:
    record = await town.begin()
    shown, more, _ = await town.subscriptions.preview(record.subscription_id, PRO)
    town.network.answers_to_lose = 1
    with pytest.raises(RailUnavailable):
        await town.subscriptions.change(record.subscription_id, PRO, at=shown.at, key="up")
    record = await town.subscriptions.known(record.subscription_id)
    assert record.due_at <= town.clock() + timedelta(minutes=1)
    due_again = await town.again().subscriptions.visit(record.to_row())
    assert due_again is not None
    assert due_again > town.clock()
    assert (await town.plan(), await town.credits()) == ("pro", 2_000 + more)
