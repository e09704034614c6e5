"""Promotion codes and tax in the catalogue at Stripe: the difference is said first, then done, and once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest
import stripe

from ledger.clock import system_clock
from ledger.plans import PACKS, PLANS, Promotion
from rails.stripe.catalogue import StripeCatalogue, wanted
from rails.stripe.promotions import StripePromotions, coupon_id
from rails.stripe.syncing import run_sync
from rails.stripe.terms import CheckoutTerms, Tax
from tests.rails.stripe.outside import KEY, CardWorld, Impossible, Inbox, Sandbox, running_sandbox
from tests.rails.stripe.test_tax import CODES_ALONE, bought, selling

NOW = system_clock()


@pytest.fixture(scope="module")
async def sandbox(inbox: Inbox, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sandbox]:
    """A sandbox of this module's own: what happens here is read again by nobody who listens from the beginning."""
    async with running_sandbox(tmp_path_factory.mktemp("stripe"), inbox) as sandbox:
        yield sandbox


def fresh(**more: object) -> Promotion:
    """A promotion that no other test knows."""
    return msgspec.convert(
        {"code": f"T{uuid4().hex[:8].upper()}", "label": "Test", "percent_off": 20, **more}, Promotion
    )


async def synced(sdk: stripe.StripeClient, *promotions: Promotion) -> list[str]:
    codes = StripePromotions(sdk)
    changes = await codes.changes(promotions, NOW)
    for change in changes:
        await codes.apply(change)
    assert list(await codes.changes(promotions, NOW)) == []
    return [" ".join(change.says.split(" ")[:1]) for change in changes]


async def test_a_code_is_made_once_with_all_that_it_says(sdk: stripe.StripeClient) -> None:
    ends = (NOW + timedelta(days=30)).replace(microsecond=0)
    promotion = fresh(months=3, plans=["pro"], redemptions_max=7, first_purchase=True, ends_at=ends)
    assert await synced(sdk, promotion) == ["create"]
    assert await synced(sdk, promotion) == []
    [code] = (await sdk.v1.promotion_codes.list_async({"code": promotion.code})).data
    coupon = await sdk.v1.coupons.retrieve_async(coupon_id(promotion), {"expand": ["applies_to"]})
    assert (code.max_redemptions, code.expires_at) == (7, int(ends.timestamp()))
    assert code.restrictions.first_time_transaction
    assert (coupon.percent_off, coupon.duration, coupon.duration_in_months) == (20, "repeating", 3)
    assert coupon.applies_to is not None
    assert coupon.applies_to.products == ["plan_pro"]


async def test_other_terms_end_the_code_and_make_it_anew(sdk: stripe.StripeClient) -> None:
    promotion = fresh()
    await synced(sdk, promotion)
    for changed in (
        msgspec.structs.replace(promotion, percent_off=30),
        msgspec.structs.replace(promotion, percent_off=0, off_usd_minor=150),
        msgspec.structs.replace(promotion, redemptions_max=3),
        msgspec.structs.replace(promotion, months=0),
    ):
        assert await synced(sdk, changed) == ["end", "create"]
    codes = (await sdk.v1.promotion_codes.list_async({"code": promotion.code})).data
    assert [code.active for code in codes] == [True, False, False, False, False]


async def test_a_code_ends_where_the_file_says_so_and_begins_again(sdk: stripe.StripeClient) -> None:
    promotion = fresh()
    await synced(sdk, promotion)
    assert await synced(sdk, msgspec.structs.replace(promotion, active=False)) == ["end"]
    assert await synced(sdk, promotion) == ["create"]
    over = fresh(ends_at=datetime(2020, 1, 1, tzinfo=UTC))
    assert await synced(sdk, over) == []


async def test_what_a_crash_left_half_done_is_finished_by_the_next_time(sdk: stripe.StripeClient) -> None:
    promotion, codes = fresh(), StripePromotions(sdk)
    await sdk.v1.coupons.create_async(
        {"id": coupon_id(promotion), "percent_off": 20, "duration": "once", "name": "Test"}
    )
    assert await synced(sdk, promotion) == ["create"]
    assert list(await codes.changes([promotion], NOW)) == []


async def test_a_synced_code_takes_off_what_it_says_and_only_as_often(
    world: CardWorld, sdk: stripe.StripeClient
) -> None:
    amount, once = fresh(percent_off=0, off_usd_minor=150), fresh(redemptions_max=1)
    await synced(sdk, amount, once)
    async with selling(world, CODES_ALONE) as harness:
        assert (await bought(harness, world, amount.code)).amount.minor == 350
        assert (await bought(harness, world, once.code)).amount.minor == 400
        with pytest.raises(Impossible, match="invalid"):
            await bought(harness, world, once.code)


async def test_a_code_for_a_plan_alone_is_not_for_a_pack(world: CardWorld, sdk: stripe.StripeClient) -> None:
    promotion = fresh(plans=["pro"])
    await synced(sdk, promotion)
    async with selling(world, CODES_ALONE) as harness:
        with pytest.raises(Impossible, match="not for what you are buying"):
            await bought(harness, world, promotion.code)


async def test_prices_learn_their_tax_behavior_once_and_another_one_makes_new_prices(
    sdk: stripe.StripeClient,
) -> None:
    name = uuid4().hex[:8]
    plan = msgspec.structs.replace(PLANS["pro"], name=f"pro{name}")
    pack = msgspec.structs.replace(PACKS["pack_500"], name=f"pack{name}")
    catalogue = StripeCatalogue(sdk)

    async def sync(terms: CheckoutTerms) -> list[str]:
        products = list(wanted([plan], [pack], terms))
        changes = await catalogue.changes(products)
        for change in changes:
            await catalogue.apply(change)
        assert list(await catalogue.changes(products)) == []
        return [change.says.split(":")[0] for change in changes]

    async def price() -> stripe.Price:
        [found] = (await sdk.v1.prices.list_async({"lookup_keys": [f"{plan.name}_month"]})).data
        return found

    assert len(await sync(CheckoutTerms())) == 5
    first = await price()
    taxed = CheckoutTerms(tax=Tax.EXCLUSIVE, tax_code="txcd_10103001")
    assert await sync(taxed) == [
        f"update product plan_{plan.name} “Pro”",
        f"say of price {plan.name}_month that its tax is exclusive",
        f"say of price {plan.name}_year that its tax is exclusive",
        f"update product pack_{pack.name} “500 images”",
        f"say of price pack_{pack.name} that its tax is exclusive",
    ]
    assert ((await price()).id, (await price()).tax_behavior) == (first.id, "exclusive")
    assert (await sdk.v1.products.retrieve_async(f"plan_{plan.name}")).tax_code == "txcd_10103001"
    within = await sync(CheckoutTerms(tax=Tax.INCLUSIVE, tax_code="txcd_10103001"))
    assert [says.split(" ")[0] for says in within] == ["replace", "replace", "replace"]
    assert ((await price()).id != first.id, (await price()).tax_behavior) == (True, "inclusive")
    assert await sync(CheckoutTerms()) == []


async def test_the_command_makes_the_codes_of_the_file_behind_its_products(
    world: CardWorld, sandbox: Sandbox, tmp_path: Path
) -> None:
    code = f"F{uuid4().hex[:8].upper()}"
    file = tmp_path / "catalogue.toml"
    file.write_text(
        '[[plans]]\nname = "zine"\nlabel = "Zine"\nprice_usd_minor = 700\nperiod = "month"\ncredits = 9\nrank = 1\n'
        '[[packs]]\nname = "zine_pack"\nlabel = "Pack"\nprice_usd_minor = 700\ncredits = 9\n'
        f'[[promotions]]\ncode = "{code}"\nlabel = "File"\npercent_off = 10\nplans = ["zine"]\n'
    )
    environ = {
        "STRIPE_SECRET_KEY": KEY,
        "STRIPE_API_BASE": sandbox.url,
        "LLAMASKETCH_CATALOGUE": str(file),
        "STRIPE_TAX": "inclusive",
    }
    listed = await run_sync(environ, apply=False)
    assert listed[-1] == f"create promotion code {code}: 10 % off"
    assert await run_sync(environ, apply=True) == listed
    assert await run_sync(environ, apply=True) == []
    with pytest.raises(ValueError, match="STRIPE_TAX"):
        await run_sync({**environ, "STRIPE_TAX": "perhaps"}, apply=False)
