"""Many requests at once, at two API processes on one database: what is bounded stays bounded."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from generation.domain.fairness import FREE
from tests.gateway.conftest import Open
from tests.gateway.stack import Gateway, credits_of, generation_request

BODY = {"rail": "fake", "credits": 50, "pay_asset": "USD"}
TOPUPS_MAX = 20
IMAGE = generation_request("a llama in a crowd")
UNPAID = {**IMAGE, "funding": {"rail": "fake", "pay_asset": "USD"}}


@pytest.fixture(scope="module")
async def pair(
    open_gateway: Open, make_database: Callable[..., str], migrated: str
) -> AsyncIterator[tuple[Gateway, Gateway]]:
    """Two API processes on one database."""
    database = await asyncio.to_thread(make_database, migrated)
    async with open_gateway(database=database) as one, open_gateway(database=database) as two:
        yield one, two


async def both(pair: tuple[Gateway, Gateway]) -> tuple[httpx.AsyncClient, httpx.AsyncClient]:
    """One visitor, at each of the two."""
    one, two = pair
    token = (await one.client().post("/v1/visitors")).json()["token"]
    return one.bearer(token), two.bearer(token)


async def test_sixty_topups_at_once_open_twenty_and_the_others_are_told_why(
    pair: tuple[Gateway, Gateway],
) -> None:
    clients = await both(pair)
    before = await credits_of(clients[0])
    answers = await asyncio.gather(
        *(client.post("/v1/topups", json=BODY) for _ in range(30) for client in clients)
    )
    assert Counter(answer.status_code for answer in answers) == {201: TOPUPS_MAX, 429: 60 - TOPUPS_MAX}
    refused = [answer for answer in answers if answer.status_code == 429]
    assert {answer.json()["code"] for answer in refused} == {"too_many_open_payments"}
    assert {answer.headers["content-type"] for answer in refused} == {"application/problem+json"}
    opened = {answer.json()["id"] for answer in answers if answer.status_code == 201}
    for client in clients:
        shown = (await client.get("/v1/topups")).json()["topups"]
        assert {topup["id"] for topup in shown} == opened
        assert {(topup["state"], topup["credited"]) for topup in shown} == {("waiting", 0)}
        assert await credits_of(client) == before
    calls = [gateway.fake.network.calls.count("open") for gateway in pair]
    assert sum(calls) == TOPUPS_MAX, "for what is refused no rail is asked"


async def test_keys_that_were_refused_in_the_crowd_open_one_topup_each_when_there_is_room(
    pair: tuple[Gateway, Gateway],
) -> None:
    clients = await both(pair)

    async def ask(client: httpx.AsyncClient, number: int) -> httpx.Response:
        return await client.post("/v1/topups", json=BODY, headers={"Idempotency-Key": f"crowd-{number}"})

    numbers = range(30)
    answers = await asyncio.gather(*(ask(client, number) for number in numbers for client in clients))
    opened: dict[int, set[str]] = {number: set() for number in numbers}
    for place, answer in enumerate(answers):
        assert answer.status_code in (201, 429), answer.text
        if answer.status_code == 201:
            opened[place >> 1].add(answer.json()["id"])
    ids = [ids for ids in opened.values() if ids]
    assert len(ids) == TOPUPS_MAX
    assert all(len(of_key) == 1 for of_key in ids), "one key, one top-up, whichever process was asked"
    (first,) = ids[0]
    refused = next(number for number, of_key in opened.items() if not of_key)
    assert (await clients[1].post(f"/v1/topups/{first}/cancel", json={})).status_code == 200
    again = await asyncio.gather(*(ask(client, refused) for client in clients))
    assert [answer.status_code for answer in again] == [201, 201]
    assert len({answer.json()["id"] for answer in again}) == 1


async def test_forty_images_at_once_that_pay_apart_get_the_places_that_their_visitor_has_left(
    pair: tuple[Gateway, Gateway],
) -> None:
    clients = await both(pair)
    taken = [(await clients[0].post("/v1/generations", json=IMAGE)).status_code for _ in range(12)]
    assert set(taken) == {202}
    left = FREE.in_flight_max - len(taken)
    answers = await asyncio.gather(
        *(client.post("/v1/generations", json=UNPAID) for _ in range(20) for client in clients)
    )
    assert Counter(answer.status_code for answer in answers) == {202: left, 429: 40 - left}
    refused = [answer for answer in answers if answer.status_code == 429]
    assert {answer.json()["code"] for answer in refused} == {"too_many_in_flight"}
    accepted = {answer.json()["id"] for answer in answers if answer.status_code == 202}
    assert len(accepted) == left
    topups = (await clients[1].get("/v1/topups")).json()["topups"]
    assert len(topups) == left, "what is refused asks for no payment"
    one_of_them = accepted.pop()
    again = await clients[0].post("/v1/generations", json=UNPAID)
    assert (again.status_code, again.json()["code"]) == (429, "too_many_in_flight")
    assert (await clients[1].delete(f"/v1/generations/{one_of_them}")).json()["state"] == "cancelled"
    again = await asyncio.gather(*(client.post("/v1/generations", json=UNPAID) for client in clients))
    assert sorted(answer.status_code for answer in again) == [202, 429]
