"""What a stranger's upload costs is asked for first: who asks, how often, and whether there is anything to pay with."""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateway.conftest import Open
from tests.gateway.stack import Gateway, generation_request, sketch
from tests.generation.core.test_uploads import Lock, wait_for
from tests.hostile.pictures import JPEG, corpus, photograph
from tests.waiting import eventually


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[Lock]:
    made = Lock(tmp_path / "lock")
    yield made
    made.open()


async def nothing_is_decoded(gateway: Gateway) -> Any:
    """The processes that decode, all ended: one would have to be started anew."""
    uploads = gateway.services.generation.uploads
    await uploads.close()
    return uploads


@pytest.fixture(scope="module")
async def poor(gateway: Gateway) -> httpx.AsyncClient:
    await gateway.worker()
    client = await gateway.visitor()
    await gateway.spend_allowance(client)
    return client


async def test_a_sketch_that_cannot_be_paid_is_not_decoded(gateway: Gateway, poor: httpx.AsyncClient) -> None:
    uploads = await nothing_is_decoded(gateway)
    body = {"prompt": "x", "sketch": sketch(photograph(512, quality=50), JPEG)}
    answer = await poor.post("/v1/generations", json=body)
    assert (answer.status_code, answer.json()["code"]) == (402, "insufficient_credits")
    assert answer.json()["needed_credits"] == 1
    assert answer.json()["balance"]["available"] == 0
    assert not uploads._all


async def test_nobody_who_does_not_say_who_has_anything_decoded(gateway: Gateway) -> None:
    uploads = await nothing_is_decoded(gateway)
    answer = await gateway.client().post("/v1/generations", json=generation_request())
    assert answer.status_code == 401
    assert not uploads._all


async def test_nobody_who_asks_too_often_has_anything_decoded(open_gateway: Open) -> None:
    async with open_gateway(requests_per_minute=1) as gateway:
        client = await gateway.visitor()
        await client.post("/v1/generations", json=generation_request())
        uploads = await nothing_is_decoded(gateway)
        answer = await client.post("/v1/generations", json=generation_request())
        assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
        assert not uploads._all


@pytest.mark.parametrize("whose", ["upload_megabytes_per_hour", "upload_megabytes_per_hour_network"])
async def test_nobody_sends_more_megabytes_an_hour_than_his_quota(open_gateway: Open, whose: str) -> None:
    async with open_gateway(**{whose: 1}) as gateway:
        await gateway.worker()
        client = await gateway.visitor()
        photo = photograph(512, quality=50)
        body = {"prompt": "x", "sketch": sketch(photo, JPEG)}
        sent = 1_048_576 // len(photo) + 1
        answers = [await client.post("/v1/generations", json=body) for _ in range(sent)]
        refused = answers[-1]
        assert answers[0].status_code == 202
        assert (refused.status_code, refused.json()["code"]) == (429, "upload_quota_used_up")
        assert int(refused.headers["Retry-After"]) > 0
        other = await (await gateway.visitor()).post("/v1/generations", json=body)
        assert other.status_code == (429 if whose.endswith("network") else 202)


async def test_hostile_files_are_refused_and_nothing_is_decoded_or_held(gateway: Gateway) -> None:
    await gateway.worker()
    client = await gateway.visitor()
    uploads = await nothing_is_decoded(gateway)
    for hostile in corpus():
        body = {"prompt": "x", "sketch": sketch(hostile.data, hostile.content_type)}
        answer = await client.post("/v1/generations", json=body)
        assert (400 <= answer.status_code < 500, answer.json()["code"]) == (True, hostile.code), hostile.name
    assert not uploads._all
    assert (await client.get("/v1/account")).json()["credits"]["held"] == 0


async def test_the_same_request_means_the_same_image_after_the_credits_are_gone(gateway: Gateway) -> None:
    await gateway.worker()
    client = await gateway.visitor()
    body, key = generation_request("once"), {"Idempotency-Key": "once"}
    first = await client.post("/v1/generations", json=body, headers=key)
    await gateway.spend_allowance(client)
    again = await client.post("/v1/generations", json=body, headers=key)
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])


async def test_too_many_uploads_at_once_are_told_to_wait(open_gateway: Open, lock: Lock) -> None:
    async with open_gateway(upload_processes=1, uploads_waiting_network=1) as gateway:
        await gateway.worker()
        client, uploads = await gateway.visitor(), gateway.services.generation.uploads
        network = "127.0.0.1/32"
        held = [asyncio.create_task(uploads.run(network, wait_for, lock.name)) for _ in range(2)]
        await eventually(lambda: bool(uploads._turns._waiting), "one works and one waits")
        answer = await client.post("/v1/generations", json=generation_request())
        assert (answer.status_code, answer.json()["code"]) == (429, "too_many_uploads")
        assert int(answer.headers["Retry-After"]) > 0
        fcntl.flock(lock._file, fcntl.LOCK_UN)
        await asyncio.gather(*held)
        assert (await client.post("/v1/generations", json=generation_request())).status_code == 202


async def test_a_noisy_photograph_is_stored_small_enough_to_be_served(gateway: Gateway) -> None:
    worker, client = await gateway.worker(), await gateway.visitor()
    await worker.drain_queue()
    body = {"prompt": "x", "sketch": sketch(photograph(3100, quality=20), JPEG)}
    assert (await client.post("/v1/generations", json=body)).status_code == 202
    job = await worker.take()
    fetched = await worker.client.get(job["sketch"]["url"], headers={"Authorization": ""})
    assert fetched.status_code == 200
    assert len(fetched.content) < 4_000_000
