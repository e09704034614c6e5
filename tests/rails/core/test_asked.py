"""What people are asked to pay: in whole steps of the asset, and from one least amount that everything names."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from ledger.money import BTC, USD, Money
from ledger.plans import Pack
from rails.domain.purchases import PackSold
from rails.domain.refusals import AmountTooLarge, AmountTooSmall
from rails.domain.topup import TopupState
from tests.rails.core.platform import Platform, opened, settled

SAT = 1_000


@pytest.fixture
def platform(platform: Platform) -> Platform:
    """A rail that asks whole satoshi, while one bitcoin costs 97,350.12 USD."""
    rail = platform.rails["fake"]
    rail.capabilities = replace(rail.capabilities, asked_in={BTC.code: SAT})
    platform.rates.prices["BTC"] = Fraction(9_735_012, 100)
    return platform


def least(platform: Platform, asset: str = "BTC") -> int:
    assets = platform.payments.rails()["rails"][0]["assets"]
    return int(next(one["minimum_minor"] for one in assets if one["asset"] == asset))


async def test_whole_satoshi_are_asked_rounded_up(platform: Platform, account_id: str) -> None:
    topup = await opened(platform, account_id, wanted=500, pay_asset="BTC")
    assert topup.amount_due == Money(5_137_000, BTC)  # of 5,136,101.14 msat
    dollars = await opened(platform, account_id, amount=Money(500, USD), pay_asset="BTC")
    assert (dollars.amount_due, dollars.credits) == (Money(5_137_000, BTC), 500)
    named = await opened(platform, account_id, amount=Money(5_136_001, BTC), pay_asset="BTC")
    assert named.amount_due == Money(5_137_000, BTC)
    pack = PackSold(pack=Pack(name="small", label="Small", price_usd_minor=500, credits=600))
    assert (await opened(platform, account_id, purchase=pack, pay_asset="BTC")).amount_due == Money(
        5_137_000, BTC
    )
    assert platform.payments.prices(500)[1] == ("fake", Money(5_137_000, BTC))


async def test_other_assets_are_asked_to_their_last_digit(platform: Platform, account_id: str) -> None:
    assert (await opened(platform, account_id, wanted=3)).amount_due == Money(3, USD)


async def test_what_arrives_counts_to_the_millisatoshi(platform: Platform, account_id: str) -> None:
    topup = await opened(platform, account_id, wanted=500, pay_asset="BTC")
    await platform.pay(topup.payment_id, 5_137_001)
    paid = await settled(platform, topup)
    assert (paid.state, paid.received[0].amount) == (TopupState.PAID, Money(5_137_001, BTC))
    assert paid.credited == 500


@pytest.mark.parametrize("dollars", [Fraction(9_735_012, 100), Fraction(12_000_000), Fraction(1)])
async def test_the_least_is_the_price_of_one_credit_wherever_it_is_named(
    platform: Platform, account_id: str, dollars: Fraction
) -> None:
    platform.rates.prices["BTC"] = dollars
    one = await opened(platform, account_id, wanted=1, pay_asset="BTC")
    assert one.amount_due == Money(least(platform), BTC)
    with pytest.raises(AmountTooSmall) as refused:
        await opened(platform, account_id, amount=Money(least(platform) - 1, BTC), pay_asset="BTC")
    assert refused.value.details["minimum_minor"] == least(platform)
    accepted = await opened(platform, account_id, amount=Money(least(platform), BTC), pay_asset="BTC")
    assert accepted.amount_due == one.amount_due
    assert accepted.credits >= 1


async def test_a_price_below_the_least_of_a_rail_is_not_offered_there(platform: Platform) -> None:
    rail = platform.rails["fake"]
    rail.capabilities = replace(
        rail.capabilities, minimum={"USD": 50, "BTC": 20 * SAT, "USDT": 1}, asked_in={"BTC": SAT}
    )
    assert least(platform) == 20 * SAT
    assert [money.asset.code for _, money in platform.payments.prices(1)] == ["USDT"]


async def test_rounding_up_goes_beyond_no_limit(platform: Platform, account_id: str) -> None:
    rail = platform.rails["fake"]
    rail.capabilities = replace(rail.capabilities, maximum={"USD": 1, "BTC": 20 * SAT, "USDT": 1})
    assert (
        await opened(platform, account_id, amount=Money(20 * SAT, BTC), pay_asset="BTC")
    ).amount_due.minor == 20 * SAT
    with pytest.raises(AmountTooLarge):
        await opened(platform, account_id, amount=Money(20 * SAT + 1, BTC), pay_asset="BTC")
