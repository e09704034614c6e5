"""Whether an answer about the chain is whole. Pure.

A cache or a proxy between us and a node may cut a list short or give another transaction's bytes. A
payment left out of a block would be missed for good, since nobody reads a block twice. The merkle tree
of Elements is Bitcoin's, so python-bitcoinlib computes it. This finds faults, not lies: who invents a
list can invent its root.
"""

from __future__ import annotations

from collections.abc import Sequence

import wallycore as wally
from bitcoin.core import CBlock, b2lx, lx

from rails.contract import RailProtocolError
from rails.reading import MISREAD

_FLAGS = wally.WALLY_TX_FLAG_USE_WITNESS | wally.WALLY_TX_FLAG_USE_ELEMENTS


def whole_block(txids: Sequence[str], merkle_root: str) -> Sequence[str]:
    """The ids of a block's transactions, if they are all and in order. Raises `RailProtocolError`.

    Ids that stand twice are refused by themselves: at the end of a list they leave the root as it is
    (CVE-2012-2459).
    """
    try:
        tree = CBlock.build_merkle_tree_from_txids([lx(txid) for txid in txids])
    except MISREAD as error:
        raise RailProtocolError("a block's list of transactions cannot be read") from error
    if not tree or len(set(txids)) < len(txids) or b2lx(tree[-1]) != merkle_root:
        raise RailProtocolError("a block's list of transactions does not fit its merkle root")
    return txids


def is_transaction(raw: bytes, txid: str) -> bool:
    """Whether these bytes are the transaction of this id. Raises `ValueError` if they are none."""
    try:
        parsed = wally.tx_from_bytes(raw, _FLAGS)
    except RuntimeError as error:
        raise ValueError("not an Elements transaction") from error
    return str(b2lx(bytes(wally.tx_get_txid(parsed)))) == txid
