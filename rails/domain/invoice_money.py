"""What one funds receipt buys: of a purchase, or of an invoice. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ledger.domain.consideration import Worth
from ledger.log.model import Event
from ledger.money import Rate
from rails.contract import FundsReceipt
from rails.domain import events
from rails.domain.purchases import Bought, Share, part_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Buying:
    """What one funds receipt buys of a payment's purchase."""

    share: Share
    lot_id: str
    overage: int = 0
    """Credits used beyond the plan, which the rest of the money is for; else that is for plain ones."""


def settled_invoice(
    receipt: FundsReceipt,
    pays: Buying,
    arrival: dict[str, Any],
    rate: Rate,
    worth: Worth,
    lot_ids: Iterator[str],
) -> Event:
    """Money of an invoice: for the plan on it, for what was used beyond it, or for both."""
    whole, share = receipt.amount.minor, pays.share
    minor = whole * share.minor // receipt.covers_minor if pays.overage else whole
    bought = Bought(
        lot_id=pays.lot_id, minor=minor, credits=share.credits, worth=part_of(worth, minor, whole)
    )
    return events.PaymentSettled(
        **arrival,
        credits=share.credits + pays.overage,
        lot_id=next(lot_ids) if pays.overage else pays.lot_id,
        rate=rate,
        rate_basis="quote",
        worth=worth,
        bought=bought if minor else None,
    )
