"""Addresses and payment URIs of the sandbox chain. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

import wallycore as wally

from sandbox.elementsd.params import BECH32_PREFIX, BLECH32_PREFIX, LBTC_ASSET

URI_SCHEMES = ("liquidnetwork", "liquidtestnet")
SCALE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """What an address holds."""

    script: bytes
    blinding_public_key: bytes | None
    unconfidential: str


def parse_destination(address: str) -> Destination | None:
    """Read a segwit address, confidential (blech32) or not. None if it is not one of this chain."""
    try:
        if not address.lower().startswith(BLECH32_PREFIX + "1"):
            script = bytes(wally.addr_segwit_to_bytes(address, BECH32_PREFIX, 0))
            return Destination(script=script, blinding_public_key=None, unconfidential=address)
        plain = wally.confidential_addr_to_addr_segwit(address, BLECH32_PREFIX, BECH32_PREFIX)
        key = bytes(wally.confidential_addr_segwit_to_ec_public_key(address, BLECH32_PREFIX))
        script = bytes(wally.addr_segwit_to_bytes(plain, BECH32_PREFIX, 0))
    except (ValueError, RuntimeError):
        return None
    return Destination(script=script, blinding_public_key=key, unconfidential=plain)


def script_to_address(script: bytes) -> str | None:
    """The unconfidential address of a segwit script."""
    try:
        return str(wally.addr_segwit_from_bytes(script, BECH32_PREFIX, 0))
    except (ValueError, RuntimeError):
        return None


def parse_uri(uri: str) -> dict[str, str]:
    """Address, amount and asset id of `liquidtestnet:<address>?amount=…&assetid=…`.

    Raises `ValueError` with one sentence. Amount and asset id are as written, unread.
    """
    parts = urlsplit(uri)
    if parts.scheme not in URI_SCHEMES:
        raise ValueError(f"a Liquid payment URI starts with {' or '.join(URI_SCHEMES)}")
    query = parse_qs(parts.query)
    if len(query.get("amount", [])) != 1:
        raise ValueError("the URI names no amount")
    asset = query.get("assetid", [LBTC_ASSET])[0]
    return {"address": parts.path, "amount": query["amount"][0], "assetid": asset}


def parse_amount(text: str) -> int:
    """A plain decimal with at most 8 places, in minor units. Raises `ValueError`."""
    whole, _, part = text.partition(".")
    if not (whole + part).isdecimal() or not (whole + part).isascii() or len(part) > SCALE or len(whole) > 12:
        raise ValueError("an amount is a plain decimal with at most 8 places")
    return int(whole + part.ljust(SCALE, "0"))


def parse_asset(text: str) -> str:
    """An asset id. Raises `ValueError`."""
    if len(text) != 64 or not set(text) <= set("0123456789abcdef"):
        raise ValueError("an asset id is 64 lower-case hexadecimal digits")
    return text
