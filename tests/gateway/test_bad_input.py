"""Whatever is wrong with a request: a 4xx problem, nothing changed, nothing secret logged."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.gateway.conftest import Logged
from tests.gateway.refusing import JSON, MARK, raw, refused
from tests.gateway.stack import Gateway, credits_of, generation_request, picture, registration, sketch
from tests.hostile.pictures import png_bomb


def blank(mode: str = "RGB", side: int = 64) -> bytes:
    """A picture on which nothing can be seen."""
    output = io.BytesIO()
    Image.new(mode, (side, side), (250, 250, 250, 0)[: len(mode)]).save(output, "PNG")
    return output.getvalue()


@contextlib.contextmanager
def chunked(data: bytes) -> Iterator[AsyncIterator[bytes]]:
    """A body without a declared length."""

    async def parts() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 500_000):
            yield data[start : start + 500_000]

    yield parts()


NOISE = bytes(range(256)) * 16_000
SKETCHES = {
    "oversized": (sketch(picture() + NOISE), 413, "sketch_too_large"),
    "not an image": (sketch(b"this is not a picture"), 422, "sketch_unreadable"),
    "empty": (sketch(b""), 422, "sketch_unreadable"),
    "blank": (sketch(blank()), 422, "blank_sketch"),
    "transparent": (sketch(blank("RGBA")), 422, "blank_sketch"),
    "blank, with another type than declared": (sketch(blank(), "image/jpeg"), 422, "blank_sketch"),
    "a GIF": (sketch(b"GIF89a" + b"\0" * 99, "image/gif"), 415, "sketch_type"),
    "a data URL without base64": (
        {"content_type": "image/png", "data": "data:image/png,x"},
        422,
        "sketch_unreadable",
    ),
    "a data URL without end": (
        {"content_type": "image/png", "data": "data:" + "x" * 5_000_000},
        422,
        "sketch_unreadable",
    ),
    "base64 with a hole": (
        {"content_type": "image/png", "data": "iVBO=Rw0KGgo"},
        422,
        "sketch_unreadable",
    ),
    "base64 that is not ASCII": ({"content_type": "image/png", "data": "ïVBO"}, 422, "sketch_unreadable"),
    "a type that is not taken": (sketch(b"<svg onload='alert(1)'/>", "image/svg+xml"), 415, "sketch_type"),
    "a bomb": (sketch(png_bomb(20_000)), 422, "sketch_size"),
    "a bomb just below Pillow's bound": (sketch(png_bomb(10_000)), 422, "sketch_size"),
    "too many pixels": (sketch(png_bomb(5_000)), 422, "sketch_size"),
    "truncated": (sketch(picture()[:200]), 422, "sketch_unreadable"),
    "not base64": ({"content_type": "image/png", "data": "!!!"}, 422, "sketch_unreadable"),
    "no data": ({"content_type": "image/png"}, 422, "invalid_request"),
}


@pytest.mark.parametrize(("drawn", "status", "code"), SKETCHES.values(), ids=SKETCHES)
async def test_a_bad_sketch_is_refused(
    victim: httpx.AsyncClient, untouched: None, drawn: dict[str, str], status: int, code: str
) -> None:
    answer = await victim.post("/v1/generations", json={"prompt": MARK, "sketch": drawn})
    refused(answer, status, code)


INPUTS: dict[str, dict[str, Any]] = {
    "a prompt over the limit": {"prompt": MARK + "x" * 2_000},
    "no prompt": {"prompt": ""},
    "a prompt with a NUL": {"prompt": MARK + "\x00"},
    "half a character": {"prompt": MARK + "\ud800"},
    "a number for a prompt": {"prompt": 5},
    "an unknown field": {"price": 0},
    "a negative seed": {"seed": -1},
    "a huge seed": {"seed": 2**53},
    "a float seed": {"seed": 1.0},
    "a bool seed": {"seed": True},
    "a seed in words": {"seed": "1"},
    "a strength over one": {"strength": 1.01},
    "a bool strength": {"strength": True},
    "a strength in words": {"strength": "0.5"},
    "no number": {"strength": float("nan")},
    "a live frame without a number": {"live": True, "session_id": "s"},
    "a session with a slash": {"session_id": "../acct"},
    "a float sequence": {"live": True, "session_id": "s", "seq": 1.5},
}


@pytest.mark.parametrize("change", INPUTS.values(), ids=INPUTS)
async def test_a_bad_request_is_refused(
    victim: httpx.AsyncClient, untouched: None, change: dict[str, Any]
) -> None:
    body = json.dumps({**generation_request(MARK), **change}).encode()
    refused(await victim.post("/v1/generations", content=body, headers=JSON), 422, "invalid_request")


TOPUPS: dict[str, tuple[dict[str, Any], int, str]] = {
    "an unknown rail": ({"rail": "cowrie", "credits": 5}, 404, "unknown_rail"),
    "a rail with an odd name": ({"rail": "../card", "credits": 5}, 422, "invalid_request"),
    "negative credits": ({"credits": -5}, 422, "invalid_request"),
    "no credits": ({"credits": 0}, 422, "invalid_request"),
    "huge credits": ({"credits": 10**30}, 422, "invalid_request"),
    "float credits": ({"credits": 5.0}, 422, "invalid_request"),
    "bool credits": ({"credits": True}, 422, "invalid_request"),
    "both": ({"credits": 5, "amount": {"amount_minor": 5, "asset": "USD"}}, 422, "invalid_request"),
    "neither": ({}, 422, "invalid_request"),
    "a negative amount": ({"amount": {"amount_minor": -5, "asset": "USD"}}, 422, "invalid_request"),
    "a zero amount": ({"amount": {"amount_minor": 0, "asset": "USD"}}, 422, "invalid_request"),
    "a huge amount": ({"amount": {"amount_minor": 10**16, "asset": "USD"}}, 422, "invalid_request"),
    "a float amount": ({"amount": {"amount_minor": 0.5, "asset": "USD"}}, 422, "invalid_request"),
    "an unknown asset": ({"amount": {"amount_minor": 5, "asset": "DOGE"}}, 422, "unsupported_asset"),
    "an asset that the rail does not take": ({"credits": 5, "pay_asset": "L-BTC"}, 422, "asset_not_accepted"),
    "an unknown field": ({"credits": 5, "price": 1}, 422, "invalid_request"),
    "another person's attempt": ({"credits": 5, "attempt_of": "pay_" + "0" * 26}, 404, "payment_not_found"),
    "an attempt that is no id": ({"credits": 5, "attempt_of": "pay_\x00"}, 404, "payment_not_found"),
}


@pytest.mark.parametrize(("change", "status", "code"), TOPUPS.values(), ids=TOPUPS)
async def test_a_bad_topup_is_refused(
    victim: httpx.AsyncClient, untouched: None, change: dict[str, Any], status: int, code: str
) -> None:
    answer = await victim.post("/v1/topups", json={"rail": "fake", "pay_asset": "USD", **change})
    refused(answer, status, code)


BODIES: dict[str, tuple[bytes, str, int, str]] = {
    "malformed": (b'{"prompt": "x', "application/json", 400, "malformed_json"),
    "not text": (b"\xff\xfe\x00", "application/json", 400, "malformed_json"),
    "nested deeply": (b"[" * 4_000, "application/json", 400, "malformed_json"),
    "nested without end": (b"[" * 100_000, "application/json", 413, "body_too_complex"),
    "a number without end": (b'{"seed": ' + b"9" * 5_000 + b"}", "application/json", 400, "malformed_json"),
    "empty": (b"", "application/json", 422, "invalid_request"),
    "a list": (b"[]", "application/json", 422, "invalid_request"),
    "of another type": (json.dumps(generation_request()).encode(), "text/plain", 415, "json_only"),
    "of no type": (json.dumps(generation_request()).encode(), "", 415, "json_only"),
    "a form": (b"prompt=x", "application/x-www-form-urlencoded", 415, "json_only"),
}


@pytest.mark.parametrize(("body", "kind", "status", "code"), BODIES.values(), ids=BODIES)
async def test_a_body_that_is_not_our_json_is_refused(
    victim: httpx.AsyncClient, untouched: None, body: bytes, kind: str, status: int, code: str
) -> None:
    answer = await victim.post(
        "/v1/generations", content=body, headers={"Content-Type": kind} if kind else {}
    )
    refused(answer, status, code)


async def test_a_prompt_of_ten_megabytes_is_refused_by_its_declared_length(
    victim: httpx.AsyncClient, untouched: None
) -> None:
    body = json.dumps(generation_request(MARK + "x" * 10_000_000)).encode()
    refused(await victim.post("/v1/generations", content=body, headers=JSON), 413, "body_too_large")


async def test_a_prompt_of_ten_megabytes_is_refused_by_what_arrives(
    victim: httpx.AsyncClient, untouched: None
) -> None:
    with chunked(json.dumps(generation_request(MARK + "x" * 10_000_000)).encode()) as parts:
        answer = await victim.post("/v1/generations", content=parts, headers=JSON)
    refused(answer, 413, "body_too_large")


@pytest.mark.parametrize("key", ["", "a b", "ä", "x" * 256], ids=["none", "space", "umlaut", "long"])
async def test_a_malformed_idempotency_key_is_refused(
    victim: httpx.AsyncClient, untouched: None, key: str
) -> None:
    answer = await victim.post(
        "/v1/generations", json=generation_request(MARK), headers=raw("Idempotency-Key", key)
    )
    assert answer.status_code in (400, 422), answer.text
    refused(answer, answer.status_code, answer.json()["code"])


async def test_a_key_replayed_with_another_body_is_refused(
    gateway: Gateway, victim: httpx.AsyncClient
) -> None:
    headers = {"Idempotency-Key": "replayed"}
    first = await victim.post("/v1/generations", json=generation_request("one"), headers=headers)
    head, before = await gateway.services.base.reader.head(), await credits_of(victim)
    refused(
        await victim.post("/v1/generations", json=generation_request("two"), headers=headers),
        409,
        "idempotency_conflict",
    )
    assert (await gateway.services.base.reader.head(), await credits_of(victim)) == (head, before)
    await victim.delete(f"/v1/generations/{first.json()['id']}")


async def test_another_persons_ids_are_as_unknown_as_no_ids(
    gateway: Gateway, victim: httpx.AsyncClient, logged: Logged
) -> None:
    job = (await victim.post("/v1/generations", json=generation_request("mine"))).json()["id"]
    topup = (await gateway.open_topup(victim))["id"]
    stranger = await gateway.visitor()
    head = await gateway.services.base.reader.head()
    for path in (f"/v1/generations/{job}", f"/v1/generations/{job}/image"):
        refused(await stranger.get(path), 404, "job_not_found")
    refused(await stranger.delete(f"/v1/generations/{job}"), 404, "job_not_found")
    refused(await stranger.get(f"/v1/topups/{topup}"), 404, "payment_not_found")
    refused(await stranger.post(f"/v1/topups/{topup}/cancel", json={}), 404, "payment_not_found")
    attempt = {"rail": "fake", "credits": 5, "pay_asset": "USD", "attempt_of": topup}
    refused(await stranger.post("/v1/topups", json=attempt), 404, "payment_not_found")
    for odd in ("job_0", "pay_" + "0" * 26, "..%2f..%2faccount", "%00", "job_" + "O" * 26):
        answer = await stranger.get(f"/v1/generations/{odd}")
        assert answer.status_code == 404, odd
    assert await gateway.services.base.reader.head() == head
    assert (await stranger.get(f"/v1/statement?reference={job}")).json()["entries"] == []
    await victim.delete(f"/v1/generations/{job}")


async def test_a_worker_of_another_protocol_is_told_so_and_keeps_its_registration(gateway: Gateway) -> None:
    token = gateway.services.generation.registry.tokens.mint(valid_for=timedelta(minutes=5))
    client = gateway.client()
    answer = await client.post("/v1/worker/register", json=registration(token, protocol=2))
    refused(answer, 426, "protocol_mismatch")
    assert (await client.post("/v1/worker/register", json=registration(token))).status_code == 201


@pytest.mark.parametrize(
    "change",
    [
        {"name": "a\x00b"},
        {"capabilities": {"graphs": ["sketch@1", "../x"], "gpu": "", "vram_mb": 0}},
        {"capabilities": {"graphs": [], "gpu": "", "vram_mb": 0}},
        {"capabilities": {"graphs": ["sketch@1"], "gpu": "\x00", "vram_mb": 0}},
        {"capabilities": {"graphs": ["sketch@1"], "gpu": "", "vram_mb": 10**30}},
    ],
)
async def test_a_worker_cannot_put_odd_things_into_our_tables(
    gateway: Gateway, untouched: None, change: dict[str, Any]
) -> None:
    token = gateway.services.generation.registry.tokens.mint(valid_for=timedelta(minutes=5))
    answer = await gateway.client().post("/v1/worker/register", json=registration(token, **change))
    refused(answer, 422, "invalid_request")


@pytest.mark.parametrize(
    "query",
    ["kind=stolen", "type=secret", "limit=0", "limit=201", "limit=1.5", "limit=x", "cursor=-1", "cursor=1%27--",
     "reference=%00", "reference=a%20b", "page=2", "offset=5", "Kind=held"],
)  # fmt: skip
async def test_a_statement_filter_that_does_not_exist_is_an_error_and_not_an_empty_page(
    victim: httpx.AsyncClient, untouched: None, query: str
) -> None:
    refused(await victim.get(f"/v1/statement?{query}"), 422, "invalid_request")


async def test_what_does_not_exist_is_a_problem_and_no_redirect(gateway: Gateway, untouched: None) -> None:
    client = gateway.client()
    refused(await client.get("/v1/nothing"), 404, "not_found")
    refused(await client.get("/v1/account/"), 404, "not_found")
    refused(await client.get("/v1/account/", headers={"Host": "evil.example"}), 404, "not_found")
    refused(await client.put("/v1/account", json={}), 405, "method_not_allowed")
