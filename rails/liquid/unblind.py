"""Reading the outputs of Elements transactions, and seeing through those that are ours. CPU only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import wallycore as wally

_FLAGS: Final = wally.WALLY_TX_FLAG_USE_WITNESS | wally.WALLY_TX_FLAG_USE_ELEMENTS
_EXPLICIT: Final = 0x01


@dataclass(frozen=True, slots=True)
class Output:
    """One output as it stands in a transaction."""

    vout: int
    script: bytes
    asset: bytes
    """33 bytes: 01 and the asset, or a blinded generator."""
    value: bytes
    """9 bytes: 01 and the amount, or a 33-byte commitment."""
    nonce: bytes
    rangeproof: bytes


@dataclass(frozen=True, slots=True)
class Content:
    """What an output holds: the asset's id as people write it, and the amount in minor units."""

    asset_id: str
    value: int


def outputs(raw: bytes) -> Iterator[Output]:
    """Every output of a serialised transaction. Raises `ValueError` if it is not one."""
    try:
        tx = wally.tx_from_bytes(raw, _FLAGS)
    except RuntimeError as error:
        raise ValueError("not an Elements transaction") from error
    for n in range(wally.tx_get_num_outputs(tx)):
        yield Output(
            vout=n,
            script=bytes(wally.tx_get_output_script(tx, n)),
            asset=bytes(wally.tx_get_output_asset(tx, n)),
            value=bytes(wally.tx_get_output_value(tx, n)),
            nonce=_optional(wally.tx_get_output_nonce, tx, n),
            rangeproof=bytes(wally.tx_get_output_rangeproof(tx, n)),
        )


def _optional(getter: Any, tx: Any, n: int) -> bytes:
    try:
        return bytes(getter(tx, n))
    except ValueError:
        return b""


def unblind(output: Output, blinding_key: bytes) -> Content | None:
    """What the output holds, explicit or blinded (2–12 ms). None if it cannot be told.

    It cannot be told when the output was blinded for another key, or when its range proof's
    message claims another asset than the output commits to: such outputs are valid to the
    network and worth nothing to us. wallycore raises `ValueError` for the one and
    `RuntimeError` for the other.
    """
    if not output.asset or not output.value:
        return None
    asset_is_explicit = output.asset[0] == _EXPLICIT
    value_is_explicit = output.value[0] == _EXPLICIT
    if asset_is_explicit and value_is_explicit:
        return Content(asset_id=output.asset[1:][::-1].hex(), value=int.from_bytes(output.value[1:], "big"))
    if value_is_explicit:
        return None  # A blinded asset with an explicit amount proves nothing about which asset it is.
    try:
        generator = output.asset
        if asset_is_explicit:
            generator = bytes(wally.asset_generator_from_bytes(output.asset[1:], bytes(32)))
        value, asset, _, _ = wally.asset_unblind(
            output.nonce, blinding_key, output.rangeproof, output.value, output.script, generator
        )
    except (ValueError, RuntimeError):
        return None
    return Content(asset_id=bytes(asset)[::-1].hex(), value=int(value))
