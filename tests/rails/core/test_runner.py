"""What runs as long as payments are taken."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from rails.contract import Health, Hint, PieceState, Rail, RailUnavailable
from rails.fake import FakeNetwork, FakeRail, fake_capabilities
from rails.runner import RailRunner, RunnerRules, Supervision, backoff_milliseconds
from rails.topup import TopupState, TopupView
from tests.rails.core.platform import RETURN_URL, Platform, make_platform

RULES = RunnerRules(retry_first_seconds=1)


@pytest.fixture
def platform() -> Platform:
    return make_platform()


def runner_of(platform: Platform, rules: RunnerRules = RULES) -> RailRunner:
    return RailRunner(
        platform.payments,
        platform.rails["fake"],
        clock=platform.clock,
        rules=rules,
        randomness=random.Random(1),
    )


async def opened(platform: Platform) -> TopupView:
    return await platform.payments.open_topup(
        platform.ids.account(), "fake", wanted=500, return_url=RETURN_URL
    )


async def until_state(platform: Platform, topup: TopupView, state: TopupState) -> TopupView:
    """Look again whenever the loop has run everything that is ready."""
    async with asyncio.timeout(10):
        while True:
            seen = await platform.payments.topup(topup.payment_id)
            if seen.state is state:
                return seen
            await asyncio.sleep(0)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0)


@pytest.fixture
async def supervision(platform: Platform) -> AsyncIterator[Supervision]:
    async with Supervision(
        platform.payments, platform.rails, clock=platform.clock, randomness=random.Random(1)
    ) as running:
        yield running


async def test_a_hint_becomes_credits_without_polling(platform: Platform, supervision: Supervision) -> None:
    topup = await opened(platform)
    await asyncio.wait_for(supervision.runners["fake"].caught_up.wait(), 10)
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
    }


async def test_what_was_paid_while_we_were_down_is_credited_at_the_start(platform: Platform) -> None:
    topup = await opened(platform)
    platform.network.hints_per_change = 0
    await platform.pay(topup.payment_id)
    await platform.network.settle()
    async with Supervision(platform.payments, platform.rails, clock=platform.clock):
        await until_state(platform, topup, TopupState.PAID)


async def test_the_cursor_moves_only_after_the_hint_was_dealt_with(platform: Platform) -> None:
    topup = await opened(platform)
    async with Supervision(platform.payments, platform.rails, clock=platform.clock):
        await platform.pay(topup.payment_id)
        await until_state(platform, topup, TopupState.SEEN)

        async def moved() -> bool:
            return await platform.store.cursor("fake") == "1"

        await until(moved)
    await platform.network.settle()
    async with Supervision(platform.payments, platform.rails, clock=platform.clock):
        await until_state(platform, topup, TopupState.PAID)


async def test_duplicated_hints_credit_once(platform: Platform, supervision: Supervision) -> None:
    platform.network.hints_per_change = 5
    topup = await opened(platform)
    await platform.pay(topup.payment_id)
    await platform.network.settle()
    paid = await until_state(platform, topup, TopupState.PAID)
    assert paid.credited == 500
    assert await platform.posted(paid.account_id) == 500
    assert supervision.report()["fake"]["ok"]


async def test_a_webhook_is_dealt_with_at_once(platform: Platform, supervision: Supervision) -> None:
    platform.network.hints_per_change = 0
    topup = await opened(platform)
    await asyncio.wait_for(supervision.runners["fake"].caught_up.wait(), 10)
    await platform.pay(topup.payment_id)
    await platform.network.settle()
    await platform.payments.accept_hint(
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
    await platform.payments.accept_hint("fake", *platform.network.webhook(reference, "evt_1"))
    assert await runner.work_once() == 1
    assert await platform.store.waiting_hints("fake") == 1
    platform.log.tables[("rail_references", topup.payment_id)] = row
    assert await runner.work_once() == 0  # not due yet
    platform.clock.advance(timedelta(seconds=1))
    assert await runner.work_once() == 1
    assert await platform.store.waiting_hints("fake") == 0
    assert (await platform.payments.topup(topup.payment_id)).state is TopupState.PAID


async def test_a_hint_about_nothing_of_ours_is_set_aside_and_counted(platform: Platform) -> None:
    runner = runner_of(platform, replace(RULES, hint_tries_max=3))
    await platform.payments.accept_hint("fake", *platform.network.webhook("fake-elsewhere", "evt_1"))
    for _ in range(3):
        assert await runner.work_once() == 1
        platform.clock.advance(timedelta(minutes=5))
    assert await runner.work_once() == 0
    assert runner.unmatched == 1


async def test_an_outage_however_long_sets_no_hint_aside(platform: Platform) -> None:
    runner = runner_of(platform, replace(RULES, hint_tries_max=3))
    topup = await opened(platform)
    await platform.pay(topup.payment_id)
    await platform.network.settle()
    await platform.payments.observe(topup.payment_id)
    reference = await platform.reference(topup.payment_id)
    await platform.network.change(reference, "fake:1:1", PieceState.REVERSED)
    await platform.payments.accept_hint("fake", *platform.network.webhook(reference, "evt_refunded"))
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
    await platform.network.change(reference, "fake:1:1", PieceState.REVERSED)
    runner = runner_of(platform)
    await platform.payments.store.store_hint("fake", Hint(reference=None, hint_id="evt_1"), platform.clock())
    assert await runner.work_once() == 1, "it looked at what is pending, and a paid payment is not"
    assert (await platform.payments.topup(topup.payment_id)).state is TopupState.PAID
    await platform.payments.keep_hint("fake", Hint(reference=reference, hint_id="evt_1", cursor="9"))
    assert await runner.work_once() == 1
    assert (await platform.payments.topup(topup.payment_id)).state is TopupState.REVERSED


async def test_an_overdue_payment_that_its_rail_has_forgotten_does_not_keep_others_open(
    platform: Platform,
) -> None:
    forgotten, other = await opened(platform), await opened(platform)
    platform.network.forget_way(await platform.reference(forgotten.payment_id))
    platform.clock.set(other.quote_expires_at)
    await runner_of(platform).sweep_once()
    assert (await platform.payments.topup(other.payment_id)).state is TopupState.EXPIRED


async def test_a_lost_connection_is_taken_up_again_where_it_was(platform: Platform) -> None:
    rules = RunnerRules(retry_first_seconds=0)
    topup = await opened(platform)
    async with Supervision(
        platform.payments, platform.rails, clock=platform.clock, rules=rules
    ) as supervision:
        await asyncio.wait_for(supervision.runners["fake"].caught_up.wait(), 10)
        await platform.network.set_down(True)
        reference = await platform.reference(topup.payment_id)
        await platform.network.pay(reference, topup.amount_due)
        await platform.network.settle()
        await platform.network.set_down(False)
        await until_state(platform, topup, TopupState.PAID)


async def test_a_quote_that_ran_out_expires_and_its_way_to_pay_is_closed(platform: Platform) -> None:
    topup = await opened(platform)
    platform.clock.set(topup.quote_expires_at)
    await runner_of(platform).sweep_once()
    assert (await platform.payments.topup(topup.payment_id)).state is TopupState.EXPIRED
    assert "cancel" in platform.network.calls


async def test_a_sweep_opens_what_a_crash_left_unopened(platform: Platform) -> None:
    platform.network.answers_to_lose = 1
    topup = await opened(platform)
    assert topup.state is TopupState.OPENING
    await runner_of(platform).sweep_once()
    assert (await platform.payments.topup(topup.payment_id)).state is TopupState.WAITING


class BrokenRail(FakeRail):
    """A rail whose every call fails in a way that nobody foresaw."""

    async def observe(self, reference: str) -> object:  # type: ignore[override]
        raise ZeroDivisionError(reference)

    async def listen(self, cursor: str | None) -> AsyncIterator[Hint]:
        if cursor != "":
            raise ZeroDivisionError
        yield Hint(reference=None)

    async def health(self) -> Health:
        raise ZeroDivisionError


async def test_a_failing_rail_takes_no_other_down(platform: Platform) -> None:
    broken = BrokenRail(FakeNetwork(platform.clock), name="broken", capabilities=fake_capabilities())
    rails: dict[str, Rail] = {**platform.rails, "broken": broken}
    platform.payments._rails = rails
    platform.payments.hint_stored["broken"] = asyncio.Event()
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


async def test_an_outage_is_said_in_health(platform: Platform) -> None:
    runner = runner_of(platform)
    topup = await opened(platform)
    platform.network.down = True
    await runner.sweep_once()
    assert platform.payments.health["fake"].detail == "the fake network is down"
    assert not runner.caught_up.is_set()
    platform.network.down = False
    await runner.sweep_once()
    assert platform.payments.health["fake"].ok
    assert runner.caught_up.is_set()
    await platform.network.set_down(True)
    with pytest.raises(RailUnavailable):
        await platform.payments.observe(topup.payment_id)


async def test_the_inbox_stops_also_when_a_hint_comes_at_that_very_moment(platform: Platform) -> None:
    working = asyncio.create_task(runner_of(platform).work())
    stored = platform.payments.hint_stored["fake"]
    stored.set()

    async def is_waiting() -> bool:
        return not stored.is_set()

    await until(is_waiting)
    for _ in range(5):
        await asyncio.sleep(0)
    stored.set()
    working.cancel()
    done, _ = await asyncio.wait([working], timeout=10)
    assert done == {working}
    assert working.cancelled()


def test_waits_double_up_to_a_bound_with_jitter() -> None:
    randomness = random.Random(7)
    rules = RunnerRules(retry_first_seconds=1, retry_most_seconds=60)
    for tries, most in ((1, 1000), (2, 2000), (5, 16000), (7, 60000), (500, 60000)):
        for _ in range(20):
            assert most // 2 <= backoff_milliseconds(rules, tries, randomness) <= most
