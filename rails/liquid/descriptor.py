"""Addresses, scripts and blinding keys from a watch-only confidential descriptor (wallycore).

The descriptor is `ct(slip77(<hex>),elwpkh([fp/84h/1776h/0h]xpub…/<0;1>/*))` as ELIP 150 and
SLIP 77 say. It can see money and cannot move any.
"""

from __future__ import annotations

import re
from typing import Any, Final

import wallycore as wally

from rails.liquid.networks import Network

_SLIP77: Final = re.compile(r"^ct\(slip77\(([0-9a-f]{64})\),")
MAX_INDEX: Final = 2**31 - 2
"""wallycore refuses the last of the unhardened ones."""


class WatchOnlyDescriptor:
    """One receiving address per index. Raises `ValueError` on a descriptor it must not use."""

    def __init__(self, text: str, network: Network) -> None:
        text = text.strip()
        slip77 = _SLIP77.match(text)
        if slip77 is None:
            raise ValueError("the Liquid descriptor must start with ct(slip77(<64 hex digits>),")
        parsed, features = _parse(text, network)
        if features & wally.WALLY_MS_IS_PRIVATE:
            raise ValueError("the Liquid descriptor holds a private key: use one with an xpub instead")
        if not features & wally.WALLY_MS_IS_RANGED:
            raise ValueError("the Liquid descriptor must end in /* to give each payment its own address")
        self._parsed: Any = parsed
        self._slip77 = bytes.fromhex(slip77.group(1))

    def script(self, index: int) -> bytes:
        """The scriptPubKey of the receiving address with this index (about 50 µs)."""
        return bytes(wally.descriptor_to_script(self._parsed, 0, 0, 0, 0, _checked(index), 0))

    def address(self, index: int) -> str:
        """The confidential address with this index (about 150 µs)."""
        return str(wally.descriptor_to_address(self._parsed, 0, 0, _checked(index), 0))

    def blinding_key(self, script: bytes) -> bytes:
        """The private blinding key of an output to `script` (SLIP 77)."""
        return bytes(wally.asset_blinding_key_to_ec_private_key(self._slip77, script))


def _parse(text: str, network: Network) -> tuple[Any, int]:
    try:
        parsed = wally.descriptor_parse(text, None, network.wally_id, wally.WALLY_MINISCRIPT_AS_ELEMENTS)
    except (ValueError, RuntimeError):
        # What is wrong with it may contain keys: say nothing more.
        raise ValueError(
            f"the Liquid descriptor cannot be read: check its keys, its checksum, and that it is for {network.name}"
        ) from None
    return parsed, int(wally.descriptor_get_features(parsed))


def _checked(index: int) -> int:
    if not 0 <= index <= MAX_INDEX:
        raise ValueError(f"an address index is between 0 and {MAX_INDEX}")
    return index
