"""Operators over HTTP: what they see, what they do with money, and that nobody else does."""

from __future__ import annotations

from datetime import timedelta
from itertools import count
from typing import Any

import httpx
import pytest

from ledger.clock import system_clock
from ledger.money import BTC, USD, USDT, Money
from rails.contract import FundsReceipt, ReceiptState
from tests.gateway.conftest import Open
from tests.gateway.stack import Gateway, credits_of, operator_of, soon

_keys = count(1)
FREE = 20
"""Credits of the day."""


@pytest.fixture
async def operator(gateway: Gateway) -> httpx.AsyncClient:
    return await operator_of(gateway)


@pytest.fixture
async def payer(gateway: Gateway) -> httpx.AsyncClient:
    return await gateway.visitor()


async def do(client: httpx.AsyncClient, path: str, key: str = "", **body: Any) -> httpx.Response:
    """A write of an operator, with a reason and a key."""
    headers = {"Idempotency-Key": key or f"op-{next(_keys)}"}
    return await client.post(f"/v1/operator{path}", json={"reason": "a test", **body}, headers=headers)


async def shown(client: httpx.AsyncClient, payment_id: str) -> dict[str, Any]:
    answer = await client.get(f"/v1/operator/payments/{payment_id}")
    assert answer.status_code == 200, answer.text
    detail: dict[str, Any] = answer.json()
    return detail


async def until_state(client: httpx.AsyncClient, topup: dict[str, Any], state: str) -> None:
    async def is_so() -> bool:
        return bool((await client.get(f"/v1/topups/{topup['id']}")).json()["state"] == state)

    await soon(is_so, f"the top-up was never {state}")


# --- who ---------------------------------------------------------------------------------------------


async def test_whoever_is_taken_out_may_do_nothing_from_then_on(gateway: Gateway) -> None:
    client = await operator_of(gateway, "for-an-hour@example.com")
    assert (await client.get("/v1/operator/attention")).status_code == 200
    account_id = (await client.get("/v1/account")).json()["id"]
    await gateway.services.identity.operators.remove(account_id)
    answer = await client.get("/v1/operator/attention")
    assert (answer.status_code, answer.json()["code"]) == (403, "operators_only")


async def test_a_visitor_is_never_an_operator(gateway: Gateway, payer: httpx.AsyncClient) -> None:
    account_id = (await payer.get("/v1/account")).json()["id"]
    await gateway.services.identity.operators.add(account_id, "test")
    assert (await payer.get("/v1/operator/attention")).status_code == 403


async def test_another_sites_page_does_nothing_with_an_operators_cookie(gateway: Gateway) -> None:
    await operator_of(gateway, "tricked@example.com")
    browser = gateway.browser()
    await browser.post("/v1/session", json={"email": "tricked@example.com"})
    account_id = (await browser.get("/v1/account")).json()["id"]
    path, body = f"/v1/operator/accounts/{account_id}/adjust", {"credits": 5, "reason": "x"}
    foreign = {"Origin": "https://elsewhere.example", "Idempotency-Key": "k"}
    assert (await browser.post(path, json=body, headers=foreign)).json()["code"] == "foreign_origin"
    text = {"Content-Type": "text/plain", "Idempotency-Key": "k"}
    assert (await browser.post(path, content="{}", headers=text)).json()["code"] == "json_only"


# --- finding -----------------------------------------------------------------------------------------


async def test_a_payment_is_found_by_every_name_it_has(gateway: Gateway, operator: httpx.AsyncClient) -> None:
    payer = await gateway.person("found@example.com")
    topup = await gateway.top_up(payer, 100)
    account_id = (await payer.get("/v1/account")).json()["id"]
    reference = topup["instructions"]["text"]
    [money] = gateway.fake.network.way(reference).receipts
    for name in (topup["id"], account_id, reference, money, "Found@Example.com"):
        found = (await operator.get("/v1/operator/payments", params={"search": name})).json()["payments"]
        assert [row["payment_id"] for row in found] == [topup["id"]], name
    for name in ("nobody@example.com", "pay_none", "x"):
        found = (await operator.get("/v1/operator/payments", params={"search": name})).json()
        assert found == {"payments": [], "next_before": None}


async def test_payments_are_listed_in_pages(gateway: Gateway, operator: httpx.AsyncClient) -> None:
    payer = await gateway.visitor()
    account_id = (await payer.get("/v1/account")).json()["id"]
    opened = [(await gateway.open_topup(payer))["id"] for _ in range(5)]
    found: list[str] = []
    params = {"search": account_id, "limit": "2"}
    while True:
        page = (await operator.get("/v1/operator/payments", params=params)).json()
        found += [row["payment_id"] for row in page["payments"]]
        if page["next_before"] is None:
            break
        params["before"] = page["next_before"]
    assert found == opened[::-1]
    paid = await operator.get("/v1/operator/payments", params={"search": account_id, "state": "paid"})
    assert paid.json()["payments"] == []


async def test_a_payment_shows_its_events_with_who_did_them(
    gateway: Gateway, operator: httpx.AsyncClient, payer: httpx.AsyncClient
) -> None:
    topup = await gateway.top_up(payer, 100)
    await do(operator, f"/payments/{topup['id']}/refund", credits=10, reason="the payer asked by mail")
    detail = await shown(operator, topup["id"])
    by = {event["event"]: event for event in detail["events"]}
    asked = by["rails.refund_requested.v1"]
    assert asked["actor"].startswith("operator:acct_")
    assert asked["data"]["reason"] == "the payer asked by mail"
    assert by["rails.payment_opened.v1"]["actor"].startswith("acct_")
    assert [lot["reference"] for lot in detail["lots"]] == [topup["id"]]


# --- refunds -----------------------------------------------------------------------------------------


async def test_a_refund_is_requested_once_per_key_and_sent(
    gateway: Gateway, operator: httpx.AsyncClient, payer: httpx.AsyncClient
) -> None:
    topup = await gateway.top_up(payer, 100)
    [offer] = (await shown(operator, topup["id"]))["refundable"]
    assert (offer["credits"], offer["amount_minor"]) == (100, 100)
    for _ in range(3):
        answer = await do(
            operator, f"/payments/{topup['id']}/refund", "same", lot_id=offer["lot_id"], credits=30
        )
        assert answer.status_code == 202, answer.text
        assert len(answer.json()["refunds"]) == 1

    async def sent() -> bool:
        refunds = (await shown(operator, topup["id"]))["topup"]["refunds"]
        return bool(refunds[0]["state"] == "sent")

    await soon(sent, "the refund was never sent")
    assert (await credits_of(payer))["posted"] == 70 + FREE
    other = await do(operator, f"/payments/{topup['id']}/refund", "same", credits=31)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")


async def test_a_refund_by_hand_waits_for_the_operators_word(
    gateway: Gateway, operator: httpx.AsyncClient, payer: httpx.AsyncClient
) -> None:
    body = {"rail": "quiet", "credits": 100, "pay_asset": "USD"}
    topup = (await payer.post("/v1/topups", json=body)).json()
    await gateway.quiet.network.pay(topup["instructions"]["text"], Money(100, USD))
    await until_state(payer, topup, "paid")
    answer = await do(operator, f"/payments/{topup['id']}/refund", credits=40)
    assert answer.status_code == 202, answer.text
    [refund] = answer.json()["refunds"]
    assert refund["by_hand"]
    waiting = (await operator.get("/v1/operator/attention")).json()["refunds"]
    assert [one["by_hand"] for one in waiting if one["refund_id"] == refund["id"]] == [True]
    found = await operator.get("/v1/operator/payments", params={"search": refund["id"]})
    assert [row["payment_id"] for row in found.json()["payments"]] == [topup["id"]]
    path = f"/payments/{topup['id']}/refunds/{refund['id']}"
    assert (await do(operator, path, sent=True)).status_code == 422
    assert (await do(operator, path + "x", sent=False)).json()["code"] == "refund_not_found"
    for _ in range(2):
        answer = await do(operator, path, "recorded", sent=True, reference="txid")
        assert [one["state"] for one in answer.json()["refunds"]] == ["sent"]
    again = await do(operator, path, sent=False)
    assert (again.status_code, again.json()["code"]) == (409, "refund_not_by_hand")
    assert (await credits_of(payer))["posted"] == 60 + FREE


# --- suspense ----------------------------------------------------------------------------------------


async def suspended(gateway: Gateway, payer: httpx.AsyncClient, money: Money) -> tuple[dict[str, Any], str]:
    """A top-up to which money came that could not be credited."""
    topup = await gateway.open_topup(payer)
    name = await gateway.fake.network.pay(topup["instructions"]["text"], money)
    await until_state(payer, topup, "suspense")
    return topup, name


async def test_money_that_is_too_small_is_assigned_credits(
    gateway: Gateway, operator: httpx.AsyncClient, payer: httpx.AsyncClient
) -> None:
    body = {"rail": "fake", "credits": 100, "pay_asset": "USDT"}
    topup = (await payer.post("/v1/topups", json=body)).json()
    money = await gateway.fake.network.pay(topup["instructions"]["text"], Money(5, USDT))
    await until_state(payer, topup, "suspense")
    listed = (await operator.get("/v1/operator/attention")).json()["suspended"]
    [one] = [each for each in listed if each["money_ref"] == money]
    assert (one["status"], one["payment_id"], one["amount_minor"]) == ("too_small", topup["id"], 5)
    path = f"/payments/{topup['id']}/suspense"
    refused = await do(operator, path, money_ref=money, action="accept")
    assert (refused.status_code, refused.json()["code"]) == (409, "money_not_in_suspense")
    for _ in range(2):
        answer = await do(operator, path, "assigned", money_ref=money, action="assign", credits=3)
        assert answer.status_code == 200, answer.text
    assert (await credits_of(payer))["posted"] == 3 + FREE
    again = await do(operator, path, money_ref=money, action="assign", credits=3)
    assert (again.status_code, again.json()["code"]) == (409, "money_not_in_suspense")
    listed = (await operator.get("/v1/operator/attention")).json()["suspended"]
    assert money not in [each["money_ref"] for each in listed]


async def test_money_of_another_asset_is_accepted_at_todays_rate(
    gateway: Gateway, operator: httpx.AsyncClient, payer: httpx.AsyncClient
) -> None:
    topup, money = await suspended(gateway, payer, Money(200_000_000, USDT))
    answer = await do(operator, f"/payments/{topup['id']}/suspense", money_ref=money, action="accept")
    assert answer.status_code == 200, answer.text
    assert answer.json()["credited"] == 200
    events = (await shown(operator, topup["id"]))["events"]
    assert events[-1]["data"]["reason"] == "a test"
    assert events[-1]["actor"].startswith("operator:")


async def test_money_of_another_asset_is_returned_and_never_credited_as_well(
    gateway: Gateway, operator: httpx.AsyncClient, payer: httpx.AsyncClient
) -> None:
    topup, money = await suspended(gateway, payer, Money(200_000_000, USDT))
    path = f"/payments/{topup['id']}/suspense"
    assert (await do(operator, path, money_ref=money, action="return")).status_code == 200
    refused = await do(operator, path, money_ref=money, action="accept")
    assert refused.json()["code"] == "money_not_in_suspense"

    async def sent() -> bool:
        return bool((await shown(operator, topup["id"]))["topup"]["refunds"][0]["state"] == "sent")

    await soon(sent, "the money was never sent back")
    assert (await credits_of(payer))["posted"] == FREE


async def test_without_a_rate_nothing_is_accepted(
    gateway: Gateway, operator: httpx.AsyncClient, payer: httpx.AsyncClient
) -> None:
    topup, money = await suspended(gateway, payer, Money(200_000_000, BTC))
    answer = await do(operator, f"/payments/{topup['id']}/suspense", money_ref=money, action="accept")
    assert (answer.status_code, answer.json()["code"]) == (503, "rail_closed")


# --- disputes and debts ------------------------------------------------------------------------------


async def test_disputes_are_listed_by_deadline_and_their_debts_can_be_forgiven(open_gateway: Open) -> None:
    async with open_gateway() as gateway:
        operator = await operator_of(gateway)
        due = system_clock().replace(microsecond=0) + timedelta(days=5)
        payers, topups = [], []
        for late in (timedelta(0), timedelta(days=-3), None):
            payer = await gateway.visitor()
            topup = await gateway.top_up(payer, 100)
            account_id = (await payer.get("/v1/account")).json()["id"]
            await gateway.spend(account_id, (await credits_of(payer))["available"])
            reference = topup["instructions"]["text"]
            [known] = gateway.fake.network.way(reference).receipts.values()
            disputed = FundsReceipt(
                money_ref=known.money_ref,
                amount=known.amount,
                state=ReceiptState.DISPUTED,
                first_seen_at=known.first_seen_at,
                external_ref=known.external_ref,
                evidence_due_by=None if late is None else due + late,
            )
            await gateway.fake.network.put(reference, disputed)
            await until_state(payer, topup, "disputed")
            payers.append(account_id)
            topups.append(topup["id"])
        now = (await operator.get("/v1/operator/attention")).json()
        assert [one["payment_id"] for one in now["disputes"]] == [topups[1], topups[0], topups[2]]
        assert now["disputes"][0]["evidence_due_by"] == (due - timedelta(days=3)).isoformat()
        assert {one["account_id"]: one["debt"] for one in now["debts"]} == dict.fromkeys(payers, 100)
        path = f"/accounts/{payers[0]}/forgive"
        refused = await do(operator, path, credits=101)
        assert (refused.status_code, refused.json()["code"]) == (409, "no_debt")
        for _ in range(2):
            answer = await do(operator, path, "once", credits=60)
            assert answer.json()["debt"] == 40
        assert (await do(operator, f"/payments/{topups[0]}/refund")).json()["code"] == "lot_disputed"


async def test_credits_are_adjusted_once_per_key_and_never_below_nothing(
    gateway: Gateway, operator: httpx.AsyncClient, payer: httpx.AsyncClient
) -> None:
    await gateway.top_up(payer, 100)
    account_id = (await payer.get("/v1/account")).json()["id"]
    for _ in range(3):
        answer = await do(operator, f"/accounts/{account_id}/adjust", "gift", credits=25, reason="an outage")
        assert answer.status_code == 200, answer.text
    assert (await credits_of(payer))["posted"] == 125 + FREE
    before = (await credits_of(payer))["available"]
    refused = await do(operator, f"/accounts/{account_id}/adjust", "taken", credits=-100_000)
    assert (refused.status_code, refused.json()["code"]) == (402, "insufficient_credits")
    taken = await do(operator, f"/accounts/{account_id}/adjust", credits=-5)
    assert taken.json()["available"] == before - 5
    unknown = await do(operator, "/accounts/acct_01m82kykx4v1tt72yrjpq7a4w8/adjust", credits=5)
    assert (unknown.status_code, unknown.json()["code"]) == (404, "account_not_found")
    await payer.get("/v1/statement")

    async def listed() -> bool:
        rows = (await operator.get("/v1/operator/attention")).json()["adjustments"]
        mine = [(row["credits"], row["reason"]) for row in rows if row["account_id"] == account_id]
        return mine == [(-5, "a test"), (25, "an outage")]

    await soon(listed, "the adjustments were never listed with their reasons")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/payments/{id}/refund", {"credits": 1, "reason": ""}),
        ("/payments/{id}/refund", {"credits": 1, "reason": "  "}),
        ("/payments/{id}/refund", {"credits": 1, "reason": "x" * 301}),
        ("/payments/{id}/refund", {"credits": 1, "reason": "two\nlines"}),
        ("/payments/{id}/refund", {"credits": -1}),
        ("/payments/{id}/suspense", {"money_ref": "x", "action": "assign"}),
        ("/payments/{id}/suspense", {"money_ref": "x", "action": "accept", "credits": 5}),
        ("/payments/{id}/suspense", {"money_ref": "x", "action": "keep"}),
        ("/accounts/{id}/adjust", {"credits": 1.5}),
        ("/accounts/{id}/adjust", {"credits": 10**9}),
        ("/accounts/{id}/forgive", {"credits": 0}),
    ],
)
async def test_what_is_not_as_it_should_be_changes_nothing(
    gateway: Gateway, operator: httpx.AsyncClient, payer: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    topup = await gateway.top_up(payer, 100)
    head = await gateway.services.base.reader.head()
    answer = await do(operator, path.format(id=topup["id"]), **body)
    assert answer.status_code == 422, answer.text
    assert await gateway.services.base.reader.head() == head


async def test_a_write_without_a_key_is_refused(
    gateway: Gateway, operator: httpx.AsyncClient, payer: httpx.AsyncClient
) -> None:
    topup = await gateway.top_up(payer, 100)
    path = f"/v1/operator/payments/{topup['id']}/refund"
    answer = await operator.post(path, json={"reason": "a test"})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_idempotency_key")
