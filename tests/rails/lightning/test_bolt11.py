"""Invoices of the stand-in node are real BOLT11."""

from __future__ import annotations

import hashlib

import bolt11
import pytest
from bolt11.models.routehint import Route
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.lnd.bolt11 import Terms, decode, encode, public_key

AMOUNT_MSAT_MAX = 999 * 100_000_000_000
"""999 BTC: multiples of 1,000 BTC are written wrongly by the library that the test reads with."""
KEY = bytes(range(1, 33))
HASH = hashlib.sha256(b"preimage").digest()
SECRET = hashlib.sha256(b"secret").digest()
GOLDEN = (
    "lnbcrt12345670p1p4s9k2qpp5zpmxzy60y878cq3z84g2h84nvq9u8l7rwyjz8g0y0wcln2wm740sdqcx5crqgr"
    "fd4skwetnyrcflf5esp59wuq65mmrk378z7nqds64p2ks677p6kdw930aa4ztl5hhaf85fdsxqzuycqzzs9qxpqy"
    "sgq5xskr4nrv8vh0k2v0mev89xlfqmhn0p3ylw2mm94acjkcewz3t5jrahatcl2qasatg36wvvw2d8j3dhdmza0m"
    "t4qwtt9epquugzevjqqka26ns"
)


def terms(
    *,
    amount_msat: int = 1_234_567,
    description: str = "500 images 🦙",
    expiry_seconds: int = 900,
    hops: int = 0,
) -> Terms:
    hop = Route(public_key(KEY), "500x1x0", base_fee=1000, ppm_fee=1, cltv_expiry_delta=80)
    return Terms(
        payment_hash=HASH,
        amount_msat=amount_msat,
        description=description,
        expiry_seconds=expiry_seconds,
        cltv_delta=80,
        hops=[hop] * hops,
    )


def written(wanted: Terms) -> str:
    return encode(wanted, SECRET, 1_795_348_800, KEY)


def test_the_golden_invoice_is_written_the_same_for_ever() -> None:
    assert written(terms()) == GOLDEN


def test_the_golden_invoice_is_read() -> None:
    read = bolt11.decode(GOLDEN, strict=True)
    assert read.data == {
        "currency": "bcrt",
        "amount_msat": 1_234_567,
        "date": 1_795_348_800,
        "signature": read.data["signature"],
        "expiry": 900,
        "payment_hash": HASH.hex(),
        "payment_secret": SECRET.hex(),
        "description": "500 images 🦙",
        "features": {
            "var_onion_optin": "required",
            "payment_secret": "required",
            "basic_mpp": "supported",
            "option_route_blinding": "supported",
        },
        "min_final_cltv_expiry": 80,
        "payee": public_key(KEY),
    }


@settings(max_examples=50, deadline=None)
@given(
    amount_msat=st.integers(0, AMOUNT_MSAT_MAX),
    description=st.text(min_size=1, max_size=60),
    expiry_seconds=st.integers(1, 31_536_000),
    hops=st.integers(0, 3),
)
def test_what_is_written_is_read(amount_msat: int, description: str, expiry_seconds: int, hops: int) -> None:
    wanted = terms(amount_msat=amount_msat, description=description, expiry_seconds=expiry_seconds, hops=hops)
    read = decode(written(wanted))
    assert int(read.amount_msat or 0) == amount_msat
    assert (read.description, read.expiry, read.payee) == (description, expiry_seconds, public_key(KEY))
    assert len(read.route_hints or []) == hops


@pytest.mark.parametrize("text", ["", "lightning:", "LNBCRT1", GOLDEN[:-1], GOLDEN[:-1] + "b", "lnbcrt🦙"])
def test_rubbish_is_said_to_be_no_invoice(text: str) -> None:
    with pytest.raises(ValueError, match="not a BOLT11 invoice"):
        decode(text)
