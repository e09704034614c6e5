"""Where people want their money: read, or refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rails.lightning import bech32
from rails.lightning.destinations import DestinationUnreadable, Kind, read

# The example of LUD-01.
LNURL = (
    "LNURL1DP68GURN8GHJ7UM9WFMXJCM99E3K7MF0V9CXJ0M385EKVCENXC6R2C35XVUKXEFCV5MKVV34X5EKZD3EV56NYD3HXQURZEPEX"
    "EJXXEPNXSCRVWFNV9NXZCN9XQ6XYEFHVGCXXCMYXYMNSERXFQ5FNS"
)
LNURL_SAYS = "https://service.com/api?q=3fc3645b439ce8e7f2553a69e5267081d96dcd340693afabe04be7b0ccd178df"


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        (LNURL, LNURL_SAYS),
        (LNURL.lower(), LNURL_SAYS),
        (f"lightning:{LNURL}", LNURL_SAYS),
        (f"lnurl:{LNURL}", LNURL_SAYS),
        ("lnurlp://pay.example.com/x?y=1", "https://pay.example.com/x?y=1"),
        ("artist@pay.example.com", "https://pay.example.com/.well-known/lnurlp/artist"),
        ("Artist+Tips@Pay.Example.com ", "https://pay.example.com/.well-known/lnurlp/artist+tips"),
    ],
)
def test_an_address_says_whom_to_ask(text: str, asked: str) -> None:
    known = read(text)
    assert (known.kind, known.text, known.amount_msat) == (Kind.LOOKUP, asked, None)


@pytest.mark.parametrize(
    ("amount", "msat"),
    [
        ("", None),
        ("1", 10**11),
        ("2500u", 250_000_000),
        ("20m", 2_000_000_000),
        ("25n", 2_500),
        ("9678785340p", 967_878_534),
    ],
)
@pytest.mark.parametrize("network", ["bc", "tb", "bcrt", "tbs"])
def test_an_invoice_says_what_it_asks_for(network: str, amount: str, msat: int | None) -> None:
    text = f"ln{network}{amount}1pvjluezpp5qqqsyq"
    for written in (text, text.upper(), f"lightning:{text}", f"LIGHTNING:{text.upper()}"):
        known = read(written)
        assert (known.kind, known.text, known.amount_msat) == (Kind.INVOICE, text, msat)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "artist@",
        "@pay.example.com",
        "artist@pay example.com",
        "artist@pay.example.com#",
        "a rtist@pay.example.com",
        f"{'a' * 65}@pay.example.com",
        f"artist@{'a' * 254}",
        LNURL[:-1] + "Q",
        LNURL[:10] + LNURL[10:].lower(),
        "lnurlp://",
        "lnurlp://pay.example.com/ x",
        bech32.encode("lnurl", b"http://pay.example.com"),
        bech32.encode("lnurl", b"file:///etc/passwd"),
        bech32.encode("lnurl", b"\xff\xfe"),
        "lnbc1p1xyz1p",
        "lnbc25x1pvjluez",
        "lnbc1Pvjluez",
        "lnbc2500u",
        "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq",
    ],
)
def test_what_nothing_can_be_sent_to_is_refused(text: str) -> None:
    with pytest.raises(DestinationUnreadable):
        read(text)


@given(st.binary(max_size=300))
def test_bech32_gives_back_what_was_written(data: bytes) -> None:
    assert bech32.decode(bech32.encode("lnurl", data), "lnurl") == data


@given(st.binary(min_size=1, max_size=100), st.data())
def test_bech32_notices_a_changed_letter(data: bytes, draw: st.DataObject) -> None:
    text = bech32.encode("lnurl", data)
    at = draw.draw(st.integers(len("lnurl1"), len(text) - 1))
    other = draw.draw(st.sampled_from("qpzry9x8gf2tvdw0s3jn54khce6mua7l"))
    changed = text[:at] + other + text[at + 1 :]
    if changed != text:
        with pytest.raises(ValueError, match="checksum"):
            bech32.decode(changed, "lnurl")
