"""Our own refunds: hold the unspent credits first, then say how the payment ended."""

from __future__ import annotations

from datetime import datetime

import msgspec

from ledger.domain import lots as lots_
from ledger.domain.commands import OpenRefund, ResolveRefund
from ledger.domain.consideration import NOTHING
from ledger.domain.events import RefundFailed, RefundLeftUnknown, RefundOpened, RefundSent
from ledger.domain.granting import require_amount
from ledger.domain.holding import give_back, lapses, part_by_revoked, with_debt_set_off
from ledger.domain.refusals import (
    InvalidAmount,
    LotDisputed,
    LotNotFound,
    LotNotRefundable,
    RefundAlreadyOpen,
    RefundNotOpen,
    RefundTooLarge,
)
from ledger.domain.state import Account, Refund, lot_or_ghost, replace_lot, with_status
from ledger.log.model import Event


def decide_refund(account: Account, command: OpenRefund, now: datetime) -> list[Event]:
    """Hold unspent credits of one paid lot; the amount is at most what they cost."""
    if any(refund.refund_id == command.refund_id for refund in account.status.refunds):
        raise RefundAlreadyOpen(refund_id=command.refund_id)
    lot = lots_.find(account.lots, command.lot_id)
    if lot is None or lots_.is_expired(lot, now) or lot.left <= 0:
        raise LotNotFound(lot_id=command.lot_id)
    if lot.terms.consideration is None:
        raise LotNotRefundable(lot_id=command.lot_id)
    payment_id = lot.terms.consideration.payment_id
    for dispute in account.status.disputes:
        paid = dispute.terms.consideration
        if dispute.lot_id == command.lot_id or (paid is not None and paid.payment_id == payment_id):
            raise LotDisputed(lot_id=command.lot_id, reversal_id=dispute.reversal_id)
    amount = lot.left if command.credits is None else command.credits
    require_amount(amount)
    if amount > lot.left:
        raise LotNotFound(lot_id=command.lot_id, left=lot.left, wanted=amount)
    portion = lots_.slice_of(lot, amount)
    largest = (portion.worth or NOTHING).gross_minor
    amount_minor = largest if command.amount_minor is None else command.amount_minor
    if amount_minor <= 0:
        raise InvalidAmount(amount_minor=amount_minor)
    if amount_minor > largest:
        raise RefundTooLarge(wanted_minor=amount_minor, largest_minor=largest)
    return [RefundOpened(refund_id=command.refund_id, held=portion, amount_minor=amount_minor)]


def decide_resolution(account: Account, command: ResolveRefund, now: datetime) -> list[Event]:
    """Sent captures, failed releases, unknown keeps holding until somebody knows."""
    refund = _find(account, command.refund_id)
    if refund is None:
        raise RefundNotOpen(refund_id=command.refund_id)
    returned, revoked = part_by_revoked(refund.held)
    match command.outcome:
        case "sent":
            return [
                RefundSent(
                    refund_id=refund.refund_id,
                    slices=refund.held,
                    asset=refund.asset,
                    rail=refund.rail,
                    amount_minor=refund.amount_minor,
                )
            ]
        case "failed":
            failed = RefundFailed(refund_id=refund.refund_id, returned=returned, revoked=revoked)
            return with_debt_set_off(account, [failed, *lapses(account, returned, now)], returned, now)
        case "unknown":
            return [] if refund.unknown else [RefundLeftUnknown(refund_id=refund.refund_id)]
        case outcome:
            raise ValueError(f"a refund does not end as {outcome!r}")


def _find(account: Account, refund_id: str) -> Refund | None:
    for refund in account.status.refunds:
        if refund.refund_id == refund_id:
            return refund
    return None


def opened(account: Account, event: RefundOpened) -> Account:
    """Credits are held for a refund."""
    account = replace_lot(account, lots_.held_from(lot_or_ghost(account, event.held), event.held))
    held = event.held
    refund = Refund(event.refund_id, (held,), event.amount_minor, held.asset, held.rail)
    refunds = (*account.status.refunds, refund)
    return with_status(account, msgspec.structs.replace(account.status, refunds=refunds))


def sent(account: Account, event: RefundSent) -> Account:
    """The credits of a refund are gone."""
    account = _without(account, event.refund_id)
    return give_back(account, (), event.slices)


def failed(account: Account, event: RefundFailed) -> Account:
    """The credits of a refund are back."""
    return give_back(_without(account, event.refund_id), event.returned, event.revoked)


def left_unknown(account: Account, event: RefundLeftUnknown) -> Account:
    """The credits of a refund stay held."""
    refunds = tuple(
        msgspec.structs.replace(refund, unknown=True) if refund.refund_id == event.refund_id else refund
        for refund in account.status.refunds
    )
    return with_status(account, msgspec.structs.replace(account.status, refunds=refunds))


def _without(account: Account, refund_id: str) -> Account:
    refunds = tuple(refund for refund in account.status.refunds if refund.refund_id != refund_id)
    return with_status(account, msgspec.structs.replace(account.status, refunds=refunds))
