"""Holds: open, capture, release, expire, move. The hot path: no work that can be shared is done twice."""

from __future__ import annotations

from datetime import datetime

import msgspec

from ledger.domain import holds as holds_
from ledger.domain import lots as lots_
from ledger.domain.commands import CaptureHold, ExpireHold, HoldCredits, MoveHold, ReleaseHold
from ledger.domain.consideration import Slice, cut_all
from ledger.domain.events import (
    CreditsGranted,
    CreditsHeld,
    DebtIncurred,
    HoldCaptured,
    HoldExpired,
    HoldMoved,
    HoldReleased,
    LotExpired,
    UsageWarned,
)
from ledger.domain.granting import CREDITS_MAX, granted, set_off
from ledger.domain.holds import Hold
from ledger.domain.lots import CAPPED, PRIORITY, Lot, Source
from ledger.domain.refusals import (
    AccountInDebt,
    AccountMerged,
    DeadlinePassed,
    HoldAlreadyOpen,
    HoldNotDue,
    HoldNotOpen,
    HoldPastDeadline,
    InsufficientCredits,
    InvalidAmount,
    LotAlreadyGranted,
    OverageNotAllowed,
)
from ledger.domain.state import MARKS, Account, Usage, lot_or_ghost, replace_lot
from ledger.domain.usage import is_of_period, with_less_granted
from ledger.log.model import Event


def decide_hold(account: Account, command: HoldCredits, now: datetime) -> list[Event]:
    """Take slices in burn-down order, or refuse."""
    amount = command.credits
    if not 0 < amount <= CREDITS_MAX:
        raise InvalidAmount(credits=amount)
    if holds_.get(account.holds, command.hold_id) is not None:
        raise HoldAlreadyOpen(hold_id=command.hold_id)
    if command.deadline <= now:
        raise DeadlinePassed(deadline=command.deadline.isoformat())
    if account.debt:
        raise AccountInDebt(debt=account.debt)
    if account.status.merged_into:
        raise AccountMerged(into=account.status.merged_into)
    lots = account.lots
    if command.only_lot is not None:
        lots = tuple(lot for lot in lots if lot.terms.lot_id == command.only_lot)
    if not command.allowance:
        lots = tuple(lot for lot in lots if lot.terms.source != Source.ALLOWANCE)
    slices = lots_.take(lots, amount, now)
    if slices is None:
        return _hold_with_overage(account, lots, command, now)
    return [_held(command, slices)]


def _held(command: HoldCredits, slices: tuple[Slice, ...]) -> CreditsHeld:
    return CreditsHeld(
        hold_id=command.hold_id,
        job_id=command.job_id,
        credits=command.credits,
        deadline=command.deadline,
        slices=slices,
    )


def _hold_with_overage(
    account: Account, lots: tuple[Lot, ...], command: HoldCredits, now: datetime
) -> list[Event]:
    """Grant what is missing within the plan's overage limit, or refuse."""
    available = lots_.available(lots, now)
    missing = command.credits - available
    restricted = command.only_lot is not None or not command.allowance
    # What was used beyond before, and is not paid for yet, counts too: nobody ever owes more than the limit.
    used = max(account.usage.overage, account.status.overage_owed)
    if restricted or missing > command.overage_limit - used:
        raise InsufficientCredits(wanted=command.credits, available=available)
    if not command.overage_lot or lots_.find(account.lots, command.overage_lot) is not None:
        raise LotAlreadyGranted(lot_id=command.overage_lot)
    grant = CreditsGranted(
        lot_id=command.overage_lot,
        source=Source.OVERAGE.value,
        credits=missing,
        granted_at=now,
        priority=PRIORITY[Source.OVERAGE],
        reference=command.job_id,
        period=account.usage.period,
    )
    slices = lots_.take(granted(account, grant).lots, command.credits, now)
    assert slices is not None, "the overage makes up exactly what was missing"
    return [grant, _held(command, slices)]


def decide_capture(account: Account, command: CaptureHold, now: datetime) -> list[Event]:
    """Spend all of a hold, a part, or with overage more."""
    hold = holds_.get(account.holds, command.hold_id)
    if hold is None:
        raise HoldNotOpen(hold_id=command.hold_id)
    if hold.deadline <= now:
        raise HoldPastDeadline(hold_id=command.hold_id, deadline=hold.deadline.isoformat())
    spent = _spent(account, hold, command, now)
    events: list[Event] = [spent]
    if spent.returned:
        events += lapses(account, spent.returned, now)
    slices = (*spent.slices, *spent.overage) if spent.overage else spent.slices
    owed = 0
    for portion in slices:
        if portion.revoked:
            owed += portion.credits
    if owed:
        events.append(DebtIncurred(credits=owed, cause="capture", reference=hold.hold_id))
    gone = spent.revoked
    if owed or (account.debt and spent.returned):
        for repaid in set_off(captured(account, spent), account.debt + owed, now):
            events.append(repaid)
            gone += repaid.slices
    usage = account.usage
    if usage.period and usage.warned_percent < 100:
        events += _warnings(with_less_granted(account, gone) if gone else account, slices)
    return events


def _spent(account: Account, hold: Hold, command: CaptureHold, now: datetime) -> HoldCaptured:
    """All of the hold, a part, or more."""
    amount = command.credits
    if amount is None or amount == hold.credits:
        return HoldCaptured(
            hold_id=hold.hold_id, job_id=hold.job_id, credits=hold.credits, slices=hold.slices
        )
    if not 0 < amount <= CREDITS_MAX:
        raise InvalidAmount(credits=amount)
    if amount < hold.credits:
        return _capture_part(hold, amount)
    return _capture_with_overage(account, hold, command, amount, now)


def _capture_part(hold: Hold, amount: int) -> HoldCaptured:
    """Spend what is still paid for before what was revoked: it is the kinder order."""
    ordered = tuple(sorted(hold.slices, key=lambda portion: portion.revoked))
    spent, rest = cut_all(ordered, amount)
    returned, revoked = part_by_revoked(rest)
    return HoldCaptured(
        hold_id=hold.hold_id,
        job_id=hold.job_id,
        credits=amount,
        slices=spent,
        returned=returned,
        revoked=revoked,
    )


def _capture_with_overage(
    account: Account, hold: Hold, command: CaptureHold, amount: int, now: datetime
) -> HoldCaptured:
    beyond = amount - hold.credits
    if beyond > command.overage_limit:
        raise OverageNotAllowed(
            hold_id=hold.hold_id, held=hold.credits, wanted=amount, overage_limit=command.overage_limit
        )
    overage = lots_.take(account.lots, beyond, now)
    if overage is None:
        raise InsufficientCredits(wanted=beyond, available=account.available(now))
    return HoldCaptured(
        hold_id=hold.hold_id, job_id=hold.job_id, credits=amount, slices=hold.slices, overage=overage
    )


def _warnings(account: Account, slices: tuple[Slice, ...]) -> list[Event]:
    """The 80 % and 100 % marks that this spending crosses; each is given once per period.

    The account is without what the same spending takes off the allowance: what is used is used of the rest.
    """
    usage, spent = account.usage, _of_this_period(account, slices)
    if not spent:
        return []
    used = usage.used + spent
    return [
        UsageWarned(percent=percent, period=usage.period, used=used, granted=usage.granted)
        for percent in MARKS
        if usage.warned_percent < percent and used * 100 >= usage.granted * percent
    ]


def _of_this_period(account: Account, slices: tuple[Slice, ...]) -> int:
    """Credits out of the allowance of the present period."""
    spent = 0
    for portion in slices:
        if portion.source in CAPPED and is_of_period(account, portion):
            spent += portion.credits
    return spent


def decide_release(account: Account, command: ReleaseHold, now: datetime) -> list[Event]:
    """Give everything back. A late release is as good as an expiry, so the deadline does not matter."""
    hold = holds_.get(account.holds, command.hold_id)
    if hold is None:
        raise HoldNotOpen(hold_id=command.hold_id)
    returned, revoked = part_by_revoked(hold.slices)
    released = HoldReleased(
        hold_id=hold.hold_id,
        job_id=hold.job_id,
        credits=hold.credits,
        returned=returned,
        revoked=revoked,
        reason=command.reason,
    )
    return with_debt_set_off(account, [released, *lapses(account, returned, now)], returned, now)


def decide_expiry(account: Account, command: ExpireHold, now: datetime) -> list[Event]:
    """Close a hold whose deadline has passed."""
    hold = holds_.get(account.holds, command.hold_id)
    if hold is None:
        raise HoldNotOpen(hold_id=command.hold_id)
    if hold.deadline > now:
        raise HoldNotDue(hold_id=command.hold_id, deadline=hold.deadline.isoformat())
    returned, revoked = part_by_revoked(hold.slices)
    expired = HoldExpired(
        hold_id=hold.hold_id,
        job_id=hold.job_id,
        credits=hold.credits,
        deadline=hold.deadline,
        returned=returned,
        revoked=revoked,
    )
    return with_debt_set_off(account, [expired, *lapses(account, returned, now)], returned, now)


def decide_move(account: Account, command: MoveHold, now: datetime) -> list[Event]:
    """Let the hold serve another job; its credits are never free in between."""
    hold = holds_.get(account.holds, command.hold_id)
    if hold is None:
        raise HoldNotOpen(hold_id=command.hold_id)
    if hold.deadline <= now:
        raise HoldPastDeadline(hold_id=command.hold_id, deadline=hold.deadline.isoformat())
    if command.deadline <= now:
        raise DeadlinePassed(deadline=command.deadline.isoformat())
    if command.to_hold_id != hold.hold_id and holds_.get(account.holds, command.to_hold_id) is not None:
        raise HoldAlreadyOpen(hold_id=command.to_hold_id)
    return [
        HoldMoved(
            hold_id=hold.hold_id,
            to_hold_id=command.to_hold_id,
            from_job_id=hold.job_id,
            to_job_id=command.job_id,
            credits=hold.credits,
            deadline=command.deadline,
        )
    ]


def part_by_revoked(slices: tuple[Slice, ...]) -> tuple[tuple[Slice, ...], tuple[Slice, ...]]:
    """(still paid for or free, revoked)."""
    for portion in slices:
        if portion.revoked:
            break
    else:
        return slices, ()
    return tuple(p for p in slices if not p.revoked), tuple(p for p in slices if p.revoked)


def with_debt_set_off(
    account: Account, events: list[Event], returned: tuple[Slice, ...], now: datetime
) -> list[Event]:
    """Add what the paid credits that just came back contribute to a standing debt.

    They are free now, and free credits go first: else an account would owe and own at once.
    """
    if not account.debt:
        return events
    return events + set_off(give_back(account, returned, ()), account.debt, now)


def lapses(account: Account, returned: tuple[Slice, ...], now: datetime) -> list[Event]:
    """What came back to a lot whose time is over meanwhile lapses now.

    So does what was to be used beyond a plan and was not: it is owed no more.
    """
    lapsed: list[Event] = []
    for portion in returned:
        lot = lots_.find(account.lots, portion.lot_id)
        expires_at = None if lot is None else lot.terms.expires_at
        if lot is not None and portion.source == Source.OVERAGE:
            expires_at = now
        if expires_at is not None and expires_at <= now:
            lapsed.append(LotExpired(expired=portion, expires_at=expires_at))
    return lapsed


def credits_held(account: Account, event: CreditsHeld) -> Account:
    """A hold is open."""
    hold = Hold(event.hold_id, event.job_id, event.credits, event.deadline, event.slices)
    lots = account.lots
    for portion in event.slices:
        lots = tuple(
            [lots_.held_from(lot, portion) if lot.terms.lot_id == portion.lot_id else lot for lot in lots]
        )
    return Account(lots, holds_.put(account.holds, hold), account.debt, account.usage, account.status)


def captured(account: Account, event: HoldCaptured) -> Account:
    """A hold is closed and spent."""
    used = _of_this_period(account, (*event.slices, *event.overage) if event.overage else event.slices)
    usage = account.usage
    if used:
        usage = Usage(usage.period, usage.granted, usage.used + used, usage.warned_percent, usage.overage)
    holds = holds_.remove(account.holds, event.hold_id)
    account = Account(account.lots, holds, account.debt, usage, account.status)
    for portion in event.slices:
        account = replace_lot(account, lots_.spent_from(lot_or_ghost(account, portion), portion))
    for portion in event.overage:
        account = replace_lot(account, lots_.spent_left(lot_or_ghost(account, portion), portion))
    return give_back(account, event.returned, event.revoked)


def released(account: Account, event: HoldReleased) -> Account:
    """A hold is closed and its credits are back."""
    return give_back(_without_hold(account, event.hold_id), event.returned, event.revoked)


def expired(account: Account, event: HoldExpired) -> Account:
    """A hold is closed by time and its credits are back."""
    return give_back(_without_hold(account, event.hold_id), event.returned, event.revoked)


def give_back(account: Account, returned: tuple[Slice, ...], revoked: tuple[Slice, ...]) -> Account:
    """Held slices return to their lots, or are gone if their money is."""
    for portion in returned:
        account = replace_lot(account, lots_.returned_to(lot_or_ghost(account, portion), portion))
    if revoked:
        account = with_less_granted(account, revoked)
    for portion in revoked:
        account = replace_lot(account, lots_.withdrawn_held(lot_or_ghost(account, portion), portion))
    return account


def moved(account: Account, event: HoldMoved) -> Account:
    """A hold serves another job."""
    hold = holds_.get(account.holds, event.hold_id)
    if hold is None:
        return account
    holds = holds_.remove(account.holds, event.hold_id)
    holds = holds_.put(
        holds, Hold(event.to_hold_id, event.to_job_id, hold.credits, event.deadline, hold.slices)
    )
    return Account(account.lots, holds, account.debt, account.usage, account.status)


def warned(account: Account, event: UsageWarned) -> Account:
    """The mark has been given; it is not given again in this period."""
    usage = msgspec.structs.replace(account.usage, warned_percent=event.percent)
    return Account(account.lots, account.holds, account.debt, usage, account.status)


def _without_hold(account: Account, hold_id: str) -> Account:
    holds = holds_.remove(account.holds, hold_id)
    return Account(account.lots, holds, account.debt, account.usage, account.status)
