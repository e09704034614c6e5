"""From an invoice to what the core wants to know. Pure.

Money is SETTLED only when every HTLC that carried it is: after a force close LND has reported a
settled invoice whose HTLCs were lost (lightningnetwork/lnd#4587).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import assert_never

from ledger.money import BTC, Money
from rails.contract import FundsReceipt, Observation, PaymentRequestStatus, ReceiptState
from rails.lightning.invoices import Htlc, HtlcState, Invoice, InvoiceState

GIVEN_BACK_BEFORE = 18 + 6
"""Blocks before an HTLC's expiry: the node cancels a hold 18 before, and six may come at once."""
BLOCK_AT_LEAST = timedelta(minutes=5)
"""Dozens of blocks do not come twice as fast as they should."""


def observe(invoice: Invoice) -> Observation:
    """What is so now about this invoice and its money."""
    match invoice.state:
        case InvoiceState.OPEN:
            return _observation(invoice, PaymentRequestStatus.OPEN)
        case InvoiceState.ACCEPTED:
            held = _sum(invoice, HtlcState.ACCEPTED) or invoice.amount_paid_msat
            return _observation(
                invoice, PaymentRequestStatus.OPEN, _receipt(invoice, held, ReceiptState.HELD)
            )
        case InvoiceState.SETTLED:
            return _observation(invoice, PaymentRequestStatus.CLOSED, _settled(invoice))
        case InvoiceState.CANCELED:
            return _observation(invoice, PaymentRequestStatus.EXPIRED, _returned(invoice))
        case never:
            assert_never(never)


def _settled(invoice: Invoice) -> FundsReceipt:
    """All of it, or what LND can show for it."""
    if not invoice.htlcs:
        return _receipt(invoice, invoice.amount_paid_msat, ReceiptState.SETTLED)
    if _sum(invoice, HtlcState.ACCEPTED):
        return _receipt(invoice, invoice.amount_paid_msat, ReceiptState.HELD)
    arrived = _sum(invoice, HtlcState.SETTLED)
    if not arrived:
        return _receipt(invoice, _sum(invoice, HtlcState.CANCELED), ReceiptState.RETURNED)
    # An earlier, incomplete try may have left canceled HTLCs behind: they are no loss.
    return _receipt(invoice, arrived, ReceiptState.SETTLED)


def _returned(invoice: Invoice) -> FundsReceipt | None:
    """A hold that was accepted and went back. Parts that never made up the whole were never held."""
    if invoice.preimage_known:
        return None
    returned = _sum(invoice, HtlcState.CANCELED)
    if returned < max(invoice.value_msat, 1):
        return None
    return _receipt(invoice, invoice.amount_paid_msat or returned, ReceiptState.RETURNED)


def _receipt(invoice: Invoice, amount_msat: int, state: ReceiptState) -> FundsReceipt:
    return FundsReceipt(
        money_ref=f"ln:{invoice.payment_hash}",
        amount=Money(amount_msat, BTC),
        state=state,
        first_seen_at=min(
            (htlc.accepted_at for htlc in _carrying(invoice)),
            default=invoice.settled_at or invoice.created_at,
        ),
        external_ref=invoice.payment_hash,
        held_until=_held_until(invoice) if state is ReceiptState.HELD else None,
    )


def _held_until(invoice: Invoice) -> datetime | None:
    """Until when the node surely keeps what it holds: the part that goes back first decides, and blocks may hurry."""
    ends = [
        htlc.accepted_at
        + BLOCK_AT_LEAST * max(htlc.expiry_height - htlc.accept_height - GIVEN_BACK_BEFORE, 0)
        for htlc in _carrying(invoice)
        if htlc.accept_height
    ]
    return min(ends, default=None)


def _carrying(invoice: Invoice) -> list[Htlc]:
    """The HTLCs that carry the money; if all went back, those that did."""
    alive = [htlc for htlc in invoice.htlcs if htlc.state is not HtlcState.CANCELED]
    return alive or list(invoice.htlcs)


def _sum(invoice: Invoice, state: HtlcState) -> int:
    return sum(htlc.amount_msat for htlc in invoice.htlcs if htlc.state is state)


def _observation(
    invoice: Invoice, status: PaymentRequestStatus, receipt: FundsReceipt | None = None
) -> Observation:
    return Observation(
        reference=invoice.payment_hash, status=status, receipts=() if receipt is None else (receipt,)
    )
