"""What a rail's word about money is held against, however spoiled it came."""

from __future__ import annotations

from rails.contract import FundsReceipt, RailProtocolError, RailUnavailable

NAMED = (RailProtocolError, RailUnavailable)


def is_whole(receipt: FundsReceipt) -> None:
    """What ends in the books is an amount, and what ends in a table is a name."""
    assert type(receipt.amount.minor) is int
    assert receipt.amount.minor >= 0
    assert receipt.money_ref.isprintable()
