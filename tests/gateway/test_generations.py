"""Asking for images over HTTP: what is promised to artists and API clients."""

from __future__ import annotations

import asyncio

from tests.gateway.stack import Gateway, generation_request


async def test_a_visitor_gets_an_image_and_pays_one_credit_for_it(gateway: Gateway) -> None:
    client, worker = await gateway.visitor(), await gateway.worker()
    await worker.drain_queue()
    asked = await client.post("/v1/generations", json=generation_request())
    assert asked.status_code == 202
    assert asked.json()["state"] == "queued"
    assert (await client.get("/v1/account")).json()["credits"] == {
        "posted": 20,
        "held": 1,
        "available": 19,
        "debt": 0,
    }
    assert await worker.paint() == asked.json()["id"]
    done = (await client.get(f"/v1/generations/{asked.json()['id']}")).json()
    assert (done["state"], done["credits"]) == ("completed", {"held": 0, "captured": 1})
    image = await client.get(done["image_url"], follow_redirects=True)
    assert (image.status_code, image.headers["content-type"]) == (200, "image/png")
    assert (await client.get("/v1/account")).json()["credits"]["posted"] == 19


async def test_the_same_key_and_body_mean_the_same_image_however_often_sent(gateway: Gateway) -> None:
    client, worker = await gateway.visitor(), await gateway.worker()
    await worker.drain_queue()
    headers = {"Idempotency-Key": "abc"}
    body = generation_request("a llama on a bicycle")
    answers = await asyncio.gather(
        *(client.post("/v1/generations", json=body, headers=headers) for _ in range(8))
    )
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert (await client.get("/v1/account")).json()["credits"]["held"] == 1
    await worker.paint()
    assert (await client.post("/v1/generations", json=body, headers=headers)).status_code == 202
    assert (await client.get("/v1/account")).json()["credits"] == {
        "posted": 19,
        "held": 0,
        "available": 19,
        "debt": 0,
    }


async def test_a_known_key_with_another_body_is_a_conflict_and_changes_nothing(gateway: Gateway) -> None:
    client = await gateway.visitor()
    headers = {"Idempotency-Key": "abc"}
    first = await client.post("/v1/generations", json=generation_request("one"), headers=headers)
    second = await client.post("/v1/generations", json=generation_request("two"), headers=headers)
    assert (second.status_code, second.json()["code"]) == (409, "idempotency_conflict")
    assert second.headers["content-type"] == "application/problem+json"
    await client.delete(f"/v1/generations/{first.json()['id']}")
    assert (await client.get("/v1/account")).json()["credits"]["available"] == 20
