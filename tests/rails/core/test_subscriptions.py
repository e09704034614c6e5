"""People subscribe, and the rail keeps the truth: on the fake network, with the log and the rows in memory."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from ledger.clock import ManualClock
from ledger.domain.account import ACCOUNTS
from ledger.domain.state import Account
from ledger.domain.view import plan_in_force
from ledger.identifiers import AccountId, Identifiers
from ledger.plans import PLANS
from ledger.testing.memory_log import MemoryLog
from rails.contract import RailProtocolError, RailUnavailable, ReceiptState
from rails.domain.state import PAYMENTS
from rails.domain.topup import TopupState
from rails.payments.runner import RailRunner, RunnerRules, Supervision
from rails.payments.service import Payments, UnknownReference
from rails.recurring import Offer, SubscriptionStatus
from rails.subscriptions.record import SubscriptionRecord
from rails.subscriptions.refusals import (
    ChangeWaits,
    NotRunning,
    PlanUnchanged,
    PlanUnknown,
    PreviewStale,
    SubscriptionExists,
    TooManyPages,
)
from rails.subscriptions.service import PAGES_MAX, PREVIEW_LASTS, Subscriptions
from rails.testing.fake_rail import FakeNetwork, FakeRail
from rails.testing.fixed_rates import FixedRates
from rails.testing.memory_store import MemoryRailStore
from rails.testing.memory_subscriptions import MemorySubscriptionStore
from tests.waiting import eventually

STARTER, PRO, UNLIMITED = (Offer(plan=name, length="month") for name in ("starter", "pro", "unlimited"))
RETURN_URL = "https://llamasketch.test/account?subscription={subscription_id}"
MONTH, GRACE = timedelta(days=31), timedelta(days=1)


@dataclass
class Town:
    """A platform with one subscriber, and the world around it."""

    clock: ManualClock
    network: FakeNetwork
    log: MemoryLog
    subscriptions: Subscriptions
    payments: Payments
    account_id: AccountId
    ids: Identifiers

    async def account(self) -> Account:
        state: Account = (await self.log.state(self.account_id)).state
        return state

    async def credits(self) -> int:
        return (await self.account()).posted(self.clock())

    async def plan(self) -> str:
        return plan_in_force(await self.account(), self.clock(), PLANS).name

    async def open(self, offer: Offer = STARTER, key: str | None = None) -> SubscriptionRecord:
        return await self.subscriptions.subscribe(
            self.account_id, "fake", offer, return_url=RETURN_URL, key=key
        )

    async def begin(self, offer: Offer = STARTER) -> SubscriptionRecord:
        """Subscribe and pay; the platform has looked."""
        record = await self.open(offer)
        await self.network.subscriptions.pay(page_of(record))
        return await self.subscriptions.observe(record.subscription_id)

    async def renew(self, record: SubscriptionRecord) -> SubscriptionRecord:
        """The period is over, and the platform has looked."""
        self.clock.advance(MONTH)
        await self.network.subscriptions.renew(name_of(record))
        return await self.subscriptions.observe(record.subscription_id)

    async def upgrade(self, record: SubscriptionRecord, offer: Offer, key: str = "up") -> SubscriptionRecord:
        shown, _, _ = await self.subscriptions.preview(record.subscription_id, offer)
        return await self.subscriptions.change(record.subscription_id, offer, at=shown.at, key=key)

    def again(self) -> Town:
        """The platform after a crash: nothing is kept but the log and its rows."""
        return town_on(self.clock, self.network, self.log, self.account_id, self.ids)


def town_on(
    clock: ManualClock, network: FakeNetwork, log: MemoryLog, account_id: AccountId, ids: Identifiers
) -> Town:
    rails = {"fake": FakeRail(network)}
    subscriptions = Subscriptions(
        log=log,
        reader=log,
        store=MemorySubscriptionStore(log.tables),
        rails=rails,  # type: ignore[arg-type]
        ids=ids,
        clock=clock,
        plans=PLANS,
    )
    payments = Payments(
        log=log,
        store=MemoryRailStore(log.tables),
        rails=rails,  # type: ignore[arg-type]
        rates=FixedRates(clock, {}),
        ids=ids,
        clock=clock,
        elsewhere=subscriptions.deal_with,
    )
    return Town(clock, network, log, subscriptions, payments, account_id, ids)


@pytest.fixture
def town() -> Town:
    clock = ManualClock(datetime(2026, 1, 5, 12, tzinfo=UTC))
    network = FakeNetwork(clock)
    network.subscriptions.prices = {STARTER: 800, PRO: 2_000, UNLIMITED: 4_000}
    log = MemoryLog([ACCOUNTS, PAYMENTS], clock)
    ids = Identifiers(clock)
    return town_on(clock, network, log, ids.account(), ids)


def page_of(record: SubscriptionRecord) -> str:
    assert record.page_reference is not None
    return record.page_reference


def name_of(record: SubscriptionRecord) -> str:
    assert record.reference is not None
    return record.reference


@asynccontextmanager
async def running(town: Town) -> AsyncIterator[None]:
    rails = town.subscriptions._rails
    async with Supervision(town.payments, rails, clock=town.clock):
        yield


# --- subscribing -----------------------------------------------------------------------------------


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


# --- time ------------------------------------------------------------------------------------------


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


# --- changes ---------------------------------------------------------------------------------------


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


async def invoice_of(town: Town, record: SubscriptionRecord) -> str:
    seen = town.network.subscriptions.observe(name_of(record))
    assert seen is not None
    return seen.invoices[-1].reference


async def unpaid(town: Town, record: SubscriptionRecord) -> str:
    return await invoice_of(town, record)
