"""People's tokens: whose keys sign them, what they must say, and what is never believed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.auth.people import (
    BUILT_IN_KEY_ID,
    JWKS_FRESH_SECONDS,
    JWKS_RETRY_SECONDS,
    SESSION_LIFETIME,
    BuiltInIssuer,
    KeySet,
    People,
)
from gateway.http.problems import Problem
from ledger.clock import ManualClock, system_clock
from ledger.identifiers import Identifiers
from tests.gateway.stack import settings_for

ISSUER = "https://issuer.example"
AUDIENCE = "llamasketch"
SECRET = bytes(range(32))
# JWTs are checked against the machine's own clock, and a run of all tests takes its time.
NOW = system_clock()


def issuer(secret: bytes = SECRET, now: datetime = NOW, name: str = ISSUER) -> BuiltInIssuer:
    return BuiltInIssuer(secret=secret, issuer=name, audience=AUDIENCE, clock=ManualClock(now))


def people(tmp_path: Path, answers: Callable[[], httpx.Response], **settings: Any) -> People:
    """With an issuer elsewhere; no database, as no token here is good enough to need it."""
    return People(
        settings=settings_for(
            "postgresql://nowhere/", "redis://nowhere/", tmp_path, oidc_audience=AUDIENCE, **settings
        ),
        clock=system_clock,
        identifiers=Identifiers(system_clock),
        engine=None,  # type: ignore[arg-type]
        pool=None,  # type: ignore[arg-type]
        http=httpx.AsyncClient(transport=httpx.MockTransport(lambda _: answers())),
    )


@pytest.fixture
def mine(tmp_path: Path) -> People:
    keys = issuer().jwks()
    return people(tmp_path, lambda: httpx.Response(200, json=keys), oidc_issuer=ISSUER)


def claims(**changes: Any) -> dict[str, Any]:
    """Good claims, but for these; None leaves one out."""
    reported = {"iss": ISSUER, "aud": AUDIENCE, "sub": "somebody", "exp": NOW + timedelta(days=1), **changes}
    return {name: value for name, value in reported.items() if value is not None}


def signed(reported: Mapping[str, Any], secret: bytes = SECRET, key_id: str | None = BUILT_IN_KEY_ID) -> str:
    key = Ed25519PrivateKey.from_private_bytes(secret)
    return jwt.encode(dict(reported), key, algorithm="EdDSA", headers={"kid": key_id} if key_id else None)


async def test_a_token_of_the_issuer_is_believed(mine: People) -> None:
    assert (await mine._claims(signed(claims())))["sub"] == "somebody"


async def test_what_is_no_jwt_is_left_to_other_readers(mine: People) -> None:
    for token in ("", "one", "one.two", "one.two.three.four"):
        assert await mine.principal(token) is None


@pytest.mark.parametrize(
    "reported",
    [
        claims(iss="https://elsewhere.example"),
        claims(aud="another"),
        claims(exp=NOW - timedelta(minutes=5)),
        claims(nbf=NOW + timedelta(days=1)),
        claims(iat=NOW + timedelta(days=1)),
        claims(sub="a\x00b"),
        *(claims(**{name: None}) for name in ("iss", "aud", "sub", "exp")),
    ],
)
async def test_a_token_that_says_the_wrong_things_is_refused(
    mine: People, reported: Mapping[str, Any]
) -> None:
    with pytest.raises(Problem) as problem:
        await mine.principal(signed(reported))
    assert problem.value.code == "unauthenticated"


async def test_clocks_may_differ_by_half_a_minute(mine: People) -> None:
    now = system_clock()
    late = claims(exp=now - timedelta(seconds=5), nbf=now + timedelta(seconds=20))
    assert await mine._claims(signed(late))


@pytest.mark.parametrize(
    "token",
    [
        signed(claims(), bytes(32)),
        signed(claims(), key_id="another"),
        signed(claims(), key_id=None),
        jwt.encode(claims(), "x" * 64, algorithm="HS256", headers={"kid": BUILT_IN_KEY_ID}),
        jwt.encode(claims(), None, algorithm="none", headers={"kid": BUILT_IN_KEY_ID}),
        "a.b.c",
        "..",
    ],
)
async def test_a_token_that_another_key_or_none_has_signed_is_refused(mine: People, token: str) -> None:
    with pytest.raises(Problem) as problem:
        await mine.principal(token)
    assert problem.value.code == "unauthenticated"


async def test_an_algorithm_that_we_do_not_take_is_refused_though_the_issuer_publishes_a_key_for_it(
    tmp_path: Path,
) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    shown = jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    keys = {"keys": [{**shown, "kid": "strong", "alg": "ES384", "use": "sig"}]}
    known = people(tmp_path, lambda: httpx.Response(200, json=keys), oidc_issuer=ISSUER)
    with pytest.raises(Problem) as problem:
        await known._claims(jwt.encode(claims(), key, algorithm="ES384", headers={"kid": "strong"}))
    assert problem.value.code == "unauthenticated"
    assert await known._key_sets[0].key("strong") is not None


async def test_two_sessions_of_one_person_at_one_moment_are_two(tmp_path: Path) -> None:
    alone = people(tmp_path, lambda: httpx.Response(500), public_url=ISSUER)
    assert alone.issuer is not None
    alone.issuer._clock = ManualClock(NOW.replace(microsecond=250_000))
    one, other = (
        jwt.decode(alone.issuer.token("ada@example.com"), options={"verify_signature": False})
        for _ in range(2)
    )
    assert one["jti"].startswith("ses_")
    assert one["jti"] != other["jti"]
    assert one["iat"] == NOW.replace(microsecond=250_000).timestamp()


def test_the_built_in_issuer_names_nobody_by_their_address() -> None:
    token = issuer().token("  Ada@Example.com ")
    reported = jwt.decode(token, options={"verify_signature": False})
    assert reported == {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "b5fc85e55755f9e0d030a10ab4429b6b",
        "email": "ada@example.com",
        "iat": int(NOW.timestamp()),
        "exp": int((NOW + SESSION_LIFETIME).timestamp()),
    }
    assert jwt.get_unverified_header(token) == {"alg": "EdDSA", "kid": BUILT_IN_KEY_ID, "typ": "JWT"}
    assert jwt.decode(issuer().token("ada@example.com"), options={"verify_signature": False}) == reported


async def test_without_an_issuer_elsewhere_the_built_in_one_is_believed(tmp_path: Path) -> None:
    alone = people(tmp_path, lambda: httpx.Response(500), public_url=ISSUER)
    assert alone.issuer is not None
    assert (await alone._claims(alone.issuer.token("ada@example.com")))["email"] == "ada@example.com"
    with pytest.raises(Problem):
        await alone.principal(issuer(bytes(32)).token("ada@example.com"))


def test_the_built_in_issuer_publishes_the_key_that_it_signs_with() -> None:
    [key] = issuer().jwks()["keys"]
    assert {name: key[name] for name in ("kty", "crv", "kid", "alg", "use")} == {
        "kty": "OKP",
        "crv": "Ed25519",
        "kid": BUILT_IN_KEY_ID,
        "alg": "EdDSA",
        "use": "sig",
    }
    assert "d" not in key, "the private part is never shown"
    assert jwt.decode(
        issuer().token("ada@example.com"), jwt.PyJWK(key), audience=AUDIENCE, algorithms=["EdDSA"]
    )


class IssuerElsewhere:
    """How often an issuer was asked, and what it answered."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer = httpx.Response(200, json=issuer().jwks())

    def client(self) -> httpx.AsyncClient:
        def handle(request: httpx.Request) -> httpx.Response:
            self.asked.append(str(request.url))
            return self.answer

        return httpx.AsyncClient(transport=httpx.MockTransport(handle))


def keys_of(asked: IssuerElsewhere) -> KeySet:
    return KeySet(f"{ISSUER}/keys", asked.client())


def later(keys: KeySet, seconds: int) -> None:
    """As if the issuer had been asked so long ago."""
    assert keys._asked_at is not None
    keys._asked_at -= seconds


async def test_keys_are_asked_for_when_needed_and_kept_for_an_hour() -> None:
    asked = IssuerElsewhere()
    keys = keys_of(asked)
    assert asked.asked == []
    assert await keys.key(BUILT_IN_KEY_ID) is not None
    later(keys, JWKS_FRESH_SECONDS - 60)
    assert await keys.key(BUILT_IN_KEY_ID) is not None
    assert asked.asked == [f"{ISSUER}/keys"]
    later(keys, 120)
    assert await keys.key(BUILT_IN_KEY_ID) is not None
    assert len(asked.asked) == 2


@pytest.mark.parametrize("name", ["https://issuer.example", "https://issuer.example/"])
async def test_an_issuers_keys_are_asked_for_where_it_publishes_them_and_not_waited_for_long(
    tmp_path: Path, name: str
) -> None:
    asked: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={})

    known = people(tmp_path, lambda: httpx.Response(500), oidc_issuer=name)
    known._key_sets[0]._http = httpx.AsyncClient(transport=httpx.MockTransport(handle), timeout=None)
    with pytest.raises(Problem):
        await known.principal(signed(claims()))
    [request] = asked
    assert str(request.url) == "https://issuer.example/.well-known/jwks.json"
    assert set(request.extensions["timeout"].values()) == {5}


async def test_an_unknown_key_asks_again_at_most_twice_a_minute() -> None:
    asked = IssuerElsewhere()
    keys = keys_of(asked)
    for _ in range(3):
        assert await keys.key("new") is None
    assert len(asked.asked) == 1
    later(keys, JWKS_RETRY_SECONDS + 1)
    asked.answer = httpx.Response(200, json={"keys": [{**issuer().jwks()["keys"][0], "kid": "new"}]})
    assert await keys.key("new") is not None
    assert len(asked.asked) == 2


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(503),
        httpx.Response(200, text="no JSON"),
        httpx.Response(404, json={"keys": []}),
        *(
            httpx.Response(200, json=body)
            for body in ({}, [], None, {"keys": None}, {"keys": {}}, {"keys": [1]})
        ),
    ],
)
async def test_an_issuer_that_does_not_answer_costs_us_no_key_that_we_have(answer: httpx.Response) -> None:
    asked = IssuerElsewhere()
    keys = keys_of(asked)
    assert await keys.key(BUILT_IN_KEY_ID) is not None
    asked.answer = answer
    later(keys, JWKS_FRESH_SECONDS + 1)
    assert await keys.key(BUILT_IN_KEY_ID) is not None
    assert len(asked.asked) == 2


async def test_keys_that_could_not_be_read_are_reported() -> None:
    asked = IssuerElsewhere()
    asked.answer = httpx.Response(200, json=[])
    with structlog.testing.capture_logs() as reported:
        assert await keys_of(asked).key(BUILT_IN_KEY_ID) is None
    assert reported == [{"event": "jwks_not_read", "log_level": "warning", "error": "NotAKeySet"}]


async def test_an_issuer_that_withdraws_all_its_keys_is_taken_at_its_word() -> None:
    asked = IssuerElsewhere()
    keys = keys_of(asked)
    assert await keys.key(BUILT_IN_KEY_ID) is not None
    asked.answer = httpx.Response(200, json={"keys": []})
    later(keys, JWKS_FRESH_SECONDS + 1)
    assert await keys.key(BUILT_IN_KEY_ID) is None


async def test_a_key_that_we_cannot_use_costs_us_none_of_the_others() -> None:
    [good] = issuer().jwks()["keys"]
    no_use = {name: value for name, value in good.items() if name != "use"}
    asked = IssuerElsewhere()
    asked.answer = httpx.Response(
        200,
        text=json.dumps(
            {
                "keys": [
                    {"kid": "strange", "kty": "what"},
                    {**good, "kid": "for-encryption", "use": "enc"},
                    {**good, "kid": ""},
                    {**no_use, "kid": "says-no-use"},
                    good,
                ]
            }
        ),
    )
    keys = keys_of(asked)
    assert await keys.key(BUILT_IN_KEY_ID) is not None
    assert await keys.key("says-no-use") is not None
    for unusable in ("strange", "for-encryption", ""):
        assert await keys.key(unusable) is None


async def test_given_keys_are_never_asked_for() -> None:
    asked = IssuerElsewhere()
    keys = KeySet("", asked.client(), fixed=issuer().jwks())
    assert await keys.key(BUILT_IN_KEY_ID) is not None
    assert await keys.key("another") is None
    assert asked.asked == []
