"""Payments for one image alone, over a rail that can hold money: what the job knows of them after a crash."""

from __future__ import annotations

import dataclasses

import pytest

from generation.domain.funding import FundingOrder, FundingState
from ledger.money import USD
from processes.pay_per_image import PaymentFunding
from rails.domain.refusals import PaymentRetracted, RailClosed, TooManyOpenPayments
from rails.domain.topup import TopupState
from rails.quotes.quoter import PaymentLimits
from tests.rails.core.platform import Platform, make_platform

URL = "https://llamasketch.test"


@pytest.fixture
def platform() -> Platform:
    return make_platform((USD,))


def order_on(platform: Platform, method: str = "fake") -> FundingOrder:
    return FundingOrder(
        job_id=platform.ids.job(), account_id=platform.ids.account(), method=method, price_credits=100
    )


async def test_money_held_for_an_order_whose_reference_nobody_noted_is_found_and_given_back(
    platform: Platform,
) -> None:
    funding, order = PaymentFunding(platform.payments, URL), order_on(platform)
    opened = await funding.open(order)
    await platform.pay(opened.reference)
    found = await funding.retract(order)
    assert found == opened.reference
    assert await funding.release(found) is FundingState.FAILED
    assert "release" in platform.network.calls
    assert await platform.posted(order.account_id) == 0
    assert await funding.retract(order) == opened.reference


async def test_what_was_retracted_before_it_was_opened_is_never_opened(platform: Platform) -> None:
    funding, order = PaymentFunding(platform.payments, URL), order_on(platform, "fake/USD")
    for _ in range(2):
        assert await funding.retract(order) is None
    for _ in range(2):
        with pytest.raises(PaymentRetracted):
            await funding.open(order)
    assert "open" not in platform.network.calls
    assert await platform.payments.topups_of(order.account_id) == []
    assert await funding.retract(order_on(platform)) is None, "other orders are not meant"


async def test_a_payment_that_is_open_is_shown_again_although_none_could_be_opened_now(
    platform: Platform,
) -> None:
    platform.payments.limits = PaymentLimits(open_per_account=1)
    funding, order = PaymentFunding(platform.payments, URL), order_on(platform)
    opened = await funding.open(order)
    assert (await funding.open(order)).reference == opened.reference, "it counts among the open ones itself"
    platform.rates.prices.clear()
    assert (await funding.open(order)).reference == opened.reference
    assert len(await platform.payments.topups_of(order.account_id)) == 1


async def test_a_refused_payment_is_not_opened_later_either(platform: Platform) -> None:
    platform.payments.limits = PaymentLimits(open_per_account=0)
    funding, order = PaymentFunding(platform.payments, URL), order_on(platform)
    with pytest.raises(TooManyOpenPayments):
        await funding.open(order)
    platform.payments.limits = PaymentLimits()
    with pytest.raises(PaymentRetracted):
        await funding.open(order)
    other = dataclasses.replace(order, job_id=platform.ids.job())
    assert (await funding.open(other)).instructions["state"] == TopupState.WAITING.value


async def test_a_closed_rail_says_so(platform: Platform) -> None:
    platform.rates.prices.clear()
    with pytest.raises(RailClosed):
        await PaymentFunding(platform.payments, URL).open(order_on(platform))
