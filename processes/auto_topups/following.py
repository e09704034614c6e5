"""What turns an automatic top-up off, as a row in the transaction of the event."""

from __future__ import annotations

from ledger.log.model import Event, UnitOfWork
from processes.auto_topups.deciding import OffReason
from processes.auto_topups.tables import STOP_TABLE
from rails.domain import events
from rails.domain.state import Payment


def on_payment_event(uow: UnitOfWork, _stream: str, _version: int, event: Event, payment: Payment) -> None:
    """See `Category.on_event`: a dispute of any payment, or money of an automatic top-up that goes back."""
    match event:
        case events.DisputeOpened():
            reason = OffReason.DISPUTED
        case events.PaymentReversed() | events.RefundRequested() if payment.facts().charged:
            reason = OffReason.REFUNDED
        case _:
            return
    account_id = payment.facts().account_id
    fresh = {"attempts": 0, "last_problem": None}
    uow.put(STOP_TABLE, {"account_id": account_id, "reason": reason.value, "due_at": uow.now, **fresh})
