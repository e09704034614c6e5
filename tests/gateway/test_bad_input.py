"""Whatever is wrong with a request: a 4xx problem, nothing changed, nothing secret logged."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from PIL import Image

from tests.gateway.conftest import Logged
from tests.gateway.stack import Gateway, credits_of, generation_request, picture, registration, sketch
from tests.hostile.pictures import png_bomb
from tests.rails.core.platform import notifications_waiting

JSON = {"Content-Type": "application/json"}
MARK = "the-artist-never-said-this-aloud"
"""Part of what is sent; no log may quote it."""


def blank(mode: str = "RGB", side: int = 64) -> bytes:
    """A picture on which nothing can be seen."""
    output = io.BytesIO()
    Image.new(mode, (side, side), (250, 250, 250, 0)[: len(mode)]).save(output, "PNG")
    return output.getvalue()


@pytest.fixture(scope="module")
async def victim(gateway: Gateway) -> httpx.AsyncClient:
    """Somebody with a balance, to whom nothing may happen."""
    client = await gateway.visitor()
    await gateway.top_up(client, 100)
    return client


@pytest.fixture
async def untouched(gateway: Gateway, victim: httpx.AsyncClient, logged: Logged) -> AsyncIterator[None]:
    """Fails the test if the log or the victim's account moved, or if a line quotes what was sent."""
    head, account = await gateway.services.base.reader.head(), await shown(victim)
    lines = len(logged.lines)
    yield
    assert await gateway.services.base.reader.head() == head
    assert await shown(victim) == account
    reported = "\n".join(logged.lines[lines:])
    assert MARK not in reported
    assert "request_failed" not in reported
    assert "Traceback" not in reported


def raw(name: str, value: str) -> dict[bytes, bytes]:
    """A header that need not be ASCII."""
    return {name.encode(): value.encode("latin-1")}


async def shown(client: httpx.AsyncClient) -> dict[str, Any]:
    """An account; today's allowance that nobody has used yet is granted at the moment of asking."""
    account: dict[str, Any] = (await client.get("/v1/account")).json()
    for lot in account["lots"]:
        lot.pop("granted_at")
    return account


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check that an answer is this problem, and nothing but a problem."""
    assert answer.status_code == status, answer.text[:500]
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-request-id"].startswith("req_")
    document: dict[str, Any] = answer.json()
    assert (document["status"], document["code"]) == (status, code)
    assert document["type"] == f"https://llamasketch.com/problems/{code}"
    assert document["title"]
    assert document["detail"]
    assert MARK not in answer.text
    return document


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


def forgeries(gateway: Gateway) -> dict[str, str]:
    """Tokens that nobody gave out."""
    services = gateway.services
    issuer = services.identity.people.issuer
    assert issuer is not None
    claims = jwt.decode(issuer.token("a@example.com"), options={"verify_signature": False})
    public = issuer._key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    raw = issuer._key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    stranger = Ed25519PrivateKey.generate()

    def signed(key: Any = issuer._key, alg: str = "EdDSA", kid: Any = "built-in", **changes: Any) -> str:
        body = {name: value for name, value in {**claims, **changes}.items() if value is not None}
        return jwt.encode(body, key, algorithm=alg, headers={"kid": kid} if kid else None)

    def hmac_of(secret: bytes) -> str:
        # PyJWT itself refuses to sign with a public key; an attacker's library does not.
        import base64
        import hashlib
        import hmac

        def part(value: Any) -> str:
            return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

        head = f"{part({'alg': 'HS256', 'typ': 'JWT', 'kid': 'built-in'})}.{part(claims)}"
        mac = hmac.new(secret, head.encode(), hashlib.sha256).digest()
        return f"{head}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"

    visitor = services.identity.visitors.issue(services.base.identifiers.account())
    parts = visitor.split(".")
    other = services.base.identifiers.account()
    old = type(services.identity.visitors)(
        services.base.settings.secret_for("visitor-tokens"),
        lambda: services.base.clock() - timedelta(days=401),
    )
    young = type(services.identity.visitors)(
        services.base.settings.secret_for("visitor-tokens"), lambda: services.base.clock() + timedelta(days=1)
    )
    nested = "eyJ" + "W1tb" * 4_000
    return {
        "a visitor's token for another account": ".".join([parts[0], other, *parts[2:]]),
        "a visitor's token with another time": ".".join([*parts[:2], str(int(parts[2]) + 1), parts[3]]),
        "a truncated visitor's token": visitor[:-1],
        "a visitor's token without a signature": ".".join([*parts[:3], ""]),
        "an expired visitor's token": old.issue(other),
        "a visitor's token of tomorrow": young.issue(other),
        "a visitor's token of another secret": type(services.identity.visitors)(
            b"x" * 32, services.base.clock
        ).issue(other),
        "nothing like a token": "hello",
        "no ASCII": "lsv1.ä.1.x",
        "JWT of another issuer": signed(iss="https://evil.example"),
        "JWT of another key": signed(stranger),
        "JWT for another audience": signed(aud="somebody-else"),
        "JWT without an audience": signed(aud=None),
        "JWT of an unknown key id": signed(kid="other"),
        "JWT without a key id": signed(kid=None),
        "expired JWT": signed(exp=claims["iat"] - 3_600),
        "JWT without an end": signed(exp=None),
        "JWT without a subject": signed(sub=None),
        "unsigned JWT": signed("", "none"),
        "JWT signed with the public key as PEM": hmac_of(public),
        "JWT signed with the public key": hmac_of(raw),
        "JWT with a cut signature": signed()[:-4],
        "JWT nested without end": f"{nested}.e30.e30",
        "a worker's registration": services.generation.registry.tokens.mint(valid_for=timedelta(minutes=1)),
    }


async def test_forged_tokens_open_nothing(gateway: Gateway, untouched: None) -> None:
    for name, token in forgeries(gateway).items():
        client = gateway.client()
        bearer = raw("Authorization", f"Bearer {token}")
        document = refused(await client.get("/v1/account", headers=bearer), 401, "unauthenticated")
        assert token not in document["detail"], name
        answer = await client.post("/v1/generations", json=generation_request(MARK), headers=bearer)
        refused(answer, 401, "unauthenticated")
        assert answer.headers["www-authenticate"] == "Bearer"
        refused(await client.post("/v1/worker/claim", json={}, headers=bearer), 401, "worker_not_allowed")


async def test_forged_cookies_count_as_none(gateway: Gateway, untouched: None) -> None:
    for token in forgeries(gateway).values():
        if not token.isascii():
            continue
        client = gateway.browser()
        cookie = {"Cookie": f"ls_session={token}; ls_visitor={token}"}
        assert (await client.get("/v1/account", headers=cookie)).json()["role"] == "visitor"
        refused(
            await client.post("/v1/generations", json=generation_request(MARK), headers=cookie),
            401,
            "unauthenticated",
        )


@pytest.mark.parametrize("header", ["Basic dXNlcjpwYXNz", "Bearer", "bearer", "Negotiate x"])
async def test_other_kinds_of_credentials_are_refused(gateway: Gateway, untouched: None, header: str) -> None:
    answer = await gateway.client().get("/v1/account", headers={"Authorization": header})
    refused(answer, 401, "unauthenticated")


async def test_a_forged_webhook_is_refused_before_it_is_stored(gateway: Gateway, untouched: None) -> None:
    body = json.dumps({"id": "evt_1", "reference": MARK}).encode()
    client = gateway.client()
    for headers in ({}, {"fake-signature": "0" * 64}, {"fake-signature": ""}):
        refused(await client.post("/v1/hooks/fake", content=body, headers=headers), 400, "hint_rejected")
    assert await notifications_waiting(gateway.services.payments.payments.store) == 0


async def test_a_genuine_webhook_is_stored_once(gateway: Gateway, victim: httpx.AsyncClient) -> None:
    topup = await gateway.open_topup(victim)
    headers, body = gateway.fake.network.webhook(topup["instructions"]["text"], "evt_once")
    client = gateway.client()
    stored = [(await client.post("/v1/hooks/fake", content=body, headers=headers)).json() for _ in range(2)]
    assert stored == [{"stored": 1}, {"stored": 0}]
    refused(await client.post("/v1/hooks/fake", content=body + b" ", headers=headers), 400, "hint_rejected")


async def test_a_webhook_that_finds_the_inbox_full_is_to_be_sent_again(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    payments = gateway.services.payments.payments
    monkeypatch.setattr(payments, "limits", dataclasses.replace(payments.limits, notifications_waiting_max=0))
    headers, body = gateway.fake.network.webhook("fake-1", "evt_too_many")
    answer = await gateway.client().post("/v1/hooks/fake", content=body, headers=headers)
    refused(answer, 503, "notifications_full")
    assert int(answer.headers["Retry-After"]) > 0


async def test_rails_without_webhooks_have_none(gateway: Gateway, untouched: None) -> None:
    client = gateway.client()
    refused(await client.post("/v1/hooks/quiet", content=b"{}"), 404, "no_webhooks")
    refused(await client.post("/v1/hooks/cowrie", content=b"{}"), 404, "unknown_rail")
    refused(await client.post("/v1/hooks/fake", content=b"x" * 300_000), 413, "body_too_large")


async def test_a_registration_token_works_once_and_only_in_its_time(
    gateway: Gateway, untouched: None
) -> None:
    client, tokens = gateway.client(), gateway.services.generation.registry.tokens
    token = tokens.mint(valid_for=timedelta(minutes=5))
    nonce, expires, signature = token.split(".")
    bad = {
        "expired": tokens.mint(valid_for=timedelta(seconds=-1)),
        "longer": f"{nonce}.{int(expires) + 9_999}.{signature}",
        "renamed": f"x{nonce}.{expires}.{signature}",
        "unsigned": f"{nonce}.{expires}.",
        "no ASCII": f"{nonce}.{expires}.ä{signature}",
        "odd": "x" * 300,
    }
    for name, forged in bad.items():
        answer = await client.post("/v1/worker/register", json=registration(forged))
        assert answer.status_code == 401, name
        refused(answer, 401, "worker_not_allowed")
    assert (await client.post("/v1/worker/register", json=registration(token))).status_code == 201
    refused(await client.post("/v1/worker/register", json=registration(token)), 401, "worker_not_allowed")


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


async def test_a_last_event_id_of_another_account_is_refused(
    gateway: Gateway, victim: httpx.AsyncClient, untouched: None
) -> None:
    async with victim.stream("GET", "/v1/events") as stream:
        async for line in stream.aiter_lines():
            if line.startswith("id: "):
                theirs = line.removeprefix("id: ")
                break
    stranger = await gateway.visitor()
    position, _, signature = theirs.partition(".")
    for odd in (theirs, position, f"{int(position) + 1}.{signature}", "1.", "-1.x", "9" * 90, "x"):
        answer = await stranger.get("/v1/events", headers={"Last-Event-ID": odd})
        refused(answer, 400, "bad_last_event_id")


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
