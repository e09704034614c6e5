"""Whatever a caller brings, tokens, cookies, cursors, addresses, links: it is read, or it is nobody's."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import Request
from hypothesis import strategies as st

from gateway.auth.authentication import Authenticator
from gateway.auth.identity import VisitorTokens
from gateway.auth.l402 import NotOurs, Tokens
from gateway.auth.macaroons import MacaroonUnreadable, read_base64
from gateway.auth.mail_links import MailLinks
from gateway.auth.networks import Origins, prefixes
from gateway.auth.people import People
from gateway.auth.topup_links import TopupLinks
from gateway.http.idempotency import digest_of
from gateway.http.problems import Problem
from gateway.routes.events import FrameIds
from generation.fleet.tokens import RegistrationTokens, RenewedTokens
from generation.images.object_store import LinkSigner
from ledger.identifiers import AccountId
from tests.auth.test_people import ISSUER, claims, issuer, people, signed
from tests.fuzz.fuzzing import fuzzed
from tests.fuzz.hostile import TEXTS, bodies, spoiled

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SECRET = b"s" * 32
ACCOUNT = AccountId("acct_01jd3z9k4w7q8r5s6t7v8x9y0z")
HEADERS = st.text(st.characters(max_codepoint=255), max_size=200)
"""What a header can hold by the time that we see it."""


def clock() -> datetime:
    return NOW


VISITORS = VisitorTokens(SECRET, clock)
FRAMES = FrameIds(SECRET)
LINKS = LinkSigner(SECRET, clock)
TOPUP_LINKS = TopupLinks(SECRET, "https://llamasketch.example", clock)
MAIL_LINKS = MailLinks(SECRET, "https://llamasketch.example")
GENUINE = (
    VISITORS.issue(ACCOUNT),
    FRAMES.issue(ACCOUNT, 5),
    TOPUP_LINKS.issue(ACCOUNT, 5).partition("#")[2],
    MAIL_LINKS.token(ACCOUNT),
    RegistrationTokens(SECRET, clock).mint(valid_for=timedelta(days=1)),
    RenewedTokens(SECRET).mint("wrk_1", b"d", NOW),
)


@st.composite
def nearly(draw: st.DrawFn) -> str:
    """A genuine token with something else at one place, or any text."""
    text = draw(st.sampled_from(GENUINE))
    if draw(st.booleans()):
        return draw(HEADERS)
    at, removed = draw(st.integers(0, len(text))), draw(st.integers(0, 5))
    return text[:at] + draw(st.text(st.characters(max_codepoint=255), max_size=4)) + text[at + removed :]


L402 = Tokens(SECRET, "https://llamasketch.test")


@fuzzed(token=nearly())
def test_a_token_that_we_did_not_make_is_nobodys(token: str) -> None:
    assert VISITORS.read(token) in (None, ACCOUNT)
    assert (VISITORS.read(token) is None) == (token != GENUINE[0])
    assert (TOPUP_LINKS.read(token) is None) == (token != GENUINE[2])
    assert (MAIL_LINKS.read(token) is None) == (token != GENUINE[3])
    RegistrationTokens(SECRET, clock).genuine(token)
    renewed = RenewedTokens(SECRET)
    if renewed.worker_of(token) is not None:
        renewed.expiry_of(token, b"d")
    with contextlib.suppress(Problem):
        assert FRAMES.read(ACCOUNT, token) == 5
    for credential in (token, f"{token}:{'0' * 64}"):
        with pytest.raises(NotOurs):
            L402.read(credential, clock())
    with contextlib.suppress(MacaroonUnreadable):
        read_base64(token)
    assert LINKS.allows("GET", token, {"expires": token, "max": "5", "signature": token}) is None


KEYS = issuer().jwks()


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> People:
    folder = tmp_path_factory.mktemp("people")
    return people(folder, lambda: httpx.Response(200, json=KEYS), oidc_issuer=ISSUER)


@fuzzed(reported=spoiled(claims(exp=4_000_000_000, email="a@b.example")), header=st.text(max_size=80))
def test_a_signed_token_with_anything_in_it_names_somebody_or_is_refused(
    loop: asyncio.Runner, mine: People, reported: Any, header: str
) -> None:
    tokens = [f"{header}.{header}.{header}"]
    if isinstance(reported, dict):
        # Some claims cannot even be signed: then nobody sends them.
        with contextlib.suppress(TypeError, ValueError):
            tokens.append(signed(reported))
    for token in tokens:
        with contextlib.suppress(Problem):
            assert loop.run(mine._claims(token))["sub"].isprintable()


@fuzzed(body=bodies(KEYS))
def test_an_issuers_keys_are_read_or_left_out(
    loop: asyncio.Runner, tmp_path_factory: Any, body: bytes
) -> None:
    folder = tmp_path_factory.getbasetemp()
    asked = people(folder, lambda: httpx.Response(200, content=body), oidc_issuer=ISSUER)
    loop.run(asked._key_sets[0].key("built-in"))


@fuzzed(forwarded=HEADERS, peer=st.sampled_from(["10.0.0.1", "::1", "fe80::1%eth0", "", "testclient"]))
def test_an_address_is_always_one(forwarded: str, peer: str) -> None:
    headers = [(b"x-forwarded-for", forwarded.encode("latin-1"))]
    request = Request({"type": "http", "headers": headers, "client": (peer, 1)})
    assert prefixes(Origins(["10.0.0.0/8"]).address(request))


AUTHENTICATOR = Authenticator(
    visitors=VISITORS, readers=(), public_url="https://llamasketch.example", embedded=False
)
NAMES = st.sampled_from([b"authorization", b"cookie", b"origin", b"host", b"content-type", b"sec-fetch-site"])
WORDS = st.one_of(
    HEADERS,
    nearly().map("Bearer {}".format),
    nearly().map("__Host-ls_visitor={}".format),
    st.sampled_from(
        ["null", "https://llamasketch.example", "https://[", "http://a:b:c", "//", "a=b;=;;\x00", "é"]
    ),
)


@fuzzed(sent=st.lists(st.tuples(NAMES, WORDS), max_size=6), method=st.sampled_from(["GET", "POST"]))
def test_a_caller_is_somebody_or_nobody_or_refused(
    loop: asyncio.Runner, sent: list[tuple[bytes, str]], method: str
) -> None:
    headers = [(name, value.encode("latin-1")) for name, value in sent]
    scope = {
        "type": "http",
        "method": method,
        "path": "/",
        "query_string": b"",
        "headers": headers,
        "scheme": "https",
    }
    with contextlib.suppress(Problem):
        principal = loop.run(AUTHENTICATOR.principal(Request(scope)))
        assert principal is None or principal.account_id == ACCOUNT


@fuzzed(key=HEADERS | TEXTS, body=st.binary(max_size=20))
def test_an_idempotency_key_is_one_or_refused(key: str, body: bytes) -> None:
    with contextlib.suppress(Problem):
        assert len(digest_of(key, body)) == 32
        assert key.isascii()
        assert key.isprintable()
