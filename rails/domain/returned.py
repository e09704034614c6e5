"""Refunds that were sent and came back: what a payment learns of them from its rail. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from ledger.log.model import Event
from ledger.money import USD, Rate
from rails.contract import Observation, Refund
from rails.domain import events
from rails.domain.refunding import RefundState, worth_sent
from rails.domain.state import Payment

LIFE_LEAST = timedelta(days=1)
"""Credits that come back last at least so long."""


def read_returned(
    payment: Payment, observation: Observation, asked_at: datetime, lot_ids: Iterator[str]
) -> Iterator[Event]:
    """Refunds that were sent and that the rail says came back."""
    failed = {sent.key for sent in observation.refunds if sent.outcome is Refund.FAILED}
    for refund_id, refund in payment.refunds.items():
        if refund.state is not RefundState.SENT or refund_id not in failed:
            continue
        asked, receipt = refund.asked, payment.receipts[refund.asked.money_ref]
        life = None if asked.lot_expires_at is None else asked.lot_expires_at - asked.requested_at
        yield events.RefundReturned(
            refund_id=refund_id,
            money_ref=asked.money_ref,
            lot_id=next(lot_ids),
            credits=asked.credits,
            worth=worth_sent(asked),
            rate=receipt.rate or Rate(0, 1, receipt.amount.asset, USD),
            priority=asked.lot_priority,
            expires_at=None if life is None else asked_at + max(life, LIFE_LEAST),
            asked_at=asked_at,
        )
