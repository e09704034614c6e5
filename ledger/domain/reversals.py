"""Money that goes back without our doing: disputes, outside refunds, reorgs; and disputes won or lost."""

from __future__ import annotations

from datetime import datetime

import msgspec

from ledger.domain import holds as holds_
from ledger.domain import lots as lots_
from ledger.domain.commands import LoseDispute, RestoreReversal, ReverseCredits
from ledger.domain.consideration import NOTHING, Consideration, Slice, cut
from ledger.domain.events import (
    CreditsGranted,
    CreditsReversed,
    DebtIncurred,
    DisputeLost,
    LotExpired,
    ReversalRestored,
    RevokedHold,
)
from ledger.domain.granting import CREDITS_MAX, lot_expired, require_amount, set_off, with_debt_repaid
from ledger.domain.lots import PRIORITY, ClosedLot, Lot, LotTerms, Source
from ledger.domain.refusals import (
    AccountMerged,
    InvalidAmount,
    LotAlreadyGranted,
    ReversalAlreadyBooked,
    ReversalNotFound,
)
from ledger.domain.state import Account, Dispute, replace_lot, with_status
from ledger.domain.usage import with_less_granted
from ledger.log.model import Event
from ledger.money import ASSETS, Asset


def decide_reversal(account: Account, command: ReverseCredits, now: datetime) -> list[Event]:
    """Unheld credits of the lot go first, then held slices lose their money, the rest is owed.

    What is owed is at once made up for by other paid credits that are not held. What has lapsed
    is booked first: the answer must not depend on whether a sweep has come by.
    """
    lot = lots_.find(account.lots, command.lot_id)
    expires_at = None if lot is None else lot.terms.expires_at
    if lot is None or expires_at is None or expires_at > now or not lot.left:
        return _reverse(account, command, now)
    lapsed = LotExpired(expired=lots_.slice_of(lot, lot.left), expires_at=expires_at)
    return [lapsed, *_reverse(lot_expired(account, lapsed), command, now)]


def _reverse(account: Account, command: ReverseCredits, now: datetime) -> list[Event]:
    if not 0 <= command.credits <= CREDITS_MAX or command.worth.is_negative_somewhere():
        raise InvalidAmount(credits=command.credits)
    if account.status.merged_into:
        # What this guest had bought is known there; here it would look like a lot long spent.
        raise AccountMerged(into=account.status.merged_into)
    if any(dispute.reversal_id == command.reversal_id for dispute in account.status.disputes):
        raise ReversalAlreadyBooked(reversal_id=command.reversal_id)
    wanted = command.credits
    lot = lots_.find(account.lots, command.lot_id)
    left: Slice | None = None
    held: Slice | None = None
    revoked: tuple[RevokedHold, ...] = ()
    owed = 0
    if lot is not None:
        from_left = min(wanted, lot.left)
        left = lots_.slice_of(lot, from_left) if from_left else None
        revoked, held = _revoke(account, lot, wanted - from_left)
        wanted -= from_left + (0 if held is None else held.credits)
        owed = min(wanted, lots_.owable(lot))
    elif wanted:
        closed = _closed(account, command.lot_id)
        owed = wanted if closed is None else min(wanted, closed.spent - closed.reversed)
    taken = (0 if left is None else left.credits) + (0 if held is None else held.credits) + owed
    reversed_ = CreditsReversed(
        reversal_id=command.reversal_id,
        lot_id=command.lot_id,
        cause=command.cause,
        credits=command.credits,
        asset=command.asset,
        rail=command.rail,
        payment_id=command.payment_id,
        worth=command.worth,
        left=left,
        held=held,
        holds=revoked,
        spent_credits=owed,
        terms=_terms_if_won(account, command, taken, now) if command.cause == "dispute" else None,
    )
    if not owed:
        return [reversed_]
    incurred = DebtIncurred(credits=owed, cause="reversal", reference=command.reversal_id)
    repaid = set_off(reversed_credits(account, reversed_), account.debt + owed, now)
    return [reversed_, incurred, *repaid]


def _revoke(account: Account, lot: Lot, wanted: int) -> tuple[tuple[RevokedHold, ...], Slice | None]:
    """Take the money out of `wanted` held credits of a lot, the latest deadline first."""
    if wanted <= 0 or lot.held <= 0:
        return (), None
    touched: list[RevokedHold] = []
    amount, worth = 0, NOTHING
    lot_id = lot.terms.lot_id
    for open_id, held in _latest_first(account):
        slices: list[Slice] = []
        for portion in held:
            if portion.lot_id != lot_id or portion.revoked or amount == wanted:
                slices.append(portion)
                continue
            head, rest = cut(portion, min(portion.credits, wanted - amount))
            if rest.credits:
                slices.append(rest)
            slices.append(msgspec.structs.replace(head, worth=None, asset="", rail="", revoked=True))
            amount += head.credits
            worth = worth + (head.worth or NOTHING)
        if tuple(slices) != held:
            touched.append(RevokedHold(open_id, tuple(slices)))
        if amount == wanted:
            break
    if not amount:
        return (), None
    paid = lot.terms.consideration
    return tuple(touched), Slice(
        lot_id,
        amount,
        lot.terms.source,
        "" if paid is None else paid.asset.code,
        "" if paid is None else paid.rail,
        None if paid is None else worth,
    )


def _latest_first(account: Account) -> list[tuple[str, tuple[Slice, ...]]]:
    """Open holds by deadline, the latest first, then open refunds."""
    holds = sorted(holds_.each(account.holds), key=lambda hold: (hold.deadline, hold.hold_id), reverse=True)
    found = [(hold.hold_id, hold.slices) for hold in holds]
    return found + [(refund.refund_id, refund.held) for refund in account.status.refunds]


def _closed(account: Account, lot_id: str) -> ClosedLot | None:
    for closed in account.status.closed:
        if closed.lot_id == lot_id:
            return closed
    return None


def _terms_if_won(account: Account, command: ReverseCredits, taken: int, now: datetime) -> LotTerms:
    """What to grant again; a lot that nobody remembers comes back without an expiry."""
    lot = lots_.find(account.lots, command.lot_id)
    known = lot.terms if lot is not None else _closed(account, command.lot_id)
    paid = None if lot is None else lot.terms.consideration
    asset = ASSETS.get(command.asset, Asset(command.asset, 0)) if paid is None else paid.asset
    return LotTerms(
        lot_id=command.lot_id,
        source=Source.RESTORED.value,
        credits=taken,
        granted_at=now,
        priority=PRIORITY[Source.RESTORED] if known is None else known.priority,
        expires_at=None if known is None else known.expires_at,
        consideration=Consideration(
            asset=asset,
            worth=command.worth,
            rail=command.rail,
            payment_id=command.payment_id,
            rate_numerator=1 if paid is None else paid.rate_numerator,
            rate_denominator=1 if paid is None else paid.rate_denominator,
        ),
        reference=command.payment_id,
    )


def decide_restoration(account: Account, command: RestoreReversal, now: datetime) -> list[Event]:
    """The dispute is won: grant again what it took, with the life that it had left."""
    dispute = _open_dispute(account, command.reversal_id)
    if lots_.find(account.lots, command.lot_id) is not None:
        raise LotAlreadyGranted(lot_id=command.lot_id)
    terms = dispute.terms
    restored = ReversalRestored(reversal_id=dispute.reversal_id, lot_id=command.lot_id, credits=terms.credits)
    amount = terms.credits
    # Money that comes back for credits that were never used must still stand behind something.
    require_amount(amount or 1)
    life = None if terms.expires_at is None else terms.expires_at - terms.granted_at
    return with_debt_repaid(
        account,
        [
            restored,
            CreditsGranted(
                lot_id=command.lot_id,
                source=terms.source,
                credits=amount or 1,
                granted_at=now,
                priority=terms.priority,
                consideration=terms.consideration,
                reference=dispute.reversal_id,
                expires_at=now + life if life is not None and life.total_seconds() > 0 else None,
            ),
        ],
    )


def decide_loss(account: Account, command: LoseDispute, _now: datetime) -> list[Event]:
    """The dispute is over; nothing comes back."""
    return [DisputeLost(reversal_id=_open_dispute(account, command.reversal_id).reversal_id)]


def _open_dispute(account: Account, reversal_id: str) -> Dispute:
    for dispute in account.status.disputes:
        if dispute.reversal_id == reversal_id:
            return dispute
    raise ReversalNotFound(reversal_id=reversal_id)


def reversed_credits(account: Account, event: CreditsReversed) -> Account:
    """Unheld credits are gone, held ones are marked, spent ones are counted as reversed."""
    holds = account.holds
    for revoked in event.holds:
        hold = holds_.get(holds, revoked.hold_id)
        if hold is not None:
            holds = holds_.put(holds, msgspec.structs.replace(hold, slices=revoked.slices))
    slices = {revoked.hold_id: revoked.slices for revoked in event.holds}
    refunds = tuple(
        msgspec.structs.replace(refund, held=slices.get(refund.refund_id, refund.held))
        for refund in account.status.refunds
    )
    status = msgspec.structs.replace(account.status, refunds=refunds)
    account = Account(account.lots, holds, account.debt, account.usage, status)
    if event.terms is not None:
        dispute = Dispute(event.reversal_id, event.lot_id, event.terms)
        disputes = (*account.status.disputes, dispute)
        account = with_status(account, msgspec.structs.replace(account.status, disputes=disputes))
    lot = lots_.find(account.lots, event.lot_id)
    if lot is None:
        return _closed_reversed(account, event)
    if event.left is not None:
        account = with_less_granted(account, (event.left,))
        lot = lots_.withdrawn_left(lot, event.left)
    if event.spent_credits:
        lot = msgspec.structs.replace(lot, reversed=lot.reversed + event.spent_credits)
    return replace_lot(account, lot)


def _closed_reversed(account: Account, event: CreditsReversed) -> Account:
    closed = tuple(
        msgspec.structs.replace(lot, reversed=lot.reversed + event.spent_credits)
        if lot.lot_id == event.lot_id
        else lot
        for lot in account.status.closed
    )
    return with_status(account, msgspec.structs.replace(account.status, closed=closed))


def restored_or_lost(account: Account, event: ReversalRestored | DisputeLost) -> Account:
    """The dispute is no longer open."""
    disputes = tuple(d for d in account.status.disputes if d.reversal_id != event.reversal_id)
    return with_status(account, msgspec.structs.replace(account.status, disputes=disputes))
