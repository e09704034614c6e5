"""L402 tokens: who may do what with which preimage, and everything that is turned away."""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import timedelta

import pytest

from gateway.auth.l402 import (
    CAPABILITIES,
    CREDITS_MAX,
    NotOurs,
    TokenId,
    Tokens,
    challenge,
    credential_of,
    opted_in,
    wanted_credits,
)
from gateway.auth.macaroons import Macaroon, read_base64
from tests.auth.test_macaroons import narrowed as with_caveat
from tests.ledger.world import NOON

PREIMAGE = b"p" * 32
TOKEN = TokenId(hashlib.sha256(PREIMAGE).digest(), b"t" * 32)
TOKENS = Tokens(b"s" * 32, "https://llamasketch.test")
UNTIL = NOON + timedelta(days=1)
SENT = TOKENS.mint(TOKEN, valid_until=UNTIL)


def credential(token: str = SENT, preimage: bytes = PREIMAGE) -> str:
    return f"{token}:{preimage.hex()}"


def narrowed(*caveats: str) -> str:
    macaroon: Macaroon = read_base64(SENT)
    for caveat in caveats:
        macaroon = with_caveat(macaroon, caveat.encode())
    return base64.b64encode(macaroon.encode()).decode()


def test_whoever_paid_may_do_what_the_token_says_until_its_end() -> None:
    grant = TOKENS.read(credential(), NOON)
    assert (grant.token_id, grant.payment_hash) == (TOKEN.token_id, TOKEN.payment_hash)
    assert grant.capabilities == set(CAPABILITIES)
    assert grant.valid_until == UNTIL
    assert len(TOKEN.encode()) == 66
    with pytest.raises(NotOurs, match="over"):
        TOKENS.read(credential(), UNTIL)


def test_caveats_of_the_holder_narrow() -> None:
    sent = narrowed("llamasketch_capabilities=read", f"llamasketch_valid_until={int(NOON.timestamp()) + 60}")
    grant = TOKENS.read(credential(sent), NOON)
    assert grant.capabilities == {"read"}
    assert grant.valid_until == NOON + timedelta(seconds=60)
    assert grant.allows("GET", "/v1/generations/job_1/image")
    assert not grant.allows("POST", "/v1/generations")


@pytest.mark.parametrize(
    "caveat",
    [
        "llamasketch_capabilities=read,operate",
        f"llamasketch_valid_until={int((UNTIL + timedelta(days=1)).timestamp())}",
        "llamasketch_valid_until=tomorrow",
        "llamasketch_valid_until=٣",
        "services=llamasketch:0,other:0",
        "services=other:0",
        "anything=else",
        "",
    ],
)
def test_a_caveat_that_widens_or_is_not_understood_ends_it(caveat: str) -> None:
    with pytest.raises(NotOurs):
        TOKENS.read(credential(narrowed(caveat)), NOON)


@pytest.mark.parametrize(
    "sent",
    [
        credential(preimage=b"q" * 32),
        SENT,
        f"{SENT}:",
        f":{PREIMAGE.hex()}",
        f"{SENT}:{PREIMAGE.hex()[:-1]}",
        f"{SENT}:{PREIMAGE.hex()}00",
        f"{SENT[:-8]}AAAAAAA=:{PREIMAGE.hex()}",
        "x" * 20_000,
        f"é:{PREIMAGE.hex()}",
    ],
)
def test_a_wrong_preimage_or_half_a_credential_is_refused(sent: str) -> None:
    with pytest.raises(NotOurs):
        TOKENS.read(sent, NOON)


def test_a_macaroon_of_somebody_else_or_of_another_token_is_refused() -> None:
    foreign = Tokens(b"x" * 32, "https://llamasketch.test").mint(TOKEN, valid_until=UNTIL)
    with pytest.raises(NotOurs, match="not one of ours"):
        TOKENS.read(credential(foreign), NOON)
    other = TOKENS.mint(TokenId(hashlib.sha256(b"o" * 32).digest(), b"t" * 32), valid_until=UNTIL)
    with pytest.raises(NotOurs, match="preimage"):
        TOKENS.read(credential(other), NOON)
    short = Macaroon.mint(b"k", location=b"", identifier=b"short", caveats=())
    with pytest.raises(NotOurs, match="another service"):
        TOKENS.read(credential(base64.b64encode(short.encode()).decode()), NOON)


def test_a_token_outlives_the_secret_that_it_was_minted_with_for_as_long_as_that_is_kept() -> None:
    newer = Tokens(b"n" * 32, "https://llamasketch.test", older=[b"s" * 32])
    assert newer.read(credential(), NOON).token_id == TOKEN.token_id
    with pytest.raises(NotOurs):
        Tokens(b"n" * 32, "https://llamasketch.test").read(credential(), NOON)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/v1/generations", True),
        ("DELETE", "/v1/generations/job_1", True),
        ("GET", "/v1/generations", True),
        ("GET", "/v1/events", True),
        ("DELETE", "/v1/l402", True),
        ("POST", "/v1/topups", True),
        ("POST", "/v1/topups/pay_1/refund", False),
        ("POST", "/v1/session", False),
        ("DELETE", "/v1/sessions", False),
        ("GET", "/v1/operator/payments", False),
        ("POST", "/v1/generations/", False),
        ("PATCH", "/v1/generations/sessions/s", False),
    ],
)
def test_a_token_is_good_for_images_and_their_balance_alone(method: str, path: str, allowed: bool) -> None:
    assert TOKENS.read(credential(), NOON).allows(method, path) is allowed


PARSERS = {
    "L402-python": r'L402 macaroon="([^"]+)", invoice="([^"]+)"',
    "l402-requests": r'(?:L402|LSAT)\s+macaroon="?([^",\s]+)"?\s*,\s*invoice="?([^",\s]+)"?',
    "lightning-tools": r'macaroon="([^"]+)".*invoice="([^"]+)"',
    "aperture": r'(?:LSAT|L402) macaroon="(.*?)", invoice="(.*?)"',
}
"""How the clients that are published find the two in the header."""


@pytest.mark.parametrize("client", PARSERS)
def test_the_challenge_has_the_form_that_every_known_client_reads(client: str) -> None:
    found = re.search(PARSERS[client], challenge(SENT, "lnbcrt1invoice"))
    assert found is not None
    assert found.groups() == (SENT, "lnbcrt1invoice")


@pytest.mark.parametrize(
    ("headers", "opted", "credits_"),
    [
        ({}, False, None),
        ({"accept-payment": "L402"}, True, None),
        ({"accept-payment": "x402, l402; credits=100"}, True, 100),
        ({"accept-payment": "L402;credits=9999999"}, True, CREDITS_MAX),
        ({"accept-payment": "L402;credits=0"}, True, None),
        ({"accept-payment": "x402;credits=5"}, False, None),
        ({"authorization": "L402 a:b"}, True, None),
        ({"authorization": "LSAT a:b"}, True, None),
        ({"authorization": "Bearer a"}, False, None),
    ],
)
def test_a_program_opts_in(headers: dict[str, str], opted: bool, credits_: int | None) -> None:
    assert opted_in(headers) is opted
    assert wanted_credits(headers) == credits_


def test_the_scheme_is_read_however_it_is_written() -> None:
    assert credential_of("l402 a:b") == credential_of("LSAT  a:b ") == "a:b"
    assert credential_of("Bearer a") is None
