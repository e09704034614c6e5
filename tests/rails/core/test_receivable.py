"""Nobody is offered, or opens, a payment that cannot arrive."""

from __future__ import annotations

from typing import Any

import pytest

from ledger.money import BTC, USD, Money
from rails.contract import Health
from rails.domain.refusals import AmountTooLarge, RailClosed
from tests.rails.core.platform import Platform, opened

CREDIT_MSAT = 10_000
"""At a hundred thousand dollars for a bitcoin and a cent for a credit."""


def can_receive(platform: Platform, msat: int) -> None:
    platform.payments.health["fake"] = Health(ok=True, receivable={BTC.code: msat})


def offered(platform: Platform) -> dict[str, Any]:
    [rail] = platform.payments.rails()["rails"]
    return {asset["asset"]: asset for asset in rail["assets"]}


async def test_offers_end_at_what_can_arrive_and_other_assets_stay(platform: Platform) -> None:
    before = offered(platform)
    can_receive(platform, 300 * CREDIT_MSAT + 7)
    now = offered(platform)
    assert now["BTC"]["maximum_minor"] < before["BTC"]["maximum_minor"]
    assert now["BTC"]["maximum_minor"] in (300 * CREDIT_MSAT, 300 * CREDIT_MSAT + 7)
    assert now["USD"] == before["USD"]


async def test_what_is_named_as_the_most_can_be_opened_and_more_is_refused_with_the_same_number(
    platform: Platform,
) -> None:
    can_receive(platform, 300 * CREDIT_MSAT)
    most = offered(platform)["BTC"]["maximum_minor"]
    topup = await opened(platform, amount=Money(most, BTC), pay_asset="BTC")
    assert topup.to_json()["amount_due"]["amount_minor"] == most
    with pytest.raises(AmountTooLarge) as refused:
        await opened(platform, wanted=301, pay_asset="BTC")
    assert refused.value.details["maximum_minor"] == most
    assert (await opened(platform, wanted=301, pay_asset="USD")).to_json()["amount_due"]["asset"] == "USD"


async def test_what_cannot_receive_a_single_credit_is_closed_and_says_so(platform: Platform) -> None:
    can_receive(platform, CREDIT_MSAT - 1)
    assert not offered(platform)["BTC"]["open"]
    with pytest.raises(RailClosed) as refused:
        await opened(platform, wanted=1, pay_asset="BTC")
    assert "cannot receive" in refused.value.details["reason"]
    can_receive(platform, CREDIT_MSAT)
    assert offered(platform)["BTC"]["open"]


async def test_a_single_image_is_priced_only_where_its_price_can_arrive(platform: Platform) -> None:
    can_receive(platform, 2 * CREDIT_MSAT)
    assert BTC in {price.due.asset for price in platform.payments.credit_prices(2)}
    assert BTC not in {price.due.asset for price in platform.payments.credit_prices(3)}
    assert {due.asset for _, due in platform.payments.prices(2)} >= {BTC, USD}
    assert BTC not in {due.asset for _, due in platform.payments.prices(3)}
