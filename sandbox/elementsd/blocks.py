"""Elements block headers and coinbases, serialised as on a chain with `con_signed_blocks`. Pure.

The header is the one before dynamic federations: version, previous block, merkle root, time,
height, and a proof made of a challenge script and its solution. The challenge is OP_TRUE and
the solution is empty, as on an `elementsregtest` started with `-con_dyna_deploy_start=-1`.
The block hash leaves the solution out, as Elements does.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import wallycore as wally

from sandbox.elementsd.params import (
    ANYONE_CAN_SPEND,
    FREE_COINS_SATOSHI,
    GENESIS_TIME,
    LBTC_ASSET,
    asset_bytes,
)
from sandbox.elementsd.transactions import Tx, double_sha256, parse

_CHALLENGE: Final = b"\x51"
_VERSION: Final = 0x20000000
_NULL_HASH: Final = "00" * 32
_FLAGS: Final = wally.WALLY_TX_FLAG_USE_WITNESS | wally.WALLY_TX_FLAG_USE_ELEMENTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A block header."""

    previous: str
    merkle_root: str
    time: int
    height: int

    def _hashed(self) -> bytes:
        return (
            struct.pack("<i", _VERSION)
            + bytes.fromhex(self.previous)[::-1]
            + bytes.fromhex(self.merkle_root)[::-1]
            + struct.pack("<II", self.time, self.height)
            + bytes([len(_CHALLENGE)])
            + _CHALLENGE
        )

    @property
    def raw(self) -> bytes:
        """The serialised header, with an empty solution."""
        return self._hashed() + b"\x00"

    @property
    def hash(self) -> str:
        """The block hash as people write it."""
        return double_sha256(self._hashed())[::-1].hex()


def merkle_root(txids: Sequence[str]) -> str:
    """The merkle root over transaction ids."""
    level = [bytes.fromhex(txid)[::-1] for txid in txids]
    while len(level) > 1:
        if len(level) % 2:
            level.append(level[-1])
        level = [double_sha256(level[n] + level[n + 1]) for n in range(0, len(level), 2)]
    return level[0][::-1].hex()


def serialise_block(header: Header, transactions: Sequence[bytes]) -> bytes:
    """The whole block."""
    return header.raw + compact_size(len(transactions)) + b"".join(transactions)


def compact_size(number: int) -> bytes:
    """A length as the network writes it."""
    if number < 0xFD:
        return bytes([number])
    return b"\xfd" + struct.pack("<H", number) if number <= 0xFFFF else b"\xfe" + struct.pack("<I", number)


def coinbase(height: int, fees_satoshi: int, transactions: Sequence[Tx], extra: bytes) -> Tx:
    """A block's first transaction: height (BIP 34), extra bytes, the fees, the witness commitment."""
    level = [_NULL_HASH, *(tx.wtxid for tx in transactions)]
    commitment = double_sha256(bytes.fromhex(merkle_root(level))[::-1] + bytes(32))
    asset = b"\x01" + asset_bytes(LBTC_ASSET)
    # A worthless output must not be spendable (Elements' rule); fees are left to anyone.
    reward = ANYONE_CAN_SPEND if fees_satoshi else b"\x6a"
    outputs = [(reward, fees_satoshi), (b"\x6a\x24\xaa\x21\xa9\xed" + commitment, 0)]
    return _first_transaction(_script_number(height) + bytes([len(extra)]) + extra, asset, outputs)


def genesis() -> tuple[Header, Tx]:
    """The first block: all L-BTC in one anyone-can-spend output. The same on every machine."""
    asset = b"\x01" + asset_bytes(LBTC_ASSET)
    script = b"\x20" + double_sha256(b"LlamaSketch sandbox")
    tx = _first_transaction(script, asset, [(ANYONE_CAN_SPEND, FREE_COINS_SATOSHI)])
    header = Header(previous=_NULL_HASH, merkle_root=merkle_root([tx.txid]), time=GENESIS_TIME, height=0)
    return header, tx


def _first_transaction(script_sig: bytes, asset: bytes, outputs: Sequence[tuple[bytes, int]]) -> Tx:
    tx = wally.tx_init(2, 0, 1, len(outputs))
    none = (None,) * 8
    wally.tx_add_elements_raw_input(tx, bytes(32), 0xFFFFFFFF, 0xFFFFFFFF, script_sig, *none, 0)
    for script, amount in outputs:
        value = wally.tx_confidential_value_from_satoshi(amount)
        wally.tx_add_elements_raw_output(tx, script, asset, value, None, None, None, 0)
    return parse(bytes(wally.tx_to_bytes(tx, _FLAGS)))


def _script_number(height: int) -> bytes:
    """Push a height as script does (OP_1 … OP_16, then little-endian bytes with a sign bit)."""
    if 1 <= height <= 16:
        return bytes([0x50 + height])
    data = height.to_bytes((height.bit_length() + 8) // 8, "little")
    return bytes([len(data)]) + data
