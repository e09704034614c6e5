"""People subscribe, and the rail keeps the truth: on the fake network, with the log and the rows in memory."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from ledger.domain.account import ACCOUNTS
from ledger.domain.state import Account
from ledger.testing.memory_log import MemoryLog
from rails.contract import RailProtocolError, RailUnavailable
from rails.domain.state import PAYMENTS
from rails.domain.topup import TopupState
from rails.payments.runner import RailRunner, RunnerRules, Supervision
from rails.payments.service import UnknownReference
from rails.recurring import Offer, SubscriptionStatus
from rails.subscriptions.refusals import PlanUnknown, SubscriptionExists, TooManyPages
from rails.subscriptions.service import PAGES_MAX
from tests.rails.core.subscribing import PRO, STARTER, UNLIMITED, Town, name_of, page_of, town_on
from tests.waiting import eventually


@asynccontextmanager
async def running(town: Town) -> AsyncIterator[None]:
    rails = town.subscriptions._rails
    async with Supervision(town.payments, rails, clock=town.clock):
        yield


async def test_a_page_that_is_open_or_was_left_grants_nothing(town: Town) -> None:
    record = await town.open()
    assert (record.status, record.page_url) == (
        SubscriptionStatus.OPENING,
        f"https://fake.test/{page_of(record)}",
    )
    record = await town.subscriptions.observe(record.subscription_id)
    await town.network.subscriptions.close(page_of(record))
    record = await town.subscriptions.observe(record.subscription_id)
    assert (record.status, record.page_url, record.watched) == (SubscriptionStatus.EXPIRED, None, False)
    assert (await town.account(), await town.credits(), await town.plan()) == (Account(), 0, "free")


async def test_a_paid_page_grants_the_first_period_as_a_payment_of_its_own(town: Town) -> None:
    record = await town.begin()
    assert (record.status, record.plan) == (SubscriptionStatus.ACTIVE, "starter")
    assert (await town.credits(), await town.plan()) == (2_000, "starter")
    (topup,) = await town.payments.topups_of(town.account_id)
    assert (topup.state, topup.amount_due.minor, topup.credited) == (TopupState.PAID, 800, 2_000)
    (lot,) = (await town.account()).lots
    assert lot.terms.consideration is not None
    assert lot.terms.consideration.payment_id == topup.payment_id
    assert lot.terms.consideration.worth.net_minor == 800
    assert (await town.account()).status.find_subscription(record.subscription_id) is not None


async def test_the_same_news_any_number_of_times_changes_nothing(town: Town) -> None:
    record = await town.begin()
    written = len(town.log.log)
    for _ in range(3):
        await town.subscriptions.observe(record.subscription_id)
        assert await town.subscriptions.deal_with("fake", name_of(record))
        assert await town.again().subscriptions.deal_with("fake", page_of(record))
    assert len(town.log.log) == written


async def test_a_notification_leads_to_the_truth(town: Town) -> None:
    async with running(town):
        record = await town.open()
        await town.network.subscriptions.pay(page_of(record))
        await eventually(lambda: town.log.seen(town.account_id) is not None, "the period is granted")
    assert await town.credits() == 2_000


async def test_the_same_key_opens_one_page(town: Town) -> None:
    first, second = await town.open(key="cmd_1"), await town.open(key="cmd_1")
    assert first.subscription_id == second.subscription_id


async def test_a_page_whose_answer_was_lost_opens_when_it_is_asked_for_again(town: Town) -> None:
    town.network.answers_to_lose = 1
    with pytest.raises(RailUnavailable):
        await town.open(key="cmd_1")
    record = await town.open(key="cmd_1")
    assert record.page_url is not None
    await town.network.subscriptions.pay(page_of(record))
    assert (await town.subscriptions.observe(record.subscription_id)).status is SubscriptionStatus.ACTIVE


async def test_a_page_that_nobody_was_given_is_forgotten(town: Town) -> None:
    town.network.answers_to_lose = 1
    with pytest.raises(RailUnavailable):
        await town.open(key="cmd_1")
    (record,) = await town.subscriptions.of_account(town.account_id)
    town.clock.advance(timedelta(minutes=11))
    await town.subscriptions.visit(record.to_row())
    (record,) = await town.subscriptions.of_account(town.account_id)
    assert (record.status, record.watched) == (SubscriptionStatus.EXPIRED, False)


async def test_a_second_plan_is_refused_while_one_runs(town: Town) -> None:
    await town.begin()
    with pytest.raises(SubscriptionExists) as refused:
        await town.open(PRO)
    assert refused.value.details == {"plan": "starter"}


async def test_another_page_closes_the_one_before_and_what_was_paid_there_wins(town: Town) -> None:
    left = await town.open(STARTER)
    taken = await town.open(PRO)
    assert (await town.subscriptions.known(left.subscription_id)).status is SubscriptionStatus.EXPIRED
    await town.network.subscriptions.pay(page_of(taken))
    with pytest.raises(SubscriptionExists):
        await town.open(UNLIMITED)
    assert await town.plan() == "pro"


async def test_an_account_has_only_so_many_pages_open(town: Town) -> None:
    async def stays_open(page: str) -> None:
        """The provider does not close it."""

    town.network.subscriptions.close = stays_open  # type: ignore[method-assign]
    for _ in range(PAGES_MAX):
        await town.open()
    with pytest.raises(TooManyPages):
        await town.open()


async def test_two_plans_that_were_paid_all_the_same_both_bring_their_credits(town: Town) -> None:
    async def stays_open(page: str) -> None:
        """The other tab is quicker."""

    town.network.subscriptions.close = stays_open  # type: ignore[method-assign]
    larger, smaller = await town.open(PRO), await town.open(STARTER)
    for record in (larger, smaller):
        await town.network.subscriptions.pay(page_of(record))
        await town.subscriptions.observe(record.subscription_id)
    assert (await town.credits(), await town.plan()) == (10_000, "pro")
    await town.subscriptions.cancel(smaller.subscription_id)
    found = {record.plan: record.cancels for record in await town.subscriptions.of_account(town.account_id)}
    assert found == {"pro": False, "starter": True}


async def test_an_unknown_plan_and_the_free_one_are_refused(town: Town) -> None:
    for name in ("nowhere", "free"):
        with pytest.raises(PlanUnknown):
            await town.open(Offer(plan=name, length="month"))


async def test_somebody_elses_subscription_is_none_of_ours(town: Town) -> None:
    log = MemoryLog([ACCOUNTS, PAYMENTS], town.clock)
    stranger = town_on(town.clock, town.network, log, town.account_id, town.ids)
    theirs = await stranger.begin()
    assert not await town.subscriptions.deal_with("fake", name_of(theirs))
    with pytest.raises(UnknownReference):
        await town.payments.deal_with("fake", name_of(theirs))
    assert await town.credits() == 0


async def test_a_message_that_cannot_be_understood_is_set_aside_with_its_reason_and_replayed(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unreadable(reference: str) -> None:
        raise RailProtocolError("an invoice of ours is in 'eur'")

    rail = town.subscriptions._rails["fake"]
    record = await town.open()
    await town.network.subscriptions.pay(page_of(record))
    rules = RunnerRules(notification_tries_max=2)
    runner = RailRunner(town.payments, rail, clock=town.clock, rules=rules, randomness=random.Random(1))
    webhook = town.network.webhook(page_of(record), "evt_1")
    await town.payments.accept_notification("fake", *webhook)
    with monkeypatch.context() as broken:
        broken.setattr(rail, "observe_subscription", unreadable)
        for _ in range(2):
            assert await runner.work_once() == 1
            town.clock.advance(timedelta(minutes=5))
    (row,) = town.payments.store._notifications.values()  # type: ignore[attr-defined]
    assert (row.state, row.problem.partition(":")[0]) == ("unmatched", "rail_protocol_broken")
    assert (await town.account(), runner.unmatched) == (Account(), 1)
    row.state = "waiting"  # as `llamasketch followups --replay` does
    assert await runner.work_once() == 1
    assert (await town.credits(), row.state) == (2_000, "done")
