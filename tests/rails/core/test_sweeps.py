"""What is done from time to time, whatever notifications say."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from rails.contract import Health, Observation, RailUnavailable
from rails.domain.topup import TopupState, TopupView
from rails.payments.postponing import UNANSWERED_MAX
from rails.store.port import RetryTask
from rails.testing.fake_capabilities import fake_capabilities
from rails.testing.fake_rail import FakeNetwork, FakeRail
from tests.rails.core.platform import RULES, Platform, opened, runner_of


async def test_an_overdue_payment_that_its_rail_has_forgotten_does_not_keep_others_open(
    platform: Platform,
) -> None:
    forgotten, other = await opened(platform), await opened(platform)
    platform.network.forget_way(await platform.reference(forgotten.payment_id))
    platform.clock.set(other.quote_expires_at)
    await runner_of(platform).sweep_once()
    assert (await platform.payments.topup(other.payment_id)).state is TopupState.EXPIRED


class UnluckyRail(FakeRail):
    """A rail that never answers about some payments, and answers about all others."""

    def __init__(self, network: FakeNetwork) -> None:
        super().__init__(network, capabilities=fake_capabilities())
        self.unlucky: dict[str, Exception] = {}
        self.uncancellable: set[str] = set()
        self.well = True
        self.asked: list[str] = []

    async def health(self) -> Health:
        return Health(ok=self.well)

    async def make_unlucky(self, platform: Platform, topup: TopupView) -> None:
        self.unlucky[await platform.reference(topup.payment_id)] = RailUnavailable("no answer")

    async def observe(self, reference: str) -> Observation:
        self.asked.append(reference)
        if reference in self.unlucky:
            raise self.unlucky[reference]
        return await super().observe(reference)

    async def cancel(self, reference: str) -> Observation:
        if reference in self.unlucky:
            raise self.unlucky[reference]
        if reference in self.uncancellable:
            raise KeyError("it answers, but cannot close this one")
        return await super().cancel(reference)


@pytest.fixture
def unlucky(platform: Platform) -> UnluckyRail:
    rail = UnluckyRail(platform.network)
    platform.rails["fake"] = rail
    return rail


async def several(platform: Platform, count: int) -> list[TopupView]:
    """In the order in which sweeps come to them."""
    return sorted([await opened(platform) for _ in range(count)], key=lambda topup: topup.payment_id)


async def postponed(
    platform: Platform, *topups: TopupView, task: RetryTask = RetryTask.OBSERVE
) -> dict[str, int]:
    return dict(await platform.store.postponed(task, [topup.payment_id for topup in topups]))


@pytest.mark.parametrize("fault", [RailUnavailable("no answer"), KeyError("an unforeseen fault")])
async def test_a_payment_that_always_fails_keeps_no_other_from_being_asked_about(
    platform: Platform, unlucky: UnluckyRail, fault: Exception
) -> None:
    platform.network.notifications_per_change = 0
    poisoned, other = await opened(platform), await opened(platform)
    runner = runner_of(platform)
    await runner.sweep_once()
    unlucky.unlucky[await platform.reference(poisoned.payment_id)] = fault
    await platform.pay(other.payment_id)
    await platform.network.settle()
    await runner.sweep_once()
    assert (await platform.payments.topup(other.payment_id)).state is TopupState.PAID
    assert await postponed(platform, poisoned, other) == {poisoned.payment_id: 1}


@pytest.mark.parametrize("fault", [RailUnavailable("no answer"), KeyError("an unforeseen fault")])
async def test_a_payment_that_can_not_be_closed_keeps_no_other_open(
    platform: Platform, unlucky: UnluckyRail, fault: Exception
) -> None:
    poisoned, other = await opened(platform), await opened(platform)
    unlucky.unlucky[await platform.reference(poisoned.payment_id)] = fault
    platform.clock.set(other.quote_expires_at)
    await runner_of(platform, replace(RULES, overdue_page=1)).sweep_once()
    await runner_of(platform, replace(RULES, overdue_page=1)).sweep_once()
    assert (await platform.payments.topup(other.payment_id)).state is TopupState.EXPIRED


async def test_a_postponed_payment_is_asked_about_again_less_and_less_often_until_it_answers(
    platform: Platform, unlucky: UnluckyRail
) -> None:
    platform.network.notifications_per_change = 0
    topup = await opened(platform)
    unlucky.unlucky[await platform.reference(topup.payment_id)] = RailUnavailable("no answer")
    runner = runner_of(platform)
    for attempts in (1, 2, 3):
        for _ in range(3):
            await runner.sweep_once()
        assert await postponed(platform, topup) == {topup.payment_id: attempts}
        platform.clock.advance(timedelta(seconds=15 * 2 ** (attempts - 1)))
    unlucky.unlucky.clear()
    await platform.pay(topup.payment_id)
    await platform.network.settle()
    await runner.sweep_once()
    assert (await platform.payments.topup(topup.payment_id)).state is TopupState.PAID
    assert await postponed(platform, topup) == {}


async def test_what_succeeds_otherwise_does_not_shorten_the_wait_of_what_fails(
    platform: Platform, unlucky: UnluckyRail
) -> None:
    topup = await opened(platform)
    unlucky.uncancellable.add(await platform.reference(topup.payment_id))
    platform.clock.set(topup.quote_expires_at)
    runner = runner_of(platform)
    for attempts in (1, 2, 3):
        for _ in range(3):
            await runner.sweep_once()
        assert await postponed(platform, topup, task=RetryTask.EXPIRE) == {topup.payment_id: attempts}
        assert await postponed(platform, topup) == {}
        platform.clock.advance(timedelta(seconds=15 * 2 ** (attempts - 1)))


async def test_an_outage_of_the_whole_rail_is_no_payments_fault(platform: Platform) -> None:
    topups = await several(platform, 3)
    runner = runner_of(platform)
    platform.network.down = True
    await runner.sweep_once()
    assert await postponed(platform, *topups) == {}
    platform.network.down = False
    await runner.sweep_once()
    assert runner.caught_up.is_set()


async def test_a_rail_that_answers_about_nothing_is_not_asked_about_everything(
    platform: Platform, unlucky: UnluckyRail
) -> None:
    """It says that it is well, and every question costs a time-out."""
    topups = await several(platform, 6)
    for topup in topups:
        await unlucky.make_unlucky(platform, topup)
    await runner_of(platform).sweep_once()
    assert len(await postponed(platform, *topups)) == len(unlucky.asked) == 3


@pytest.mark.parametrize("well", [True, False])
async def test_a_rail_that_answers_about_some_is_not_asked_about_everything_else(
    platform: Platform, unlucky: UnluckyRail, well: bool
) -> None:
    unlucky.well = well
    topups = await several(platform, 60)
    for topup in topups[::2]:
        await unlucky.make_unlucky(platform, topup)
    await runner_of(platform).sweep_once()
    assert len(await postponed(platform, *topups)) == UNANSWERED_MAX


@pytest.mark.parametrize("well", [True, False])
async def test_a_single_payment_without_an_answer_holds_no_later_page_up(
    platform: Platform, unlucky: UnluckyRail, well: bool
) -> None:
    platform.network.notifications_per_change = 0
    unlucky.well = well
    bad, *others, last = await several(platform, 7)
    await unlucky.make_unlucky(platform, bad)
    await platform.pay(last.payment_id)
    await platform.network.settle()
    runner = runner_of(platform, replace(RULES, pending_page=2))
    await runner.sweep_once()
    assert (await platform.payments.topup(last.payment_id)).state is TopupState.PAID
    assert await postponed(platform, bad, *others) == {bad.payment_id: 1}
    assert runner.caught_up.is_set()


@pytest.mark.parametrize("well", [True, False])
async def test_however_many_payments_get_no_answer_later_ones_have_their_turn(
    platform: Platform, unlucky: UnluckyRail, well: bool
) -> None:
    platform.network.notifications_per_change = 0
    unlucky.well = well
    *bad, last = await several(platform, 9)
    runner = runner_of(platform, replace(RULES, pending_page=3))
    await runner.sweep_once()
    for topup in bad:
        await unlucky.make_unlucky(platform, topup)
    await platform.pay(last.payment_id)
    await platform.network.settle()
    for _ in range(3):
        await runner.sweep_once()
    assert (await platform.payments.topup(last.payment_id)).state is TopupState.PAID


async def test_overdue_payments_without_an_answer_keep_no_later_one_open_while_the_rail_is_unwell(
    platform: Platform, unlucky: UnluckyRail
) -> None:
    unlucky.well = False
    *bad, last = await several(platform, 7)
    for topup in bad:
        await unlucky.make_unlucky(platform, topup)
    platform.clock.set(last.quote_expires_at)
    runner = runner_of(platform, replace(RULES, overdue_page=2))
    for _ in range(4):
        await runner.sweep_once()
    assert (await platform.payments.topup(last.payment_id)).state is TopupState.EXPIRED


async def test_an_outage_at_the_start_is_made_up_for_before_all_is_caught_up(
    platform: Platform, unlucky: UnluckyRail
) -> None:
    platform.network.notifications_per_change = 0
    unlucky.well = False
    topups = await several(platform, 5)
    for topup in topups:
        await unlucky.make_unlucky(platform, topup)
    await platform.pay(topups[0].payment_id)
    await platform.network.settle()
    runner = runner_of(platform)
    for _ in range(3):
        await runner.sweep_once()
        assert not runner.caught_up.is_set()
    unlucky.unlucky.clear()
    await runner.sweep_once()
    assert runner.caught_up.is_set()
    assert (await platform.payments.topup(topups[0].payment_id)).state is TopupState.PAID


async def test_what_fails_in_asking_and_in_closing_waits_for_each_by_itself(
    platform: Platform, unlucky: UnluckyRail
) -> None:
    topup = await opened(platform)
    await unlucky.make_unlucky(platform, topup)
    runner = runner_of(platform)
    platform.clock.set(topup.quote_expires_at)
    await runner.sweep_once()
    assert await postponed(platform, topup) == {topup.payment_id: 1}
    assert await postponed(platform, topup, task=RetryTask.EXPIRE) == {topup.payment_id: 1}


async def test_an_answer_that_somebody_else_asked_for_ends_the_wait(
    platform: Platform, unlucky: UnluckyRail
) -> None:
    topup, other = await opened(platform), await opened(platform)
    for one in (topup, other):
        await unlucky.make_unlucky(platform, one)
    await runner_of(platform).sweep_once()
    assert len(await postponed(platform, topup, other)) == 2
    unlucky.unlucky.clear()
    await platform.payments.deal_with("fake", await platform.reference(topup.payment_id))
    await platform.payments.observe(other.payment_id)
    assert await postponed(platform, topup, other) == {}


async def test_nothing_is_tried_again_with_a_payment_that_has_ended(
    platform: Platform, unlucky: UnluckyRail
) -> None:
    topup = await opened(platform)
    await unlucky.make_unlucky(platform, topup)
    unlucky.uncancellable.add(await platform.reference(topup.payment_id))
    platform.clock.set(topup.quote_expires_at)
    runner = runner_of(platform)
    await runner.sweep_once()
    unlucky.unlucky.clear()
    await platform.pay(topup.payment_id)
    await platform.network.settle()
    await platform.payments.observe(topup.payment_id)
    assert await postponed(platform, topup, task=RetryTask.EXPIRE) == {topup.payment_id: 1}
    await runner.sweep_once()
    assert await postponed(platform, topup, task=RetryTask.EXPIRE) == {}


async def test_a_quote_that_ran_out_expires_and_its_payment_request_is_closed(platform: Platform) -> None:
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


class RailThatCannotClose(FakeRail):
    """A rail that has no way to close what it opened."""

    cancel = None  # type: ignore[assignment]


async def test_a_quote_runs_out_although_its_rail_cannot_close_what_it_opened(platform: Platform) -> None:
    platform.rails["fake"] = RailThatCannotClose(platform.network, capabilities=fake_capabilities())
    topup = await opened(platform)
    platform.clock.set(topup.quote_expires_at)
    await runner_of(platform).sweep_once()
    seen = await platform.payments.topup(topup.payment_id)
    assert (seen.state, seen.expired) == (TopupState.EXPIRED, True)
    assert "cancel" not in platform.network.calls


async def test_a_sweep_grants_what_waited_for_a_rate_however_many_rounds_found_none(
    platform: Platform,
) -> None:
    account_id = platform.ids.account()
    topup = await opened(platform, account_id, wanted=500, pay_asset="BTC")
    platform.clock.advance(timedelta(days=2))
    price = platform.rates.prices.pop("BTC")
    await platform.pay(topup.payment_id)
    await platform.network.settle()
    runner = runner_of(platform)
    for _ in range(3):
        await runner.sweep_once()
    assert (await platform.payments.topup(topup.payment_id)).state is TopupState.UNPRICED
    platform.rates.prices["BTC"] = price
    await runner.sweep_once()
    assert await platform.posted(account_id) == 500


async def test_notifications_that_were_dealt_with_are_forgotten_after_a_month(platform: Platform) -> None:
    topup = await opened(platform)
    message = platform.network.webhook(await platform.reference(topup.payment_id), "evt_1")
    assert await platform.payments.accept_notification("fake", *message) == 1
    runner = runner_of(platform)
    assert await runner.work_once() == 1
    platform.clock.advance(RULES.notifications_kept)
    await runner.sweep_once()
    assert await platform.payments.accept_notification("fake", *message) == 0, "it is still known"
    platform.clock.advance(timedelta(seconds=1))
    await runner.sweep_once()
    assert await platform.payments.accept_notification("fake", *message) == 1
