"""Packs, passes and periods of plans are bought through `POST /v1/topups`, whole, by people and (but for plans) by guests."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from ledger.domain.commands import CancelSubscription, PayPeriod
from ledger.domain.periods import months_after
from ledger.identifiers import AccountId
from ledger.plans import PACKS, PLANS
from tests.gateway.conftest import Open
from tests.gateway.stack import Gateway, settings_for, soon
from tests.ledger.test_catalogue import FILE


async def opened(client: httpx.AsyncClient, status: int = 201, **body: Any) -> dict[str, Any]:
    answer = await client.post("/v1/topups", json={"rail": "fake", "pay_asset": "USD", **body})
    assert answer.status_code == status, answer.text
    sent: dict[str, Any] = answer.json()
    return sent


async def bought(gateway: Gateway, client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    topup = await opened(client, **body)
    await gateway.pay(topup)

    async def paid() -> bool:
        return bool((await client.get(f"/v1/topups/{topup['id']}")).json()["state"] == "paid")

    await soon(paid, "the top-up was never paid")
    paid_topup: dict[str, Any] = (await client.get(f"/v1/topups/{topup['id']}")).json()
    return paid_topup


async def account_of(client: httpx.AsyncClient) -> dict[str, Any]:
    sent: dict[str, Any] = (await client.get("/v1/account")).json()
    return sent


async def test_packs_passes_and_plans_are_bought_at_their_own_price(open_gateway: Open) -> None:
    async with open_gateway() as gateway:
        person = await gateway.person("buyer@example.com")
        for name in ("pack_500", "session"):
            topup = await bought(gateway, person, pack=name)
            assert topup["amount_due"] == {"amount_minor": PACKS[name].price_usd_minor, "asset": "USD"}
            assert (topup["credited"], topup["purchase"]["granted"]) == (PACKS[name].credits, 1)
        passes = [lot for lot in (await account_of(person))["lots"] if lot["source"] == "pass"]
        assert [lot["granted"] for lot in passes] == [200]
        assert passes[0]["expires_at"] is not None

        topup = await bought(gateway, person, plan="pro", length="year")
        assert topup["purchase"]["months"] == 12
        assert topup["credited"] == 12 * PLANS["pro"].credits
        mine = await account_of(person)
        assert (mine["plan"], mine["plan_label"], mine["priority"]) == ("pro", "Pro", True)
        begun = datetime.fromisoformat(mine["subscription"]["period_start"])
        assert datetime.fromisoformat(mine["subscription"]["lasts_until"]) == months_after(begun, 12)


async def test_a_key_opens_one_purchase_and_another_body_is_a_conflict(open_gateway: Open) -> None:
    async with open_gateway() as gateway:
        person = await gateway.person("buyer@example.com")
        person.headers["Idempotency-Key"] = "once"
        first = await opened(person, plan="starter")
        assert (await opened(person, plan="starter"))["id"] == first["id"]
        assert (await opened(person, 409, plan="pro"))["code"] == "idempotency_conflict"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"pack": "pack_7"}, "unknown_product"),
        ({"pack": "pro"}, "unknown_product"),
        ({"plan": "free"}, "unknown_product"),
        ({"plan": "gold"}, "unknown_product"),
        ({"pack": "pack_500", "credits": 5}, "invalid_request"),
        ({"pack": "pack_500", "plan": "pro"}, "invalid_request"),
        ({"pack": "pack_500", "length": "year"}, "invalid_request"),
        ({"plan": "pro", "length": "decade"}, "invalid_request"),
        ({"pack": "x" * 41}, "invalid_request"),
        ({"pack": 5}, "invalid_request"),
        ({}, "invalid_request"),
    ],
)
async def test_what_is_not_for_sale_is_refused_and_opens_nothing(
    open_gateway: Open, body: dict[str, Any], code: str
) -> None:
    async with open_gateway() as gateway:
        person = await gateway.person("buyer@example.com")
        assert (await opened(person, 422, **body))["code"] == code
        assert (await person.get("/v1/topups")).json()["topups"] == []


async def test_a_guest_buys_packs_and_passes_and_signs_in_for_a_plan(open_gateway: Open) -> None:
    async with open_gateway() as gateway:
        guest = await gateway.visitor()
        assert (await opened(guest, 403, plan="pro"))["code"] == "sign_in_needed"
        assert (await bought(gateway, guest, pack="hour"))["credited"] == PACKS["hour"].credits


async def test_a_plan_that_renews_by_itself_is_cancelled_before_one_is_paid_ahead(open_gateway: Open) -> None:
    async with open_gateway() as gateway:
        person = await gateway.person("buyer@example.com")
        account_id = AccountId((await account_of(person))["id"])
        ledger, now = gateway.services.ledger.ledger, gateway.services.base.clock()
        end = now + timedelta(days=20)
        renewing = PayPeriod(
            subscription_id="sub_1",
            plan=PLANS["pro"],
            period_start=now,
            period_end=end,
            lot_id=gateway.services.base.identifiers.lot(),
        )
        await ledger.act(account_id, renewing)
        assert (await opened(person, 409, plan="pro"))["code"] == "plan_renews"
        await ledger.act(account_id, CancelSubscription(subscription_id="sub_1"))
        await bought(gateway, person, plan="pro")
        ends = {s["subscription_id"]: s["lasts_until"] for s in (await account_of(person))["subscriptions"]}
        assert datetime.fromisoformat(ends["sub_1"]) == end
        [ahead] = [s for s in (await ledger.account(account_id)).subscriptions if s.period_start == end]
        assert ahead.lasts_until == months_after(end, 1), "what is paid ahead begins behind it"


async def test_nobody_pays_for_more_than_a_year_ahead(open_gateway: Open) -> None:
    async with open_gateway() as gateway:
        person = await gateway.person("buyer@example.com")
        for _ in range(2):
            await bought(gateway, person, plan="starter", length="year")
        assert (await opened(person, 409, plan="starter"))["code"] == "plan_paid_ahead"


async def test_what_an_operators_file_names_is_for_sale_at_its_price(
    open_gateway: Open, tmp_path: Path
) -> None:
    written = tmp_path / "catalogue.toml"
    written.write_text(FILE)
    async with open_gateway(catalogue=str(written)) as gateway:
        person = await gateway.person("buyer@example.com")
        sold = (await person.get("/v1/plans")).json()
        assert [plan["name"] for plan in sold["plans"]] == ["free", "gold", "daily"]
        dollars = next(price for price in sold["packs"][0]["prices"] if price["asset"] == "USD")
        assert dollars == {"rail": "fake", "amount_minor": 60, "asset": "USD"}
        assert (await bought(gateway, person, pack="pack_50"))["credited"] == 50
        assert (await bought(gateway, person, plan="gold"))["credited"] == 5_000
        mine = await account_of(person)
        assert (mine["plan"], mine["plan_label"], mine["priority"]) == ("gold", "Gold", True)
        assert (await opened(person, 422, plan="pro"))["code"] == "unknown_product"


async def test_who_has_a_plan_keeps_it_when_the_file_has_it_no_more(
    open_gateway: Open, tmp_path: Path
) -> None:
    written = tmp_path / "catalogue.toml"
    written.write_text(FILE)
    async with open_gateway(catalogue=str(written)) as gateway:
        person = await gateway.person("keeper@example.com")
        await bought(gateway, person, plan="daily")
        account_id = AccountId((await account_of(person))["id"])
        database = gateway.services.base.settings.database_url
    async with open_gateway(database=database) as gateway:
        mine = await gateway.services.ledger.ledger.account(account_id)
        assert (mine.plan, mine.plan_label, mine.available) == ("daily", "Every day", 300)


@pytest.mark.parametrize("text", [FILE.replace("credits = 5000", "credits = 0"), "[[plans"])
def test_a_file_that_is_no_catalogue_stops_the_start_and_says_why(tmp_path: Path, text: str) -> None:
    written = tmp_path / "catalogue.toml"
    written.write_text(text)
    with pytest.raises(
        ValueError, match=r"LLAMASKETCH_CATALOGUE: it must name a file .*: (Expected|it is not TOML)"
    ):
        settings_for("postgresql://nowhere/none", "redis://nowhere", tmp_path, catalogue=str(written))
