"""A payment: what was asked, what arrived, what was credited for it. Pure.

`decide` compares what a rail says now with what the stream knows, and answers with the
difference. So the same news may come twice, late, in any order, or not at all and later
wholesale: each funds receipt is credited at most once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from ledger.errors import Refusal
from ledger.log.model import Event
from ledger.money import Rate
from rails.domain import events
from rails.domain.pricing import credits_down
from rails.domain.reading import RecordObservation, read_observation, worth_of
from rails.domain.receipts import ReceiptStatus
from rails.domain.refunding import (
    RequestRefund,
    ResolveRefund,
    decide_request,
    decide_resolution,
    is_going_back,
)
from rails.domain.state import Payment, may_expire


class PaymentAlreadyOpen(Refusal):
    """The payment's stream has begun before."""

    code = "payment_already_open"
    message = "This payment has been opened before."


class MoneyNotInSuspense(Refusal):
    """A funds receipt was resolved before, or never set aside."""

    code = "money_not_in_suspense"
    message = "This money is not waiting in suspense."


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenPayment:
    """Store the intent to be paid."""

    facts: events.PaymentOpened


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueInstructions:
    """The rail opened a payment request under a reference with this digest."""

    reference_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpireQuote:
    """The quote's time may be over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUpOpening:
    """Close what no rail has opened yet, so that nobody goes on trying."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptFunds:
    """Credit money that waits in suspense: at today's rate, because its payer agreed, or with so many credits."""

    money_ref: str
    rate: Rate
    lot_id: str
    asked_at: datetime
    credits: int | None = None
    """As an operator decides, whatever the money is worth."""
    reason: str = ""


PaymentCommand = (
    OpenPayment
    | IssueInstructions
    | RecordObservation
    | ExpireQuote
    | GiveUpOpening
    | AcceptFunds
    | RequestRefund
    | ResolveRefund
)


def decide(payment: Payment, command: PaymentCommand, now: datetime) -> Sequence[Event]:
    """Answer one command with its events. Pure: no clock, no IO, no randomness."""
    match command:
        case OpenPayment(facts=facts):
            if payment.opened is not None:
                raise PaymentAlreadyOpen
            return [facts]
        case IssueInstructions(reference_digest=digest):
            payment.facts()
            return [] if payment.reference_digest else [events.InstructionsIssued(reference_digest=digest)]
        case RecordObservation():
            return read_observation(payment, command)
        case ExpireQuote():
            over = now >= payment.facts().quote_expires_at
            return [events.PaymentExpired()] if over and may_expire(payment) else []
        case GiveUpOpening():
            opened = payment.reference_digest is not None
            return [] if opened or not may_expire(payment) else [events.PaymentExpired(closed=True)]
        case AcceptFunds():
            return _accept(payment, command)
        case RequestRefund(money_ref=money_ref):
            payment.facts()
            refunds = tuple(payment.refunds.values())
            return decide_request(payment.receipts.get(money_ref), refunds, command, now)
        case ResolveRefund(refund_id=refund_id):
            payment.facts()
            return decide_resolution(payment.refunds.get(refund_id), command)
        case _:
            assert_never(command)


def _accept(payment: Payment, command: AcceptFunds) -> Sequence[Event]:
    facts = payment.facts()
    known = payment.receipts.get(command.money_ref)
    if known is None or known.taken_minor or known.refunded_minor or known.amount.minor <= 0:
        raise MoneyNotInSuspense
    if is_going_back(payment.refunds.values(), known.money_ref):
        raise MoneyNotInSuspense
    if command.credits is None and known.status is ReceiptStatus.MISMATCHED:
        bought = credits_down(known.amount, command.rate, facts.price)
    elif command.credits is not None and known.status in (ReceiptStatus.MISMATCHED, ReceiptStatus.TOO_SMALL):
        bought = command.credits
    else:
        raise MoneyNotInSuspense
    if bought < 1:
        raise MoneyNotInSuspense
    return [
        events.PaymentSettled(
            money_ref=known.money_ref,
            amount=known.amount,
            credits=bought,
            lot_id=command.lot_id,
            rate=command.rate,
            rate_basis="spot" if command.credits is None else "assigned",
            worth=worth_of(known.amount, known.fee, command.rate, known.breakdown),
            first_seen_at=known.first_seen_at,
            asked_at=command.asked_at,
            fee=known.fee,
            external_ref=known.external_ref,
            reason=command.reason,
            breakdown=known.breakdown,
        )
    ]
