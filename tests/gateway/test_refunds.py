"""A person asks for the money of credits that were not used, over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest

from rails.contract import ReceiptState, Refund
from tests.gateway.conftest import Open
from tests.gateway.stack import Gateway, LateClock, credits_of, soon


async def refunded(client: httpx.AsyncClient, topup: dict[str, Any], state: str) -> dict[str, Any]:
    """Wait until the newest refund of a top-up is in this state."""
    shown: dict[str, Any] = {}

    async def is_so() -> bool:
        nonlocal shown
        shown = (await client.get(f"/v1/topups/{topup['id']}")).json()
        refunds = shown.get("refunds", [])
        return bool(refunds) and refunds[-1]["state"] == state

    await soon(is_so, f"the refund was never {state}")
    return shown


async def ask(client: httpx.AsyncClient, topup: dict[str, Any], key: str = "", **body: Any) -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else {}
    return await client.post(f"/v1/topups/{topup['id']}/refund", json=body, headers=headers)


@pytest.fixture
async def sending(gateway: Gateway) -> AsyncIterator[Gateway]:
    """What a test did to the outcome of refunds is undone."""
    yield gateway
    gateway.fake.network.refund_outcome = Refund.SENT


async def test_what_is_not_used_is_offered_asked_for_and_sent(sending: Gateway) -> None:
    client = await sending.visitor()
    topup = await sending.top_up(client, 100)
    before = (await credits_of(client))["available"]
    offers = (await client.get(f"/v1/topups/{topup['id']}/refund")).json()
    assert (offers["days"], offers["to"]) == (14, "origin")
    [offer] = offers["offers"]
    assert (offer["credits"], offer["amount_minor"], offer["asset"]) == (100, 100, "USD")
    answer = await ask(client, topup, lot_id=offer["lot_id"], credits=40)
    assert answer.status_code == 202
    assert [refund["state"] for refund in answer.json()["refunds"]] == ["requested"]
    shown = await refunded(client, topup, "sent")
    assert shown["credited"] == 60
    assert (await credits_of(client))["available"] == before - 40
    entries = (await client.get("/v1/statement?type=refund")).json()["entries"]
    assert [entry["kind"] for entry in entries] == ["refund_sent", "refund_opened"]
    assert {entry["reference"]["id"] for entry in entries} == {shown["refunds"][0]["id"]}


async def test_asked_for_again_with_the_same_key_it_is_one_refund(sending: Gateway) -> None:
    client = await sending.visitor()
    topup = await sending.top_up(client, 100)
    for _ in range(3):
        answer = await ask(client, topup, "once", credits=10)
        assert answer.status_code == 202, answer.text
        assert len(answer.json()["refunds"]) == 1
        await refunded(client, topup, "sent")
    other = await ask(client, topup, "once", credits=11)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")


async def test_a_refund_that_fails_gives_the_credits_back(sending: Gateway) -> None:
    client = await sending.visitor()
    topup = await sending.top_up(client, 100)
    before = await credits_of(client)
    sending.fake.network.refund_outcome = Refund.FAILED
    await ask(client, topup)
    await refunded(client, topup, "failed")
    assert await credits_of(client) == before


async def test_one_that_bounces_days_later_gives_them_back_by_itself(sending: Gateway) -> None:
    client = await sending.visitor()
    topup = await sending.top_up(client, 100)
    await ask(client, topup)
    sent = await refunded(client, topup, "sent")
    await sending.fake.network.fail_refund(sent["refunds"][0]["id"])
    back = await refunded(client, topup, "returned")
    assert back["credited"] == 100


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"credits": 101}, 409, "lot_not_found"),
        ({"lot_id": "lot_of_nobody"}, 409, "nothing_to_refund"),
        ({"destination": "lnbc1qqqqqqq"}, 422, "destination_not_taken"),
        ({"destination": "not an address"}, 422, "invalid_request"),
        ({"credits": 0}, 422, "invalid_request"),
        ({"credits": "5"}, 422, "invalid_request"),
        ({"amount_minor": 1}, 422, "invalid_request"),
    ],
)
async def test_what_cannot_be_refunded_is_refused_by_name_and_changes_nothing(
    gateway: Gateway, body: dict[str, Any], status: int, code: str
) -> None:
    client = await gateway.visitor()
    topup = await gateway.top_up(client, 100)
    before = await credits_of(client)
    answer = await ask(client, topup, **body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert await credits_of(client) == before
    assert "refunds" not in (await client.get(f"/v1/topups/{topup['id']}")).json()


async def test_disputed_money_is_not_refunded(gateway: Gateway) -> None:
    client = await gateway.visitor()
    topup = await gateway.top_up(client, 100)
    reference = topup["instructions"]["text"]
    [money] = gateway.fake.network.way(reference).receipts
    await gateway.fake.network.change(reference, money, ReceiptState.DISPUTED)

    async def disputed() -> bool:
        return bool((await client.get(f"/v1/topups/{topup['id']}")).json()["state"] == "disputed")

    await soon(disputed, "the dispute was never noticed")
    answer = await ask(client, topup)
    assert (answer.status_code, answer.json()["code"]) == (409, "lot_disputed")


async def test_what_somebody_else_paid_by_a_link_is_not_offered(gateway: Gateway) -> None:
    client = await gateway.visitor()
    account_id = (await client.get("/v1/account")).json()["id"]
    link = gateway.services.identity.topup_links.issue(account_id, needed_credits=5)
    stranger = gateway.bearer(link.rpartition("#")[2])
    body = {"rail": "fake", "credits": 100, "pay_asset": "USD"}
    topup = (await stranger.post("/v1/topup-link/topups", json=body)).json()
    await gateway.pay(topup)

    async def paid() -> bool:
        return bool((await client.get(f"/v1/topups/{topup['id']}")).json()["state"] == "paid")

    await soon(paid, "the top-up was never paid")
    assert (await client.get(f"/v1/topups/{topup['id']}/refund")).json()["offers"] == []
    answer = await ask(client, topup)
    assert (answer.status_code, answer.json()["code"]) == (409, "refund_not_offered")
    assert (await stranger.post(f"/v1/topups/{topup['id']}/refund", json={})).status_code == 401


async def test_after_the_owners_days_it_is_neither_offered_nor_given(open_gateway: Open) -> None:
    clock = LateClock()
    async with open_gateway(clock=clock, refund_days=3) as gateway:
        client = await gateway.visitor()
        topup = await gateway.top_up(client, 100)
        assert len((await client.get(f"/v1/topups/{topup['id']}/refund")).json()["offers"]) == 1
        clock.ahead = timedelta(days=3, seconds=1)
        assert (await client.get(f"/v1/topups/{topup['id']}/refund")).json()["offers"] == []
        answer = await ask(client, topup)
        assert (answer.status_code, answer.json()["code"], answer.json()["days"]) == (
            409,
            "refund_too_late",
            3,
        )


async def test_an_owner_may_give_none_on_request(open_gateway: Open) -> None:
    async with open_gateway(refund_days=0) as gateway:
        client = await gateway.visitor()
        topup = await gateway.top_up(client, 100)
        offers = (await client.get(f"/v1/topups/{topup['id']}/refund")).json()
        assert offers == {"days": 0, "to": None, "offers": []}
        assert (await ask(client, topup)).json()["code"] == "refund_not_offered"


async def test_a_guest_who_signed_in_is_refunded_out_of_the_persons_credits(gateway: Gateway) -> None:
    browser = gateway.browser()
    await browser.get("/v1/account")
    topup = await gateway.top_up(browser, 100)
    signed_in = await browser.post("/v1/session", json={"email": "refunded@example.com"})
    assert signed_in.json()["merged"]["credits"] == 100
    assert (await ask(browser, topup)).status_code == 202
    shown = await refunded(browser, topup, "sent")
    assert shown["credited"] == 0
