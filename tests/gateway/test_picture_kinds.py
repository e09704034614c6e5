"""Files of every kind, as people upload them: a worker is given what a person sees, or nothing is held."""

from __future__ import annotations

import io

import httpx
import pytest
from PIL import Image

from tests.gateway.stack import FakeWorker, Gateway, credits_of, generation_request, sketch
from tests.pictures.kinds import COMPRESSED, Saved, difference, kinds, media_type, refused_kinds

KINDS, REFUSED = kinds(), refused_kinds()
STATUS = {"sketch_type": 415}


@pytest.fixture(scope="module")
async def visitor(gateway: Gateway) -> httpx.AsyncClient:
    client = await gateway.visitor()
    await gateway.top_up(client, 200)
    return client


@pytest.fixture(scope="module")
async def worker(gateway: Gateway) -> FakeWorker:
    worker = await gateway.worker("kinds")
    await worker.drain_queue()
    return worker


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
async def test_a_worker_is_given_what_a_person_sees(
    visitor: httpx.AsyncClient, worker: FakeWorker, kind: Saved
) -> None:
    assert isinstance(kind.seen, Image.Image)
    sent = sketch(kind.data, media_type(kind.data))
    answer = await visitor.post("/v1/generations", json={**generation_request(), "sketch": sent})
    assert answer.status_code == 202, answer.text
    job = await worker.take()
    assert job["id"] == answer.json()["id"]
    given = await worker.client.get(job["sketch"]["url"], headers={"Authorization": ""})
    with Image.open(io.BytesIO(given.content)) as picture:
        assert difference(picture, kind.seen) < COMPRESSED
    (await worker.deliver(job)).raise_for_status()


@pytest.mark.parametrize("live", [False, True], ids=["painting", "live"])
@pytest.mark.parametrize("declared", ["", "image/png", "image/jpg", "image/gif"])
async def test_what_is_no_sketch_is_refused_before_anything_is_held(
    visitor: httpx.AsyncClient, live: bool, declared: str
) -> None:
    before = (await credits_of(visitor), (await visitor.get("/v1/statement")).json())
    frame = {"live": True, "session_id": "refused", "seq": 1} if live else {}
    for name, kind in REFUSED.items():
        code = str(kind.seen)
        if code == "sketch_type" and declared.startswith(("image/png", "image/jpg")):
            code = "sketch_unreadable"  # it says that it is what we take
        if not kind.data and not declared.startswith(("image/png", "image/jpg")):
            code = "sketch_type"
        body = {**generation_request(), "sketch": sketch(kind.data, declared), **frame}
        answer = await visitor.post("/v1/generations", json=body)
        shown = (answer.status_code, answer.json()["code"])
        assert shown == (STATUS.get(code, 422), code), name
        assert answer.headers["content-type"] == "application/problem+json"
    assert (await credits_of(visitor), (await visitor.get("/v1/statement")).json()) == before
