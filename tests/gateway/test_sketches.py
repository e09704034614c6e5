"""Sketches as programs really send them: every kind of base64, any declared type; and what is told of those not taken."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable

import httpx
import pytest
from PIL import Image

from gateway.routes.generation_shapes import SketchIn
from gateway.routes.sketch_data import sent_data
from generation.domain.errors import SketchRejected
from generation.images.checking import SKETCH_BYTES_MAX
from tests.gateway.stack import FakeWorker, Gateway, credits_of, generation_request, picture
from tests.gateway.test_bad_input import blank
from tests.hostile.pictures import png_bomb

Wrap = Callable[[bytes], str]


def plain(data: bytes) -> str:
    return base64.b64encode(data).decode()


def wrapped(data: bytes) -> str:
    return base64.encodebytes(data).decode()


def url_safe(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode()


WRAPS: dict[str, Wrap] = {
    "plain": plain,
    "in lines": wrapped,
    "in lines as mail has them": lambda data: wrapped(data).replace("\n", "\r\n"),
    "unpadded": lambda data: plain(data).rstrip("="),
    "URL-safe": url_safe,
    "URL-safe, unpadded": lambda data: url_safe(data).rstrip("="),
    "between blanks": lambda data: f"  {plain(data)}\n",
    "a data URL": lambda data: f"data:image/png;base64,{plain(data)}",
    "a data URL in capitals": lambda data: f"DATA:IMAGE/PNG;BASE64,{plain(data)}",
    "a data URL with parameters": lambda data: f"data:image/png;charset=utf-8;base64,{plain(data)}",
    "a data URL without a type": lambda data: f"data:;base64,{plain(data)}",
    "a data URL, blank after the comma": lambda data: f" data:image/png;base64, {plain(data)}",
    "a data URL, URL-safe and unpadded": lambda data: f"data:image/png;base64,{url_safe(data).rstrip('=')}",
    "a data URL, percent-encoded": lambda data: (
        "data:image/png;base64," + plain(data).replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")
    ),
    "a data URL of another type": lambda data: f"data:image/jpeg;base64,{plain(data)}",
}


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
@pytest.mark.parametrize("size", [64, 65, 66, 67])
def test_every_base64_in_use_gives_the_same_bytes(wrap: Wrap, size: int) -> None:
    data = bytes(n % 256 for n in range(190, 190 + size))  # with characters that the two alphabets differ in
    assert sent_data(SketchIn(content_type="image/png", data=wrap(data))) == data


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_more_bytes_than_a_sketch_may_have_are_never_decoded(wrap: Wrap) -> None:
    with pytest.raises(SketchRejected) as rejected:
        sent_data(SketchIn(content_type="image/png", data=wrap(bytes(SKETCH_BYTES_MAX * 11 // 10))))
    assert rejected.value.code == "sketch_too_large"


def jpeg() -> bytes:
    output = io.BytesIO()
    Image.open(io.BytesIO(picture())).save(output, "JPEG")
    return output.getvalue()


@pytest.fixture(scope="module")
async def visitor(gateway: Gateway) -> httpx.AsyncClient:
    client = await gateway.visitor()
    await gateway.top_up(client, 100)
    return client


async def ask(
    client: httpx.AsyncClient, data: str, kind: str = "image/png", **more: object
) -> httpx.Response:
    body = {**generation_request(), "sketch": {"content_type": kind, "data": data}, **more}
    return await client.post("/v1/generations", json=body)


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
async def test_a_sketch_is_taken_in_every_base64(visitor: httpx.AsyncClient, wrap: Wrap) -> None:
    answer = await ask(visitor, wrap(picture()))
    assert answer.status_code == 202, answer.text
    await visitor.delete(f"/v1/generations/{answer.json()['id']}")


@pytest.mark.parametrize("kind", ["image/jpg", "image/png", "image/JPEG", "application/octet-stream"])
async def test_a_jpeg_is_taken_under_every_name(visitor: httpx.AsyncClient, kind: str) -> None:
    answer = await ask(visitor, plain(jpeg()), kind)
    assert answer.status_code == 202, answer.text
    await visitor.delete(f"/v1/generations/{answer.json()['id']}")


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
async def test_a_blank_sketch_holds_nothing_and_leaves_no_job(visitor: httpx.AsyncClient, mode: str) -> None:
    before, entries = await credits_of(visitor), await statement(visitor)
    answer = await ask(visitor, plain(blank(mode)))
    assert (answer.status_code, answer.json()["code"]) == (422, "blank_sketch")
    assert "Nothing can be seen" in answer.json()["detail"]
    assert await credits_of(visitor) == before
    assert await statement(visitor) == entries


async def statement(client: httpx.AsyncClient) -> list[object]:
    entries: list[object] = (await client.get("/v1/statement")).json()["entries"]
    return entries


async def test_a_picture_of_the_wrong_size_hears_its_size_and_the_limits(visitor: httpx.AsyncClient) -> None:
    for data, size in ((blank(side=15), "15 × 15"), (png_bomb(6_930), "6930 × 6930")):
        detail = (await ask(visitor, plain(data))).json()["detail"]
        assert size in detail
        assert "16 at least" in detail
        assert "4096 × 4096" in detail
    for more in (SKETCH_BYTES_MAX, SKETCH_BYTES_MAX * 2):  # the second is more than a body may have
        answer = await ask(visitor, plain(picture() + bytes(more)))
        assert answer.status_code == 413
        assert "4,000,000" in answer.json()["detail"]
        assert (
            "The sketch has 4,000," in answer.json()["detail"]
            or "The body has 10," in answer.json()["detail"]
        )


async def test_the_seed_that_is_used_is_told_and_goes_to_the_worker(
    gateway: Gateway, visitor: httpx.AsyncClient
) -> None:
    worker: FakeWorker = await gateway.worker("seeds")
    await worker.drain_queue()
    shown = []
    for given in (None, 7, 0, 2**53 - 1):
        asked = (await ask(visitor, plain(picture()), seed=given)).json()
        job = await worker.take()
        assert job["id"] == asked["id"]
        shown.append(asked["seed"])
        assert job["inputs"]["seed"] == asked["seed"]
        assert (await visitor.get(f"/v1/generations/{asked['id']}")).json()["seed"] == asked["seed"]
        (await worker.deliver(job)).raise_for_status()
        assert (await visitor.get(f"/v1/generations/{asked['id']}")).json()["seed"] == asked["seed"]
    assert shown[1:] == [7, 0, 2**53 - 1]
    assert isinstance(shown[0], int)


async def test_the_same_request_sent_again_tells_the_same_seed(visitor: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "seed-again"}
    seeds = [
        (await visitor.post("/v1/generations", json=generation_request(), headers=headers)).json()["seed"]
        for _ in range(2)
    ]
    assert seeds[0] == seeds[1]
