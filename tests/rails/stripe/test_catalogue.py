"""The catalogue at Stripe: what differs is printed first and then done, once; who subscribed before keeps the old price."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from uuid import uuid4

import msgspec
import pytest
import stripe
from typer.testing import CliRunner

from gateway.cli import command_line
from ledger.plans import PACKS, PLANS, Pack, Plan
from rails.stripe.catalogue import Change, StripeCatalogue, WantedProduct, difference, wanted
from rails.stripe.plugin import sdk_of
from tests.rails.stripe.outside import KEY, CardWorld, Sandbox


def somewhere_new() -> tuple[Plan, Pack, Pack]:
    """A plan, a pack and a pass that no other test knows."""
    name = uuid4().hex[:8]
    return (
        msgspec.structs.replace(PLANS["pro"], name=f"pro{name}"),
        msgspec.structs.replace(PACKS["pack_500"], name=f"pack{name}"),
        msgspec.structs.replace(PACKS["session"], name=f"session{name}"),
    )


def products_of(plan: Plan, *packs: Pack) -> list[WantedProduct]:
    return list(wanted([PLANS["free"], plan], packs))


async def synced(catalogue: StripeCatalogue, products: Sequence[WantedProduct]) -> list[str]:
    changes = await catalogue.changes(products)
    for change in changes:
        await catalogue.apply(change)
    return [change.says for change in changes]


async def test_everything_is_created_once_and_then_nothing_differs(sdk: stripe.StripeClient) -> None:
    plan, pack, session = somewhere_new()
    catalogue, products = StripeCatalogue(sdk), products_of(plan, pack, session)
    printed = await synced(catalogue, products)
    assert [words.split(":")[0].split(" “")[0] for words in printed] == [
        f"create product plan_{plan.name}",
        f"create price {plan.name}_month",
        f"create price {plan.name}_year",
        f"create product pack_{pack.name}",
        f"create price pack_{pack.name}",
        f"create product pass_{session.name}",
        f"create price pass_{session.name}",
    ]
    assert await catalogue.changes(products) == []
    [price] = (await sdk.v1.prices.list_async({"lookup_keys": [f"{plan.name}_month"], "active": True})).data
    assert (price.unit_amount, price.metadata["plan"]) == (2_000, plan.name)
    assert price.recurring is not None
    assert (price.recurring.interval, price.recurring.interval_count) == ("month", 1)


async def test_looking_changes_nothing(sdk: stripe.StripeClient) -> None:
    plan, *_ = somewhere_new()
    catalogue = StripeCatalogue(sdk)
    before = await catalogue.changes(products_of(plan))
    assert await catalogue.changes(products_of(plan)) == before
    assert len(before) == 3


async def test_a_new_price_takes_over_the_lookup_key_and_the_old_one_goes_on_serving(
    sdk: stripe.StripeClient,
) -> None:
    plan, *_ = somewhere_new()
    catalogue = StripeCatalogue(sdk)
    await synced(catalogue, products_of(plan))
    [old] = (await sdk.v1.prices.list_async({"lookup_keys": [f"{plan.name}_month"]})).data
    dearer = msgspec.structs.replace(plan, price_usd_minor=2_500, label="Pro, renamed")
    printed = await synced(catalogue, products_of(dearer))
    assert [words.split(" ")[0] for words in printed] == ["update", "replace"]
    assert "whoever subscribed at the old one keeps it" in printed[1]
    assert await catalogue.changes(products_of(dearer)) == []
    [new] = (await sdk.v1.prices.list_async({"lookup_keys": [f"{plan.name}_month"]})).data
    kept = await sdk.v1.prices.retrieve_async(old.id)
    assert (new.unit_amount, new.id != old.id) == (2_500, True)
    assert (kept.unit_amount, kept.active, kept.lookup_key) == (2_000, False, None)
    assert (await sdk.v1.products.retrieve_async(f"plan_{plan.name}")).name == "Pro, renamed"


async def test_what_a_crash_left_half_done_is_finished_by_the_next_time(sdk: stripe.StripeClient) -> None:
    plan, pack, _ = somewhere_new()
    catalogue, products = StripeCatalogue(sdk), products_of(plan, pack)
    for change in (await catalogue.changes(products))[:3]:
        await catalogue.apply(change)
    assert len(await synced(catalogue, products)) == 2
    assert await catalogue.changes(products) == []


async def test_a_lookup_key_that_is_taken_is_not_taken_over_unasked(sdk: stripe.StripeClient) -> None:
    plan, *_ = somewhere_new()
    await synced(StripeCatalogue(sdk), products_of(plan))
    with pytest.raises(stripe.InvalidRequestError, match="already uses the lookup key"):
        await sdk.v1.prices.create_async(
            {
                "product": f"plan_{plan.name}",
                "currency": "usd",
                "unit_amount": 5,
                "lookup_key": f"{plan.name}_month",
            }
        )


def test_a_price_of_another_interval_currency_or_product_is_replaced() -> None:
    plan, *_ = somewhere_new()
    [product] = products_of(plan)
    there = {"name": product.name, "active": True, "metadata": {"plan": plan.name}, "tax_code": None}
    right = {
        "id": "price_1",
        "active": True,
        "currency": "usd",
        "unit_amount": 2_000,
        "recurring": {"interval": "month", "interval_count": 1},
        "product": product.product_id,
        "metadata": {"plan": plan.name},
        "tax_behavior": "unspecified",
    }
    year = {**right, "unit_amount": 20_000, "recurring": {"interval": "year", "interval_count": 1}}

    def found(price: dict[str, object]) -> list[Change]:
        prices = {f"{plan.name}_month": price, f"{plan.name}_year": year}
        return list(difference([product], {product.product_id: there}, prices))

    assert found(right) == []
    for wrong in (
        {"active": False},
        {"currency": "eur"},
        {"unit_amount": 1},
        {"recurring": None},
        {"recurring": {"interval": "month", "interval_count": 3}},
        {"product": "plan_other"},
        {"metadata": {}},
    ):
        [change] = found({**right, **wrong})
        assert change.old_price == "price_1", wrong


async def test_the_command_says_what_it_would_do_and_does_it_when_asked(
    world: CardWorld, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRIPE_SECRET_KEY", KEY)
    monkeypatch.setenv("STRIPE_API_BASE", sandbox.url)

    def run(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(command_line(), ["stripe", "sync", *words])
        return result.exit_code, result.output

    code, printed = await asyncio.to_thread(run)
    assert (code, "Nothing was changed; --apply does it." in printed) == (0, True)
    code, printed = await asyncio.to_thread(run, "--apply", "--json")
    assert code == 0
    assert json.loads(printed)["applied"]
    assert json.loads(printed)["changes"]
    assert await asyncio.to_thread(run) == (0, "Stripe has the catalogue as it is here.\n")
    monkeypatch.delenv("STRIPE_SECRET_KEY")
    code, printed = await asyncio.to_thread(run)
    assert (code, "STRIPE_SECRET_KEY is not given" in printed) == (1, True)
    with pytest.raises(ValueError, match="not given"):
        sdk_of({})


async def test_use_beyond_a_plan_has_one_meter_and_a_price_by_it(sdk: stripe.StripeClient) -> None:
    plan, *_ = somewhere_new()
    plan = msgspec.structs.replace(plan, overage_limit=500, overage_usd_minor=2)
    catalogue, products = StripeCatalogue(sdk), products_of(plan)
    await synced(catalogue, products)
    assert await catalogue.changes(products) == []
    meters = (await sdk.v1.billing.meters.list_async({"status": "active"})).data
    [meter] = [m for m in meters if m.event_name == "llamasketch_overage"]
    [price] = (await sdk.v1.prices.list_async({"lookup_keys": [f"{plan.name}_overage"]})).data
    assert price.recurring is not None
    assert (price.unit_amount, price.recurring.usage_type, price.recurring.meter) == (2, "metered", meter.id)
    dearer = products_of(msgspec.structs.replace(plan, overage_usd_minor=3))
    [change] = await catalogue.changes(dearer)
    assert change.says.startswith(f"replace price {plan.name}_overage: 2 by 3 US cents a credit")
    await catalogue.apply(change)
    assert await catalogue.changes(dearer) == []
