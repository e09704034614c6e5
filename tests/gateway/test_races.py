"""Many requests at once, at two API processes on one database: what is bounded stays bounded."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from functools import partial

import httpx
import pytest

from generation.domain.fairness import FREE
from tests.gateway.conftest import Open
from tests.gateway.stack import Gateway, credits_of, generation_request, registration, sketch
from tests.hostile.pictures import JPEG, photograph

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
    opened = partial(open_gateway, database=database, uploads_waiting_network=100)
    async with opened() as one, opened() as two:
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
    taken = [
        (await clients[0].post("/v1/generations", json=IMAGE)).status_code
        for _ in range(FREE.in_flight_max - 6)
    ]
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


async def test_one_key_at_two_processes_makes_one_image(pair: tuple[Gateway, Gateway]) -> None:
    clients = await both(pair)
    key = {"Idempotency-Key": "same-crowd"}
    answers = await asyncio.gather(
        *(client.post("/v1/generations", json=IMAGE, headers=key) for _ in range(10) for client in clients)
    )
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert (await credits_of(clients[0]))["held"] == 1


async def test_an_image_that_is_taken_back_by_many_at_once_comes_back_once(
    pair: tuple[Gateway, Gateway],
) -> None:
    clients = await both(pair)
    asked = [(await clients[0].post("/v1/generations", json=IMAGE)).json()["id"] for _ in range(3)]
    answers = await asyncio.gather(
        *(client.delete(f"/v1/generations/{job}") for _ in range(8) for job in asked for client in clients)
    )
    assert {answer.json()["state"] for answer in answers} == {"cancelled"}
    assert (await credits_of(clients[1]))["held"] == 0
    assert (await clients[1].get("/v1/account")).json()["free_today"]["left"] == 20


async def test_a_registration_token_that_many_use_at_once_takes_in_one_worker(
    pair: tuple[Gateway, Gateway],
) -> None:
    token = pair[0].registration_token()
    answers = await asyncio.gather(
        *(
            gateway.client().post("/v1/worker/register", json=registration(token))
            for _ in range(8)
            for gateway in pair
        )
    )
    assert Counter(answer.status_code for answer in answers) == {201: 1, 401: 15}


@pytest.fixture(scope="module")
async def strict_pair(
    open_gateway: Open, make_database: Callable[..., str], migrated: str
) -> AsyncIterator[tuple[Gateway, Gateway]]:
    """Two that let a megabyte be sent in an hour, and six codes be guessed in a minute."""
    database = await asyncio.to_thread(make_database, migrated)
    opened = partial(
        open_gateway,
        database=database,
        uploads_waiting_network=100,
        upload_megabytes_per_hour=1,
        recovery_attempts_per_minute=6,
    )
    async with opened() as one, opened() as two:
        yield one, two


async def test_uploads_at_once_at_two_processes_stay_within_the_quota(
    strict_pair: tuple[Gateway, Gateway],
) -> None:
    clients = await both(strict_pair)
    photo = photograph(900, quality=50)
    may_be_sent = 1024 // (len(photo) // 1024 + 1)
    body = {"prompt": "x", "sketch": sketch(photo, JPEG)}
    answers = await asyncio.gather(
        *(client.post("/v1/generations", json=body) for _ in range(may_be_sent) for client in clients)
    )
    refused = [answer for answer in answers if answer.status_code == 429]
    assert {answer.json()["code"] for answer in refused} == {"upload_quota_used_up"}
    assert len(refused) == may_be_sent


async def test_guesses_at_once_at_two_processes_are_counted_together(
    strict_pair: tuple[Gateway, Gateway],
) -> None:
    clients = await both(strict_pair)
    guess = {"recovery_code": "LLAMA-0000-0000-0000-0000"}
    answers = await asyncio.gather(
        *(client.post("/v1/session/recover", json=guess) for _ in range(10) for client in clients)
    )
    assert Counter(answer.status_code for answer in answers) == {404: 6, 429: 14}
