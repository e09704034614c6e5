"""Charges of saved methods in the core: made once, found again, and given up only when nothing was charged."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ledger.money import USD
from ledger.plans import PACKS
from rails.contract import RailUnavailable
from rails.domain.purchases import PackSold
from rails.domain.topup import TopupState, TopupView
from rails.saved import AUTHENTICATION, ChargeLapsed, MethodUnusable, SavedMethods, SaveOrder
from rails.testing.fake_saved import DECLINES, WORKS
from tests.rails.core.platform import Platform, make_platform, runner_of

PACK = PackSold(pack=PACKS["pack_500"])


@pytest.fixture
def platform() -> Platform:
    return make_platform()


async def saved(platform: Platform, does: str = WORKS) -> str:
    rail = platform.rails["fake"]
    assert isinstance(rail, SavedMethods)
    order = SaveOrder(
        saving_id=platform.ids.new("saving"),
        account_id=platform.ids.account(),
        expires_at=platform.clock() + timedelta(hours=1),
        return_url="https://llamasketch.test",
    )
    return platform.network.saved.save((await rail.save_method(order)).reference, does)


async def a_charge(platform: Platform, does: str = WORKS, key: str | None = None) -> TopupView:
    """Its intent; nothing is charged yet."""
    return await platform.payments.open_topup(
        platform.ids.account(),
        "fake",
        return_url="https://llamasketch.test",
        pay_asset=USD.code,
        purchase=PACK,
        method=await saved(platform, does),
        key=key,
    )


async def charged(platform: Platform, charge: TopupView) -> TopupView:
    await platform.payments.open_request(charge.payment_id)
    await platform.network.settle()
    return await platform.payments.observe(charge.payment_id)


async def test_a_charge_is_an_intent_until_somebody_asks_for_it_and_then_a_payment(
    platform: Platform,
) -> None:
    charge = await a_charge(platform)
    assert (charge.state, platform.network.saved.attempts) == (TopupState.OPENING, [])
    found = await charged(platform, charge)
    assert (found.state, found.credited) == (TopupState.PAID, 500)
    assert await platform.posted(charge.account_id) == 500
    assert await platform.store.method_of(charge.payment_id) is None


async def test_a_lost_answer_is_asked_for_again_and_charges_nobody_twice(platform: Platform) -> None:
    charge = await a_charge(platform)
    platform.network.answers_to_lose = 1
    with pytest.raises(RailUnavailable):
        await platform.payments.open_request(charge.payment_id)
    for _ in range(3):
        found = await charged(platform, charge)
    assert (found.credited, platform.network.saved.attempts) == (500, [charge.payment_id])


@pytest.mark.parametrize("does", [DECLINES, AUTHENTICATION])
async def test_a_decline_is_said_and_kept_after_it_was_closed(platform: Platform, does: str) -> None:
    found = await charged(platform, await a_charge(platform, does))
    assert (found.state, found.decline_code) == (TopupState.DECLINED, does)
    closed = await platform.payments.cancel(found.payment_id)
    assert (closed.state, closed.decline_code, closed.credited) == (TopupState.EXPIRED, does, 0)


async def test_the_sweep_begins_no_charge(platform: Platform) -> None:
    """Whoever wanted it may want it no more."""
    charge = await a_charge(platform)
    await runner_of(platform).sweep_once()
    assert platform.network.saved.attempts == []
    assert (await platform.payments.topup(charge.payment_id)).state is TopupState.OPENING


async def test_cancelling_a_charge_of_which_nobody_knows_begins_none_and_leaves_it(
    platform: Platform,
) -> None:
    charge = await a_charge(platform)
    assert (await platform.payments.cancel(charge.payment_id)).expired is False
    assert platform.network.saved.attempts == []


async def test_after_its_time_a_charge_that_was_never_made_is_given_up(platform: Platform) -> None:
    charge = await a_charge(platform)
    platform.clock.advance(timedelta(hours=2))
    await runner_of(platform).sweep_once()
    found = await platform.payments.topup(charge.payment_id)
    assert (found.state, platform.network.saved.attempts) == (TopupState.EXPIRED, [])


async def test_after_its_time_a_charge_whose_answer_was_lost_is_found_and_credited(
    platform: Platform,
) -> None:
    charge = await a_charge(platform)
    platform.network.answers_to_lose = 1
    with pytest.raises(RailUnavailable):
        await platform.payments.open_request(charge.payment_id)
    await platform.network.settle()
    platform.clock.advance(timedelta(hours=2))
    await runner_of(platform).sweep_once()
    found = await platform.payments.observe(charge.payment_id)
    assert (found.credited, platform.network.saved.attempts) == (500, [charge.payment_id])


async def test_a_method_that_is_gone_is_said_so_and_nothing_is_charged(platform: Platform) -> None:
    charge = await a_charge(platform)
    method = await platform.store.method_of(charge.payment_id)
    platform.network.saved.remove(str(method))
    with pytest.raises(MethodUnusable):
        await platform.payments.open_request(charge.payment_id)
    await platform.payments.abandon(charge.payment_id)
    assert (await platform.payments.topup(charge.payment_id)).state is TopupState.EXPIRED


async def test_the_same_key_is_the_same_charge(platform: Platform) -> None:
    account, method = platform.ids.account(), await saved(platform)
    key = platform.ids.command()
    both = [
        await platform.payments.open_topup(
            account, "fake", return_url="https://x", pay_asset="USD", purchase=PACK, method=method, key=key
        )
        for _ in range(2)
    ]
    assert both[0].payment_id == both[1].payment_id


async def test_a_charge_that_lapsed_says_so(platform: Platform) -> None:
    charge = await a_charge(platform)
    platform.clock.advance(timedelta(hours=2))
    with pytest.raises(ChargeLapsed):
        await platform.payments.open_request(charge.payment_id)
