"""What the sandbox chain is: its assets and its first transaction. Constants only."""

from __future__ import annotations

from typing import Final

import wallycore as wally

NETWORK: Final = wally.WALLY_NETWORK_LIQUID_REGTEST
CHAIN: Final = "liquidregtest"
BECH32_PREFIX: Final = "ert"
BLECH32_PREFIX: Final = "el"

LBTC_ASSET: Final = "5ac9f65c0efcc4775e0baec4ec03abdde22473cd3cf33c0419ca290e0751b225"
"""The policy asset of `liquidregtest`: fees are paid in it."""

FREE_COINS_SATOSHI: Final = 2_100_000_000_000_000
"""Every L-BTC there is, given to an anyone-can-spend output of the first block."""

USDT_ISSUED: Final = 1_000_000_000_000_000
"""10,000,000 sandbox USDT at 8 decimal places."""

JUNK_ISSUED: Final = 1_000_000_000_000
"""10,000 units of a worthless asset, for payments in the wrong asset and for forged proofs."""

ANYONE_CAN_SPEND: Final = b"\x51"
GENESIS_TIME: Final = 1_296_688_602
MAX_MONEY: Final = 2_100_000_000_000_000
RBF_SEQUENCE: Final = 0xFFFFFFFD
USDT_CONTRACT: Final = bytes(32)
JUNK_CONTRACT: Final = b"\x01" * 32


def asset_bytes(asset_id: str) -> bytes:
    """An asset id as it stands in transactions: the hex bytes reversed."""
    return bytes.fromhex(asset_id)[::-1]


def asset_id(asset: bytes) -> str:
    """The id people write, from the bytes in a transaction."""
    return asset[::-1].hex()


def issued_asset(txid: bytes, vout: int, contract: bytes) -> bytes:
    """The asset that an issuance at this outpoint creates."""
    entropy = wally.tx_elements_issuance_generate_entropy(txid, vout, contract)
    return bytes(wally.tx_elements_issuance_calculate_asset(entropy))
