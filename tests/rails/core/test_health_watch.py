"""A rail that is down is offered to nobody, and it is open again as soon as it is back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from rails.contract import Health, RailUnavailable
from rails.domain.refusals import RailClosed
from rails.domain.topup import TopupState
from rails.payments.runner import Supervision
from rails.testing.fake_rail import FakeRail
from tests.rails.core.platform import RULES, Platform, opened
from tests.waiting import eventually

NO_SWEEPS = replace(RULES, sweep_seconds=3_600)


class CountedHealth(FakeRail):
    """A rail that counts how often it is asked how it is."""

    asked = 0
    meanwhile: Callable[[], None] | None = None

    async def health(self) -> Health:
        self.asked += 1
        await asyncio.sleep(0)
        if self.meanwhile is not None:
            self.meanwhile()
        return await super().health()


class SilentHealth(FakeRail):
    """A rail that notices nothing by itself."""

    outage = None  # type: ignore[assignment]


@pytest.fixture
async def watched(platform: Platform) -> AsyncIterator[Platform]:
    """A core that sweeps once, at its start, so that what it learns afterwards it did not learn by sweeping."""
    async with Supervision(
        platform.payments, platform.rails, clock=platform.clock, rules=NO_SWEEPS
    ) as supervision:
        await supervision.runners["fake"].caught_up.wait()
        yield platform


async def test_a_rail_that_goes_is_closed_and_open_again_when_it_is_back(watched: Platform) -> None:
    await watched.network.set_down(True)
    await eventually(lambda: not watched.payments.health["fake"].ok, "the health is known")
    with pytest.raises(RailClosed) as refused:
        await opened(watched)
    assert refused.value.details["others"] == []
    assert not watched.payments.rails()["rails"][0]["open"]
    await watched.network.set_down(False)
    await eventually(lambda: watched.payments.health["fake"].ok, "the health is known")
    assert (await opened(watched)).state is TopupState.WAITING


async def test_what_a_rail_does_not_notice_is_noticed_by_who_gets_no_answer(platform: Platform) -> None:
    rail = platform.rails["fake"] = SilentHealth(platform.network)
    async with Supervision(platform.payments, {"fake": rail}, clock=platform.clock, rules=NO_SWEEPS) as run:
        await run.runners["fake"].caught_up.wait()
        topup = await opened(platform)
        platform.network.down = True  # nobody is told
        with pytest.raises(RailUnavailable):
            await platform.payments.observe(topup.payment_id)
        await eventually(lambda: not platform.payments.health["fake"].ok, "the health is known")
        platform.network.down = False
        await eventually(lambda: platform.payments.health["fake"].ok, "the health is known")


async def test_who_comes_while_a_rail_is_thought_away_has_it_asked_once_more(platform: Platform) -> None:
    platform.payments.health["fake"] = Health(ok=False, detail="a heartbeat was late")
    topups = await asyncio.gather(*(opened(platform) for _ in range(3)))
    assert {topup.state for topup in topups} == {TopupState.WAITING}
    assert platform.payments.health["fake"].ok


async def test_callers_at_the_same_time_share_one_question_to_a_rail_that_is_away(platform: Platform) -> None:
    rail = platform.rails["fake"] = CountedHealth(platform.network)
    platform.payments.health["fake"] = Health(ok=False, detail="gone")
    platform.network.down = True
    answers = await asyncio.gather(*(opened(platform) for _ in range(5)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {RailClosed}
    assert rail.asked == 1


async def test_a_rail_that_goes_while_it_is_asked_stays_closed(platform: Platform) -> None:
    rail = platform.rails["fake"] = CountedHealth(platform.network)
    platform.payments.health["fake"] = Health(ok=False, detail="gone")
    newer = Health(ok=False, detail="gone again")
    rail.meanwhile = lambda: platform.payments.health.update(fake=newer)
    await opened(platform)
    assert platform.payments.health["fake"] is newer


async def test_who_may_pay_elsewhere_is_told_where(platform: Platform) -> None:
    platform.network.down = True
    for name, order in (("card", 1), ("liquid", 3)):
        rail = FakeRail(platform.network, name=name)
        rail.capabilities = replace(rail.capabilities, order=order)
        platform.rails[name] = rail
    platform.payments.health["fake"] = Health(ok=False, detail="gone")
    with pytest.raises(RailClosed) as refused:
        await opened(platform)
    assert refused.value.details["others"] == ["card", "liquid"]
    platform.payments.health["card"] = Health(ok=False, detail="gone")
    with pytest.raises(RailClosed) as refused:
        await opened(platform)
    assert refused.value.details["others"] == ["liquid"]
    assert platform.network.calls == []


async def test_without_a_rate_the_others_are_named_too(platform: Platform, account_id: str) -> None:
    platform.rails["card"] = FakeRail(platform.network, name="card")
    del platform.rates.prices["BTC"]
    with pytest.raises(RailClosed) as refused:
        await opened(platform, account_id, wanted=5, pay_asset="BTC")
    assert (refused.value.rail, refused.value.details["others"]) == ("fake", ["card"])
    assert refused.value.reason
