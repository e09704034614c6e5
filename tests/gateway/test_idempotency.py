"""A key means one thing for ever, and what was not paid for is not finished."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import httpx
import sqlalchemy as sa

from gateway.database.tables import idempotency_keys
from tests.gateway.stack import Gateway, credits_of, generation_request


async def broke(gateway: Gateway) -> httpx.AsyncClient:
    """Somebody who has nothing left."""
    client = await gateway.visitor()
    await gateway.spend_allowance(client)
    return client


async def ask(client: httpx.AsyncClient, key: str, times: int = 1) -> Sequence[httpx.Response]:
    """The same request, at once."""
    headers = {"Idempotency-Key": key}
    body = generation_request("the same")
    return await asyncio.gather(
        *(client.post("/v1/generations", json=body, headers=headers) for _ in range(times))
    )


async def test_without_credits_the_answer_says_what_is_missing_and_where_to_get_it(gateway: Gateway) -> None:
    client = await broke(gateway)
    answer = await client.post("/v1/generations", json=generation_request())
    assert answer.status_code == 402
    document = answer.json()
    assert document["code"] == "insufficient_credits"
    assert document["needed_credits"] == 1
    assert document["balance"] == await credits_of(client)
    assert document["topup_url"].startswith(f"{gateway.url}/topup#"), "see test_topup_links"


async def test_a_refused_request_leaves_no_sketch_behind(gateway: Gateway) -> None:
    client, other = await broke(gateway), await gateway.visitor()
    # One that is accepted shows that this is where sketches are.
    assert (await ask(other, "accepted"))[0].status_code == 202
    folder = gateway.settings.data / "objects" / "sketches"
    before = set(folder.iterdir())
    assert before
    for key in ("leave-nothing", "leave-nothing", "nor-this"):
        assert (await ask(client, key, 2))[0].status_code == 402
    assert set(folder.iterdir()) == before


async def test_a_refusal_for_want_of_credits_does_not_finish_a_key(gateway: Gateway) -> None:
    client = await broke(gateway)
    assert [a.status_code for a in await ask(client, "later", 3)] == [402] * 3
    held = (await credits_of(client))["held"]
    await gateway.top_up(client, 100)
    answers = await ask(client, "later", 8)
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert (await credits_of(client))["held"] == held + 1


async def test_a_crash_between_the_refusal_and_its_reopening_costs_nothing(gateway: Gateway) -> None:
    client = await broke(gateway)
    await ask(client, "crashed")
    account = (await client.get("/v1/account")).json()["id"]
    async with gateway.services.base.engine.begin() as connection:
        # As it was before the refused attempt could be put away.
        await connection.execute(
            sa.update(idempotency_keys).where(idempotency_keys.c.principal == account).values(attempt=0)
        )
    held = (await credits_of(client))["held"]
    await gateway.top_up(client, 100)
    answers = await ask(client, "crashed", 8)
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert (await credits_of(client))["held"] == held + 1


async def test_a_finished_key_stays_finished_when_the_credits_are_gone(gateway: Gateway) -> None:
    client = await gateway.visitor()
    (first,) = await ask(client, "done")
    await gateway.spend_allowance(client)
    (again,) = await ask(client, "done")
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])


async def test_without_a_key_each_request_is_its_own(gateway: Gateway) -> None:
    client = await gateway.visitor()
    answers = [await client.post("/v1/generations", json=generation_request("twin")) for _ in range(2)]
    assert len({answer.json()["id"] for answer in answers}) == 2
    assert (await credits_of(client))["held"] == 2


async def test_a_key_belongs_to_its_owner_and_its_route(gateway: Gateway) -> None:
    one, two = await gateway.visitor(), await gateway.visitor()
    (mine,), (theirs,) = await ask(one, "shared"), await ask(two, "shared")
    assert mine.json()["id"] != theirs.json()["id"]
    body = {"rail": "fake", "credits": 5, "pay_asset": "USD"}
    topup = await one.post("/v1/topups", json=body, headers={"Idempotency-Key": "shared"})
    assert topup.status_code == 201


async def test_a_topup_is_opened_once_however_often_it_is_sent(gateway: Gateway) -> None:
    client = await gateway.visitor()
    body = {"rail": "fake", "credits": 50, "pay_asset": "USD"}
    headers = {"Idempotency-Key": "once"}
    answers = await asyncio.gather(*(client.post("/v1/topups", json=body, headers=headers) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len((await client.get("/v1/topups")).json()["topups"]) == 1
    codes = [answer.json()["recovery_code"] for answer in answers if "recovery_code" in answer.json()]
    assert len(codes) == 8, "an answer that was lost is given again"
    assert len(set(codes)) == 1
    other = await client.post("/v1/topups", json={**body, "credits": 51}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")


async def test_a_topup_is_shown_again_and_never_opened_twice_while_no_more_may_be_opened(
    gateway: Gateway,
) -> None:
    client = await gateway.visitor()
    body = {"rail": "fake", "credits": 50, "pay_asset": "USD"}
    headers = {"Idempotency-Key": "the-first-of-too-many"}
    first = await client.post("/v1/topups", json=body, headers=headers)
    limit = gateway.services.payments.payments.limits.open_per_account
    others = [await gateway.open_topup(client) for _ in range(limit - 1)]
    assert (await client.post("/v1/topups", json=body)).status_code == 429
    again = await client.post("/v1/topups", json=body, headers=headers)
    assert (again.status_code, again.json().get("id")) == (201, first.json()["id"])
    await client.post(f"/v1/topups/{others[0]['id']}/cancel", json={})
    again = await client.post("/v1/topups", json=body, headers=headers)
    assert (again.status_code, again.json().get("id")) == (201, first.json()["id"])


async def test_a_topup_refused_for_now_is_opened_once_when_it_may_be(gateway: Gateway) -> None:
    client = await gateway.visitor()
    body = {"rail": "fake", "credits": 50, "pay_asset": "USD"}
    headers = {"Idempotency-Key": "too-early"}
    limit = gateway.services.payments.payments.limits.open_per_account
    others = [await gateway.open_topup(client) for _ in range(limit)]
    assert (await client.post("/v1/topups", json=body, headers=headers)).status_code == 429
    await client.post(f"/v1/topups/{others[0]['id']}/cancel", json={})
    answers = [await client.post("/v1/topups", json=body, headers=headers) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
