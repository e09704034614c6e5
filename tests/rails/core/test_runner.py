"""What runs as long as payments are taken."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from ledger.clock import ManualClock
from ledger.domain.account import ACCOUNTS
from ledger.followups.backoff import Backoff
from ledger.testing.memory_log import MemoryLog
from rails.contract import Health, Notification, Observation, RailUnavailable, ReceiptState
from rails.domain.state import PAYMENTS
from rails.domain.topup import TopupState
from rails.payments.runner import RunnerRules, Supervision
from rails.testing.fake_capabilities import fake_capabilities
from rails.testing.fake_rail import FakeNetwork, FakeRail
from rails.testing.memory_store import MemoryRailStore
from tests.rails.core.platform import (
    RULES,
    START,
    Platform,
    assemble,
    notifications_waiting,
    opened,
    runner_of,
    until_state,
)
from tests.waiting import SECONDS_MAX


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(SECONDS_MAX):
        while not await condition():
            await asyncio.sleep(0)


@pytest.fixture
async def supervision(platform: Platform) -> AsyncIterator[Supervision]:
    async with Supervision(
        platform.payments, platform.rails, clock=platform.clock, randomness=random.Random(1)
    ) as running:
        yield running


async def test_a_notification_becomes_credits_without_polling(
    platform: Platform, supervision: Supervision
) -> None:
    topup = await opened(platform)
    await asyncio.wait_for(supervision.runners["fake"].caught_up.wait(), SECONDS_MAX)
    await platform.pay(topup.payment_id)
    await until_state(platform, topup, TopupState.SEEN)
    await platform.network.settle()
    await until_state(platform, topup, TopupState.PAID)
    assert supervision.report()["fake"] == {
        "ok": True,
        "detail": "",
        "listening": True,
        "caught_up": True,
        "unmatched_hints": 0,
        "refused": None,
        "receivable": None,
        "following": None,
    }


async def test_what_was_paid_while_we_were_down_is_credited_at_the_start(platform: Platform) -> None:
    topup = await opened(platform)
    platform.network.notifications_per_change = 0
    await platform.pay(topup.payment_id)
    await platform.network.settle()
    async with Supervision(platform.payments, platform.rails, clock=platform.clock):
        await until_state(platform, topup, TopupState.PAID)


class SilentRail(FakeRail):
    """A rail that is asked and does not answer: our process can die while it waits."""

    def __init__(self, network: FakeNetwork) -> None:
        super().__init__(network)
        self.asked = asyncio.Event()

    async def observe(self, reference: str) -> Observation:
        self.asked.set()
        return await asyncio.get_running_loop().create_future()


@asynccontextmanager
async def only_listening(platform: Platform) -> AsyncIterator[None]:
    """A process that follows notifications; no sweep asks about what is pending."""
    listening = asyncio.create_task(runner_of(platform).listen())
    try:
        yield
    finally:
        listening.cancel()
        await asyncio.wait([listening], timeout=SECONDS_MAX)


async def dies_while_it_asks(platform: Platform) -> None:
    """A process that was notified of a payment and ended before it knew more."""
    answering, silent = platform.rails["fake"], SilentRail(platform.network)
    platform.rails["fake"] = silent
    async with only_listening(platform):
        await asyncio.wait_for(silent.asked.wait(), SECONDS_MAX)
    platform.rails["fake"] = answering


async def test_the_cursor_moves_only_after_the_notification_was_dealt_with(platform: Platform) -> None:
    topup = await opened(platform)
    await platform.pay(topup.payment_id)
    await dies_while_it_asks(platform)
    assert await platform.store.cursor("fake") is None
    assert (await platform.payments.topup(topup.payment_id)).state is TopupState.WAITING


async def test_a_notification_that_a_crash_interrupted_is_followed_by_the_next_listener(
    platform: Platform,
) -> None:
    topup = await opened(platform)
    await platform.pay(topup.payment_id)
    await dies_while_it_asks(platform)

    async def moved() -> bool:
        return await platform.store.cursor("fake") == "1"

    async with only_listening(platform):
        await until_state(platform, topup, TopupState.SEEN)
        await until(moved)


async def test_a_stored_notification_is_closed_only_after_it_was_dealt_with(platform: Platform) -> None:
    topup = await opened(platform)
    reference = await platform.reference(topup.payment_id)
    await platform.payments.accept_notification("fake", *platform.network.webhook(reference, "evt_1"))
    silent = platform.rails["fake"] = SilentRail(platform.network)
    working = asyncio.create_task(runner_of(platform).work_once())
    await asyncio.wait_for(silent.asked.wait(), SECONDS_MAX)
    working.cancel()
    await asyncio.wait([working], timeout=SECONDS_MAX)
    assert await notifications_waiting(platform.store) == 1


class UnreachableRail(FakeRail):
    """A rail that still sends notifications, and answers nothing."""

    async def observe(self, reference: str) -> Observation:
        raise RailUnavailable(reference)


class StoppingStore(MemoryRailStore):
    """A store that gets no further than the moment in which it would move the cursor."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.moving = asyncio.Event()

    async def keep_cursor(self, rail: str, cursor: str) -> None:
        self.moving.set()
        await asyncio.Event().wait()


async def test_a_notification_that_could_not_be_dealt_with_is_kept_before_the_cursor_moves() -> None:
    clock = ManualClock(START)
    log = MemoryLog([ACCOUNTS, PAYMENTS], clock)
    store = StoppingStore(log.tables)
    platform = assemble(clock, log, store)
    topup = await opened(platform)
    await platform.pay(topup.payment_id)
    platform.rails["fake"] = UnreachableRail(platform.network)
    async with only_listening(platform):
        await asyncio.wait_for(store.moving.wait(), SECONDS_MAX)
    assert await notifications_waiting(platform.store) == 1


class RailWithMoreMoney(FakeRail):
    """A rail with money of which no payment knows, as after a restore from an old backup."""

    async def observe(self, reference: str) -> Observation:
        return replace(await super().observe(self.known), reference=reference)

    known = ""


async def test_settled_money_that_fits_no_payment_is_kept_for_an_operator(platform: Platform) -> None:
    topup = await opened(platform)
    rail = platform.rails["fake"] = RailWithMoreMoney(platform.network)
    rail.known = await platform.reference(topup.payment_id)
    await platform.payments.keep_notification("fake", Notification(reference="nobody's"))
    await platform.payments.keep_notification("fake", Notification(reference="nobody's, paid later"))
    runner = runner_of(platform, replace(RULES, notification_tries_max=1))
    [unpaid, paid] = await platform.store.due_notifications("fake", platform.clock(), 10)
    await runner._work_on(unpaid)
    await platform.pay(topup.payment_id)
    await platform.network.settle()
    await runner._work_on(paid)
    rows = platform.store._notifications.values()
    states = {row.notification.reference: row.state for row in rows}
    assert states == {"nobody's": "done", "nobody's, paid later": "unmatched"}


async def test_duplicated_notifications_credit_once(platform: Platform, supervision: Supervision) -> None:
    platform.network.notifications_per_change = 5
    topup = await opened(platform)
    await platform.pay(topup.payment_id)
    await platform.network.settle()
    paid = await until_state(platform, topup, TopupState.PAID)
    assert paid.credited == 500
    assert await platform.posted(paid.account_id) == 500
    assert supervision.report()["fake"]["ok"]


async def test_a_webhook_is_dealt_with_at_once(platform: Platform, supervision: Supervision) -> None:
    platform.network.notifications_per_change = 0
    topup = await opened(platform)
    await asyncio.wait_for(supervision.runners["fake"].caught_up.wait(), SECONDS_MAX)
    await platform.pay(topup.payment_id)
    await platform.network.settle()
    await platform.payments.accept_notification(
        "fake", *platform.network.webhook(await platform.reference(topup.payment_id), "evt_1")
    )
    await until_state(platform, topup, TopupState.PAID)


async def test_a_webhook_that_comes_before_our_own_commit_is_tried_again(platform: Platform) -> None:
    runner = runner_of(platform)
    topup = await opened(platform)
    reference = await platform.reference(topup.payment_id)
    row = platform.log.tables[("rail_references", topup.payment_id)]
    platform.log.tables[("rail_references", topup.payment_id)] = {**row, "reference": None}
    await platform.network.pay(reference, topup.amount_due)
    await platform.network.settle()
    await platform.payments.accept_notification("fake", *platform.network.webhook(reference, "evt_1"))
    assert await runner.work_once() == 1
    assert await notifications_waiting(platform.store) == 1
    platform.log.tables[("rail_references", topup.payment_id)] = row
    assert await runner.work_once() == 0  # not due yet
    platform.clock.advance(timedelta(seconds=1))
    assert await runner.work_once() == 1
    assert await notifications_waiting(platform.store) == 0
    assert (await platform.payments.topup(topup.payment_id)).state is TopupState.PAID


async def test_a_notification_about_nothing_of_ours_is_set_aside_and_counted(platform: Platform) -> None:
    runner = runner_of(platform, replace(RULES, notification_tries_max=3))
    await platform.payments.accept_notification("fake", *platform.network.webhook("fake-elsewhere", "evt_1"))
    for _ in range(3):
        assert await runner.work_once() == 1
        platform.clock.advance(timedelta(minutes=5))
    assert await runner.work_once() == 0
    assert runner.unmatched == 1
    platform.clock.advance(RULES.notifications_kept)
    await runner.sweep_once()
    again = await platform.payments.accept_notification(
        "fake", *platform.network.webhook("fake-elsewhere", "evt_1")
    )
    assert again == 1, "it was forgotten in time"


async def test_a_notification_that_may_be_about_money_is_never_forgotten(platform: Platform) -> None:
    runner = runner_of(platform, replace(RULES, notification_tries_max=3))
    topup = await opened(platform)
    reference = await platform.reference(topup.payment_id)
    webhook = platform.network.webhook(reference, "evt_1")
    await platform.payments.accept_notification("fake", *webhook)
    row = platform.log.tables[("rail_payments", topup.payment_id)]
    platform.log.tables[("rail_payments", topup.payment_id)] = {**row, "payment": {"opened": "unreadable"}}
    for _ in range(3):
        assert await runner.work_once() == 1
        platform.clock.advance(timedelta(minutes=5))
    assert runner.unmatched == 1
    platform.clock.advance(2 * RULES.notifications_kept)
    await runner.sweep_once()
    assert await platform.payments.accept_notification("fake", *webhook) == 0, "it is still there"


async def test_an_outage_however_long_sets_no_notification_aside(platform: Platform) -> None:
    runner = runner_of(platform, replace(RULES, notification_tries_max=3))
    topup = await opened(platform)
    await platform.pay(topup.payment_id)
    await platform.network.settle()
    await platform.payments.observe(topup.payment_id)
    reference = await platform.reference(topup.payment_id)
    await platform.network.change(reference, "fake:1:1", ReceiptState.REVERSED)
    await platform.payments.accept_notification("fake", *platform.network.webhook(reference, "evt_refunded"))
    await platform.network.set_down(True)
    for _ in range(20):
        assert await runner.work_once() == 1
        platform.clock.advance(timedelta(minutes=5))
    await platform.network.set_down(False)
    await runner.work_once()
    assert (await platform.payments.topup(topup.payment_id)).state is TopupState.REVERSED
    assert runner.unmatched == 0


async def test_a_listed_message_is_kept_although_its_webhook_named_nobody_and_is_done(
    platform: Platform,
) -> None:
    topup = await opened(platform)
    await platform.pay(topup.payment_id)
    await platform.network.settle()
    await platform.payments.observe(topup.payment_id)
    reference = await platform.reference(topup.payment_id)
    await platform.network.change(reference, "fake:1:1", ReceiptState.REVERSED)
    runner = runner_of(platform)
    await platform.payments.store.store_notification(
        "fake", Notification(reference=None, notification_id="evt_1"), platform.clock()
    )
    assert await runner.work_once() == 1, "it looked at what is pending, and a paid payment is not"
    assert (await platform.payments.topup(topup.payment_id)).state is TopupState.PAID
    await platform.payments.keep_notification(
        "fake", Notification(reference=reference, notification_id="evt_1", cursor="9")
    )
    assert await runner.work_once() == 1
    assert (await platform.payments.topup(topup.payment_id)).state is TopupState.REVERSED


async def test_a_lost_connection_is_taken_up_again_where_it_was(platform: Platform) -> None:
    rules = RunnerRules(backoff=Backoff(first_milliseconds=0))
    topup = await opened(platform)
    async with Supervision(
        platform.payments, platform.rails, clock=platform.clock, rules=rules
    ) as supervision:
        await asyncio.wait_for(supervision.runners["fake"].caught_up.wait(), SECONDS_MAX)
        await platform.network.set_down(True)
        reference = await platform.reference(topup.payment_id)
        await platform.network.pay(reference, topup.amount_due)
        await platform.network.settle()
        await platform.network.set_down(False)
        await until_state(platform, topup, TopupState.PAID)


class BrokenRail(FakeRail):
    """A rail whose every call fails in a way that nobody foresaw."""

    async def observe(self, reference: str) -> object:  # type: ignore[override]
        raise ZeroDivisionError(reference)

    async def listen(self, cursor: str | None) -> AsyncIterator[Notification]:
        if cursor != "":
            raise ZeroDivisionError
        yield Notification(reference=None)

    async def health(self) -> Health:
        raise ZeroDivisionError


async def test_a_failing_rail_takes_no_other_down(platform: Platform) -> None:
    broken = BrokenRail(FakeNetwork(platform.clock), name="broken", capabilities=fake_capabilities())
    rails = platform.rails
    rails["broken"] = broken
    platform.payments.notification_stored["broken"] = asyncio.Event()
    platform.payments.doubted["broken"] = asyncio.Event()
    topup = await opened(platform)
    async with Supervision(platform.payments, rails, clock=platform.clock) as supervision:
        await platform.pay(topup.payment_id)
        await platform.network.settle()
        await until_state(platform, topup, TopupState.PAID)
        report = supervision.report()
    assert report["fake"]["ok"]
    assert not report["broken"]["ok"]
    shown = {rail["name"]: rail["open"] for rail in platform.payments.rails()["rails"]}
    assert shown == {"fake": True, "broken": False}
    assert broken.closed


async def test_the_inbox_stops_also_when_a_notification_comes_at_that_very_moment(platform: Platform) -> None:
    working = asyncio.create_task(runner_of(platform).work())
    stored = platform.payments.notification_stored["fake"]
    stored.set()

    async def is_waiting() -> bool:
        return not stored.is_set()

    await until(is_waiting)
    for _ in range(5):
        await asyncio.sleep(0)
    stored.set()
    working.cancel()
    done, _ = await asyncio.wait([working], timeout=SECONDS_MAX)
    assert done == {working}
    assert working.cancelled()


def test_waits_double_up_to_a_bound_with_jitter() -> None:
    randomness = random.Random(7)
    backoff = RunnerRules().backoff
    for tries, most in ((1, 1000), (2, 2000), (5, 16000), (7, 60000), (500, 60000)):
        for _ in range(20):
            wait = backoff.wait(tries, randomness) // timedelta(milliseconds=1)
            assert most // 2 <= wait <= most


class Connecting(FakeRail):
    """Its client is just connecting, and swallows a cancellation then."""

    def __init__(self, network: FakeNetwork) -> None:
        super().__init__(network)
        self.listened = asyncio.Event()
        self.cancelled = 0

    async def listen(self, cursor: str | None) -> AsyncIterator[Notification]:
        while True:
            try:
                self.listened.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                if self.cancelled > 1:
                    raise
        yield Notification(reference=cursor)


async def test_a_rail_that_swallows_a_cancellation_does_not_keep_the_process_from_ending(
    platform: Platform,
) -> None:
    rail = Connecting(platform.network)
    async with asyncio.timeout(SECONDS_MAX):
        async with Supervision(platform.payments, {"fake": rail}, clock=platform.clock):
            await rail.listened.wait()
    assert rail.cancelled == 2
    assert rail.closed


async def test_a_notification_that_names_no_payment_asks_about_all_that_are_pending(
    platform: Platform,
) -> None:
    platform.network.notifications_per_change = 0
    topups = [await opened(platform) for _ in range(3)]
    for topup in topups:
        await platform.pay(topup.payment_id)
    await platform.payments.deal_with("fake", None)
    for topup in topups:
        assert (await platform.payments.topup(topup.payment_id)).state is TopupState.SEEN


async def test_what_is_kept_for_later_wakes_those_who_work_on_it(platform: Platform) -> None:
    assert not platform.payments.notification_stored["fake"].is_set()
    await platform.payments.keep_notification("fake", Notification(reference="fake-elsewhere"))
    assert platform.payments.notification_stored["fake"].is_set()


async def test_rates_are_kept_fresh_as_long_as_payments_are_taken(platform: Platform) -> None:
    asked, stopped = asyncio.Event(), asyncio.Event()

    async def keep_fresh() -> None:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with Supervision(
        platform.payments, platform.rails, clock=platform.clock, keep_rates_fresh=keep_fresh
    ):
        await asyncio.wait_for(asked.wait(), SECONDS_MAX)
        assert not stopped.is_set()
    assert stopped.is_set()
