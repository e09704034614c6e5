"""What is mailed for what happens: from an event to a letter, pure, and its row in the event's own transaction."""

from __future__ import annotations

from ledger.domain.consideration import total
from ledger.domain.events import RefundFailed, RefundSent
from ledger.domain.state import Account
from ledger.log.model import Event, UnitOfWork
from mail.domain import letters
from mail.outbox import put
from rails.domain.events import PaymentSettled
from rails.domain.state import Payment


def on_payment_event(uow: UnitOfWork, stream: str, version: int, event: Event, payment: Payment) -> None:
    """See `Category.on_event`: a receipt for money that was credited."""
    facts = payment.facts()
    # A payment for one image alone has that image's page; who pays so pays often, and each time a little.
    if not isinstance(event, PaymentSettled) or not event.credits or facts.job_id is not None:
        return
    receipt = letters.Receipt(
        payment_id=stream,
        amount_minor=event.amount.minor,
        tax_minor=event.worth.tax_minor,
        asset=event.amount.asset.code,
        usd_minor=event.worth.usd_minor + event.worth.tax_usd_minor,
        credits=event.credits,
        rail=facts.rail,
        paid_at=uow.now,
    )
    put(uow, receipt, account_id=facts.account_id, cause=f"{stream}:{version}")


def on_account_event(uow: UnitOfWork, stream: str, version: int, event: Event, account: Account) -> None:
    """See `Category.on_event`: how a refund of ours ended."""
    match event:
        case RefundSent():
            letter: letters.AnyLetter = letters.RefundSent(
                refund_id=event.refund_id,
                amount_minor=event.amount_minor,
                asset=event.asset,
                credits=total(event.slices),
                rail=event.rail,
                sent_at=uow.now,
            )
        case RefundFailed():
            letter = letters.RefundFailed(refund_id=event.refund_id, credits=total(event.returned))
        case _:
            return
    put(uow, letter, account_id=stream, cause=f"{stream}:{version}")
