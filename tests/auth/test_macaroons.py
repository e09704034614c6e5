"""Macaroons: the published form and signatures, and nothing that is wider than it was."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.macaroons import CAVEATS_MAX, Macaroon, MacaroonUnreadable, read_base64
from sandbox.lnd import macaroons as lnd

KEY = b"this is our super secret key; only we should know it"
PUBLISHED = {
    (): "e3d9e02908526c4c0039ae15114115d97fdd68bf2ba379b342aaf0f617d0552f",
    (b"test = caveat",): "197bac7a044af33332865b9266e26d493bdd668a660e44d88ce1a998c23dbd67",
}
"""As the README of libmacaroons has them."""


def minted(*caveats: bytes, key: bytes = KEY) -> Macaroon:
    return Macaroon.mint(
        key, location=b"http://mybank/", identifier=b"we used our secret key", caveats=caveats
    )


def narrowed(macaroon: Macaroon, caveat: bytes) -> Macaroon:
    """With one more caveat, as its holder adds it without us."""
    signature = hmac.new(macaroon.signature, caveat, hashlib.sha256).digest()
    return Macaroon(macaroon.location, macaroon.identifier, (*macaroon.caveats, caveat), signature)


@pytest.mark.parametrize("caveats", PUBLISHED)
def test_signatures_are_those_of_the_published_examples(caveats: tuple[bytes, ...]) -> None:
    assert minted(*caveats).signature.hex() == PUBLISHED[caveats]


def test_another_implementation_writes_and_reads_the_same() -> None:
    theirs = lnd.mint(b"k" * 32, "0", b"n" * 16, [lnd.Op("uri", "/lnrpc.Lightning/GetInfo")])
    ours = Macaroon.decode(theirs.encode())
    assert (ours.identifier, ours.signature) == (theirs.identifier, theirs.signature)
    assert ours.encode() == theirs.encode()
    assert ours.is_genuine(b"k" * 32)


@given(st.lists(st.binary(max_size=300), max_size=8), st.binary(min_size=1, max_size=100))
def test_what_is_written_is_read_again(caveats: list[bytes], identifier: bytes) -> None:
    macaroon = Macaroon.mint(KEY, location=b"here", identifier=identifier, caveats=caveats)
    data = macaroon.encode()
    for text in (base64.b64encode(data), base64.urlsafe_b64encode(data), base64.b64encode(data).rstrip(b"=")):
        assert read_base64(text.decode()) == macaroon
    assert macaroon.is_genuine(KEY)


def test_whoever_holds_one_may_narrow_it_and_nobody_may_take_a_caveat_away() -> None:
    found = narrowed(minted(b"until=5"), b"until=4")
    assert found.is_genuine(KEY)
    assert found == minted(b"until=5", b"until=4")
    wider = Macaroon(found.location, found.identifier, found.caveats[:1], found.signature)
    assert not wider.is_genuine(KEY)
    assert not found.is_genuine(b"another key")


@given(st.binary(max_size=400))
def test_anything_else_is_refused_by_name(data: bytes) -> None:
    for candidate in (data, b"\x02" + data, minted().encode()[:40] + data):
        try:
            found = Macaroon.decode(candidate)
        except MacaroonUnreadable:
            continue
        assert found.encode() == candidate


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01" + minted().encode()[1:],
        minted().encode()[:-1],
        minted().encode() + b"\0",
        minted(*[b"x"] * (CAVEATS_MAX + 1)).encode(),
        b"\x02\x02\xff\xff\xff\xff\x0f",
        b"\x02" * 5_000,
    ],
)
def test_what_breaks_off_or_goes_on_is_refused(data: bytes) -> None:
    with pytest.raises(MacaroonUnreadable):
        Macaroon.decode(data)
