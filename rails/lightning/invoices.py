"""Invoices as this rail sees them. Preimages are left behind at the door, so nothing can log one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from rails.contract import RailProtocolError
from rails.reading import MISREAD


class InvoiceState(Enum):
    """LND's `Invoice.InvoiceState`."""

    OPEN = 0
    SETTLED = 1
    CANCELED = 2
    ACCEPTED = 3


class HtlcState(Enum):
    """LND's `InvoiceHTLCState`."""

    ACCEPTED = 0
    SETTLED = 1
    CANCELED = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Htlc:
    """One part of a payment, as it reached the node."""

    amount_msat: int
    state: HtlcState
    accepted_at: datetime
    accept_height: int
    """The newest block when it came."""
    expiry_height: int
    """The block at which the payer can take the money back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoice:
    """What LND tells of an invoice, without its preimage and payment secret."""

    payment_hash: str
    state: InvoiceState
    memo: str
    bolt11: str
    value_msat: int
    """What was asked; 0 means any amount."""
    amount_paid_msat: int
    preimage_known: bool
    """Whether the node has the preimage. It has none of a hold invoice until that is settled."""
    created_at: datetime
    settled_at: datetime | None
    add_index: int
    settle_index: int
    htlcs: Sequence[Htlc]


def from_wire(message: Any) -> Invoice:
    """Read an `lnrpc.Invoice`. Raises `RailProtocolError` if it is not one we understand."""
    try:
        return Invoice(
            payment_hash=bytes(message.r_hash).hex(),
            state=InvoiceState(message.state),
            memo=str(message.memo),
            bolt11=str(message.payment_request),
            value_msat=_amount(message.value_msat),
            amount_paid_msat=_amount(message.amt_paid_msat),
            preimage_known=any(message.r_preimage),
            created_at=_time(message.creation_date),
            settled_at=_time(message.settle_date) if message.settle_date else None,
            add_index=int(message.add_index),
            settle_index=int(message.settle_index),
            htlcs=tuple(_htlc(htlc) for htlc in message.htlcs),
        )
    except MISREAD as error:
        raise RailProtocolError(f"LND reported an invoice in an unknown state: {error}") from None


def _htlc(message: Any) -> Htlc:
    return Htlc(
        amount_msat=_amount(message.amt_msat),
        state=HtlcState(message.state),
        accepted_at=_time(message.accept_time),
        accept_height=int(message.accept_height),
        expiry_height=int(message.expiry_height),
    )


def _amount(msat: int) -> int:
    if msat < 0:
        raise ValueError("a negative amount")
    return int(msat)


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)
