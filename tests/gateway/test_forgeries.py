"""Tokens, cookies and messages that nobody gave out open nothing."""

from __future__ import annotations

import dataclasses
import json
from datetime import timedelta
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.gateway.refusing import MARK, raw, refused
from tests.gateway.stack import Gateway, generation_request, registration
from tests.rails.core.platform import notifications_waiting


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
