"""What happened to the credits, in pages, and what the web pages read beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import httpx
import psycopg
import pytest

from tests.gateway.conftest import Open
from tests.gateway.stack import Gateway, generation_request


class Returned(NamedTuple):
    """Somebody to whom everything has happened once."""

    client: httpx.AsyncClient
    painted: str
    cancelled: str
    topup: str


@pytest.fixture(scope="module")
async def returned(open_gateway: Open) -> AsyncIterator[Returned]:
    async with open_gateway() as gateway:
        client, worker = await gateway.visitor(), await gateway.worker()
        painted = (await client.post("/v1/generations", json=generation_request("painted"))).json()["id"]
        await worker.paint()
        cancelled = (await client.post("/v1/generations", json=generation_request("cancelled"))).json()["id"]
        await client.delete(f"/v1/generations/{cancelled}")
        topup = await gateway.top_up(client, 100)
        yield Returned(client, painted, cancelled, topup["id"])


async def entries(client: httpx.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    answer = await client.get("/v1/statement", params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["entries"]
    return found


async def test_every_line_follows_from_the_one_before(returned: Returned) -> None:
    lines = (await entries(returned.client))[::-1]
    assert [line["kind"] for line in lines] == ["granted", "held", "captured", "held", "released", "granted"]
    assert [line["credits"] for line in lines] == [20, -1, -1, -1, 1, 100]
    posted = held = 0
    for line in lines:
        match line["kind"]:
            case "held" | "released":
                held -= line["credits"]
            case kind:
                posted, held = posted + line["credits"], held - (kind == "captured")
        assert (line["posted_after"], line["held_after"]) == (posted, held)
        assert line["available_after"] == posted - held
    account = (await returned.client.get("/v1/account")).json()
    assert account["credits"] == {"posted": 119, "held": 0, "available": 119, "debt": 0}
    assert [line["position"] for line in lines] == sorted(line["position"] for line in lines)


async def test_an_image_is_linked_to_its_debit(returned: Returned) -> None:
    (line,) = await entries(returned.client, kind="captured")
    assert line["reference"] == {"type": "generation", "id": returned.painted}
    assert line["image_url"] == f"/v1/generations/{returned.painted}/image"
    assert (await returned.client.get(line["thumbnail_url"], follow_redirects=True)).headers[
        "content-type"
    ] == "image/webp"


async def test_pages_follow_each_other_without_a_gap(returned: Returned) -> None:
    whole = await entries(returned.client)
    found, cursor = [], None
    while True:
        query = {"limit": 2, **({"cursor": cursor} if cursor else {})}
        page = (await returned.client.get("/v1/statement", params=query)).json()
        found += page["entries"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        assert len(page["entries"]) == 2
    assert found == whole


async def test_filters_narrow_the_statement_alone_and_together(returned: Returned) -> None:
    async def kinds(**query: Any) -> list[str]:
        return [line["kind"] for line in await entries(returned.client, **query)]

    assert await kinds(type="topup") == ["granted"]
    assert await kinds(type="plan") == ["granted"]
    assert await kinds(type="adjustment") == []
    assert await kinds(reference=returned.painted, limit=20) == ["captured", "held"]
    assert await kinds(reference=returned.cancelled) == ["released", "held"]
    assert await kinds(reference=returned.topup) == ["granted"]
    assert await kinds(reference=returned.painted, kind="held") == ["held"]
    assert await kinds(reference=returned.painted, type="topup") == []
    assert await kinds(kind="held") == ["held", "held"]
    page = (await returned.client.get("/v1/statement?kind=held&limit=1")).json()
    assert page["next_cursor"]
    rest = (await returned.client.get(f"/v1/statement?kind=held&limit=1&cursor={page['next_cursor']}")).json()
    assert (rest["entries"][0]["reference"]["id"], rest["next_cursor"]) == (returned.painted, None)


async def test_lots_say_what_the_account_page_reads(returned: Returned) -> None:
    lots = {lot["source"]: lot for lot in (await returned.client.get("/v1/account")).json()["lots"]}
    paid, free = lots["payment"], lots["allowance"]
    assert (paid["granted"], paid["left"], paid["held"], paid["expires_at"]) == (100, 100, 0, None)
    assert (free["granted"], free["left"], free["spent"]) == (20, 19, 1)
    assert free["expires_at"].endswith("00:00:00+00:00")
    assert paid["reference"] == returned.topup


async def test_plans_say_what_the_plans_page_reads(gateway: Gateway) -> None:
    shown = (await gateway.client().get("/v1/plans")).json()
    plans = {plan["name"]: plan for plan in shown["plans"]}
    assert {name: plan["price_usd_minor"] for name, plan in plans.items()} == {
        "free": 0, "starter": 800, "pro": 2000, "unlimited": 4000,
    }  # fmt: skip
    assert {name: (plan["credits"], plan["period"]) for name, plan in plans.items()} == {
        "free": (20, "day"), "starter": (2000, "month"), "pro": (8000, "month"), "unlimited": (1000, "day"),
    }  # fmt: skip
    assert all(plan["label"] for plan in plans.values())
    packs = {pack["name"]: pack for pack in shown["packs"]}
    assert (packs["pack_500"]["credits"], packs["pack_500"]["price_usd_minor"]) == (500, 500)
    rails = (await gateway.client().get("/v1/rails")).json()
    assert {"credits": 500, "usd_minor": 500} in rails["packs"]
    fake = next(rail for rail in rails["rails"] if rail["name"] == "fake")
    assert (fake["open"], fake["label"], fake["reason"]) == (True, "Fake", None)


@pytest.mark.thorough  # It waits as long as a statement waits.
async def test_a_statement_that_cannot_be_brought_up_to_date_says_when_to_ask_again(
    open_gateway: Open,
) -> None:
    async with open_gateway() as gateway:
        client = await gateway.visitor()
        address = gateway.settings.database_url
        async with await psycopg.AsyncConnection.connect(address) as holder:
            await holder.execute("LOCK TABLE statement_entries IN EXCLUSIVE MODE")
            await client.post("/v1/generations", json=generation_request())
            behind = await client.get("/v1/statement")
            assert (behind.status_code, behind.json()["code"]) == (503, "statement_behind")
            assert behind.headers["Retry-After"] == "2"
        assert [line["kind"] for line in await entries(client)] == ["held", "granted"]
