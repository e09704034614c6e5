"""Money that we send back: for credits that were not used, or that waited in suspense. Pure.

A refund is requested in the transaction that holds its credits, sent by a follow-up, and ends once: sent, or
failed. Unknown is asked again. One that was sent may still come back days later; then its credits are granted
again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import msgspec

from ledger.domain import lots as lots_
from ledger.domain.consideration import Worth
from ledger.domain.events import RefundOpened
from ledger.domain.refusals import LotDisputed, RefundTooLarge
from ledger.domain.state import Account
from ledger.log.model import Event
from ledger.money import BTC, Money, split_by_weight_floor
from rails.contract import Refund
from rails.domain import events
from rails.domain.receipts import ReceiptRecord, ReceiptStatus
from rails.domain.refusals import NothingToRefund, RefundNotFound, RefundUnderWay

SATOSHI = 1_000
"""Millisatoshi: wallets neither ask for less nor show it."""
_SUSPENDED = (ReceiptStatus.MISMATCHED, ReceiptStatus.TOO_SMALL)
"""What waits for a rate is credited by itself when there is one."""


class RefundState(StrEnum):
    """Where a refund stands. Stored with the payment."""

    REQUESTED = "requested"
    UNKNOWN = "unknown"
    SENT = "sent"
    FAILED = "failed"
    RETURNED = "returned"

    @property
    def open(self) -> bool:
        """Whether it has not ended."""
        return self in (RefundState.REQUESTED, RefundState.UNKNOWN)


class RefundRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a payment knows about one refund of its money."""

    asked: events.RefundRequested
    state: RefundState = RefundState.REQUESTED
    cost: Money | None = None
    external_ref: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRefund:
    """Send money back whose credits `held` says are held now; None if it waits in suspense, and all of it goes."""

    refund_id: str
    account_id: str
    money_ref: str
    held: RefundOpened | None
    lot: lots_.Lot | None
    by_hand: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolveRefund:
    """Say how a refund ended, or that nobody knows yet."""

    refund_id: str
    outcome: Refund
    cost: Money | None = None
    external_ref: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundableLot:
    """Unspent credits of a payment, and what can be sent back for them."""

    money_ref: str
    lot: lots_.Lot
    amount: Money

    @property
    def lot_id(self) -> str:
        """Its lot."""
        return self.lot.terms.lot_id

    @property
    def credits(self) -> int:
        """All that is left of it."""
        return self.lot.left

    def worth_of(self, credits_: int) -> Money:
        """What the next so many of its credits cost, as it can be sent."""
        worth = lots_.slice_of(self.lot, credits_).worth
        return payable(Money(0 if worth is None else worth.gross_minor, self.amount.asset))

    def credits_for(self, minor: int) -> int:
        """How many credits have to go for this much money: the least that cost as much; all if none do."""
        low, high = 1, self.credits
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self.worth_of(middle).minor >= minor else (middle + 1, high)
        return low


def payable(amount: Money) -> Money:
    """As much of it as can be sent: of bitcoin over Lightning whole satoshi, rounded down."""
    return Money(amount.minor - amount.minor % SATOSHI, BTC) if amount.asset == BTC else amount


def refundable_lots(
    receipts: Sequence[ReceiptRecord], payment_id: str, account: Account, now: datetime
) -> Iterator[RefundableLot]:
    """What is unspent of what a payment bought, wherever it is now: `account` is whose the payment is."""
    credited = [receipt for receipt in receipts if receipt.rate is not None]
    for lot in account.lots:
        paid = lot.terms.consideration
        if paid is None or paid.payment_id != payment_id or lot.left <= 0 or lots_.is_expired(lot, now):
            continue
        receipt = _receipt_of(credited, lot.terms.lot_id)
        if len([r for r in credited if r.bought and r.bought.lot_id == lot.terms.lot_id]) > 1:
            continue  # bought by several receipts together: none of them alone can be sent back that much
        worth = lots_.slice_of(lot, lot.left).worth
        amount = payable(Money(0 if worth is None else worth.gross_minor, paid.asset))
        if receipt is not None and amount.minor > 0:
            yield RefundableLot(money_ref=receipt.money_ref, lot=lot, amount=amount)


def _receipt_of(credited: Sequence[ReceiptRecord], lot_id: str) -> ReceiptRecord | None:
    """Whose lot it is. One that moved with a guest more than once has the first lot's name in its own."""
    for receipt in credited:
        if any(lot_id == share.lot_id or lot_id.startswith(share.lot_id + "_") for share in receipt.lots):
            return receipt
    return None


def decide_request(
    known: ReceiptRecord | None, refunds: Sequence[RefundRecord], command: RequestRefund, now: datetime
) -> Sequence[Event]:
    """One refund of a funds receipt at a time, never of disputed money, never more than is left of it."""
    if known is None:
        raise NothingToRefund
    if (under_way := is_going_back(refunds, known.money_ref)) is not None:
        raise RefundUnderWay(refund_id=under_way.asked.refund_id)
    left_minor = known.amount.minor - known.taken_minor - known.refunded_minor
    if command.held is None or command.lot is None:
        if known.status not in _SUSPENDED or left_minor <= 0:
            raise NothingToRefund
        return [_requested(command, Money(left_minor, known.amount.asset), now)]
    if known.status is ReceiptStatus.DISPUTED:
        raise LotDisputed(lot_id=command.lot.terms.lot_id, reversal_id="")
    if known.status is not ReceiptStatus.SETTLED:
        raise NothingToRefund
    if command.held.amount_minor > left_minor:
        raise RefundTooLarge(wanted_minor=command.held.amount_minor, largest_minor=left_minor)
    return [_requested(command, Money(command.held.amount_minor, known.amount.asset), now)]


def is_going_back(refunds: Iterable[RefundRecord], money_ref: str) -> RefundRecord | None:
    """The refund of this money that has not ended."""
    for refund in refunds:
        if refund.asked.money_ref == money_ref and refund.state.open:
            return refund
    return None


def _requested(command: RequestRefund, amount: Money, now: datetime) -> Event:
    held, lot = command.held, command.lot
    return events.RefundRequested(
        refund_id=command.refund_id,
        account_id=command.account_id,
        money_ref=command.money_ref,
        amount=amount,
        credits=0 if held is None else held.held.credits,
        lot_id="" if lot is None else lot.terms.lot_id,
        worth=Worth() if held is None else held.held.worth or Worth(),
        lot_priority=0 if lot is None else lot.terms.priority,
        lot_expires_at=None if lot is None else lot.terms.expires_at,
        requested_at=now,
        by_hand=command.by_hand,
        reason=command.reason,
    )


def decide_resolution(refund: RefundRecord | None, command: ResolveRefund) -> Sequence[Event]:
    """The event of an outcome; none if it is known, or the refund has ended."""
    if refund is None:
        raise RefundNotFound(refund_id=command.refund_id)
    if not refund.state.open:
        return []
    match command.outcome:
        case Refund.SENT:
            return [
                events.RefundConfirmed(
                    refund_id=command.refund_id, cost=command.cost, external_ref=command.external_ref
                )
            ]
        case Refund.FAILED:
            return [events.RefundRejected(refund_id=command.refund_id, reason=command.reason)]
        case Refund.UNKNOWN if refund.state is RefundState.REQUESTED:
            return [events.RefundUnresolved(refund_id=command.refund_id)]
        case _:
            return []


def worth_sent(asked: events.RefundRequested) -> Worth:
    """The parts of the money that was sent; less than was paid for the credits if less of it was sent."""
    worth, minor = asked.worth, asked.amount.minor
    if worth.gross_minor == minor:
        return worth
    if worth.gross_minor <= 0:
        return Worth(net_minor=minor)
    net, tax, fee = split_by_weight_floor(minor, [worth.net_minor, worth.tax_minor, worth.fee_minor])
    usd, tax_usd = (value * minor // worth.gross_minor for value in (worth.usd_minor, worth.tax_usd_minor))
    return Worth(net, tax, fee, usd, tax_usd)


def evolve_refund(refunds: dict[str, RefundRecord], event: Event) -> dict[str, RefundRecord]:
    """Fold one fact about a refund. Never refuses."""
    match event:
        case events.RefundRequested(refund_id=refund_id):
            return {**refunds, refund_id: RefundRecord(asked=event)}
        case events.RefundUnresolved(refund_id=refund_id):
            changes: dict[str, object] = {"state": RefundState.UNKNOWN}
        case events.RefundConfirmed(refund_id=refund_id):
            changes = {"state": RefundState.SENT, "cost": event.cost, "external_ref": event.external_ref}
        case events.RefundRejected(refund_id=refund_id):
            changes = {"state": RefundState.FAILED}
        case events.RefundReturned(refund_id=refund_id):
            changes = {"state": RefundState.RETURNED}
        case _:
            return refunds
    known = refunds.get(refund_id)
    return refunds if known is None else {**refunds, refund_id: msgspec.structs.replace(known, **changes)}
