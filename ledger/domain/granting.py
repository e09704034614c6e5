"""Granting, adjusting, expiring, debts, and the daily allowance."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from ledger.domain import lots as lots_
from ledger.domain import periods
from ledger.domain.commands import AdjustCredits, ExpireLots, ForgiveDebt, GrantCredits
from ledger.domain.consideration import Consideration, Slice, total
from ledger.domain.events import (
    CreditsGranted,
    CreditsMovedIn,
    CreditsWithdrawn,
    DebtForgiven,
    DebtIncurred,
    DebtRepaid,
    LotExpired,
)
from ledger.domain.lots import CAPPED, PRIORITY, Lot, LotTerms, Source
from ledger.domain.refusals import (
    AccountInDebt,
    ExpiryPassed,
    InsufficientCredits,
    InvalidAmount,
    LotAlreadyGranted,
    NoDebt,
    ReasonMissing,
)
from ledger.domain.state import (
    MARKS,
    Account,
    Usage,
    lot_or_ghost,
    replace_lot,
    with_lots,
    with_subscription,
)
from ledger.domain.usage import period_name, with_less_granted
from ledger.log.model import Event
from ledger.plans import Pack, Plan

CREDITS_MAX = 1_000_000_000_000
"""No single command moves more."""


def require_amount(amount: int) -> None:
    """Refuse an amount that is not a positive whole number within reason."""
    if not 0 < amount <= CREDITS_MAX:
        raise InvalidAmount(credits=amount)


def decide_grant(account: Account, command: GrantCredits, now: datetime) -> list[Event]:
    """Grant a lot, and let paid credits make up for a debt first."""
    require_amount(command.credits)
    paid = command.consideration
    if paid is not None and paid.worth.is_negative_somewhere():
        raise InvalidAmount(credits=command.credits)
    if command.source is Source.ALLOWANCE and account.debt:
        raise AccountInDebt(debt=account.debt)
    if command.expires_at is not None and command.expires_at <= now:
        raise ExpiryPassed(expires_at=command.expires_at.isoformat())
    _require_new_lot(account, command.lot_id)
    granted = CreditsGranted(
        lot_id=command.lot_id,
        source=command.source.value,
        credits=command.credits,
        granted_at=now,
        priority=PRIORITY[command.source] if command.priority is None else command.priority,
        expires_at=command.expires_at,
        consideration=paid,
        reference=command.reference or ("" if paid is None else paid.payment_id),
        plan=command.plan,
    )
    return with_debt_repaid(account, [granted])


def pack_grant(pack: Pack, lot_id: str, paid: Consideration | None, now: datetime) -> GrantCredits:
    """What buying a pack grants: a pack's credits last, a pass's are used first and soon over."""
    lasts = pack.lasts_seconds
    return GrantCredits(
        lot_id=lot_id,
        credits=pack.credits,
        source=Source.PAYMENT if lasts is None else Source.PASS,
        expires_at=None if lasts is None else now + timedelta(seconds=lasts),
        consideration=paid,
    )


def _require_new_lot(account: Account, lot_id: str) -> None:
    if lots_.find(account.lots, lot_id) is not None or any(
        closed.lot_id == lot_id for closed in account.status.closed
    ):
        raise LotAlreadyGranted(lot_id=lot_id)


def with_debt_repaid(account: Account, events: list[Event]) -> list[Event]:
    """Add what the paid lots granted by `events` contribute to a standing debt."""
    debt = account.debt
    for event in list(events):
        match event:
            case CreditsGranted(consideration=paid) if paid is not None:
                new = [terms_of(event)]
            case CreditsMovedIn(lots=lots):
                new = list(lots)
            case _:
                continue
        for terms in new:
            part = min(debt, terms.credits)
            if part > 0:
                portion = lots_.slice_of(Lot(terms, terms.credits), part)
                events.append(DebtRepaid(credits=part, slices=(portion,)))
                debt -= part
    return events


def set_off(account: Account, debt: int, now: datetime) -> list[DebtRepaid]:
    """Unheld paid credits make up for a debt at once; credits that nobody paid for never do."""
    paid = tuple(lot for lot in account.lots if lot.terms.consideration is not None)
    part = min(debt, lots_.available(paid, now))
    slices = lots_.take(paid, part, now) if part > 0 else None
    return [] if slices is None else [DebtRepaid(credits=part, slices=slices)]


def decide_adjustment(account: Account, command: AdjustCredits, now: datetime) -> list[Event]:
    """Grant or take away by hand; taking away is bounded by what is available."""
    if not command.actor.strip() or not command.reason.strip():
        raise ReasonMissing
    require_amount(abs(command.credits))
    if command.credits < 0:
        wanted = -command.credits
        slices = lots_.take(account.lots, wanted, now)
        if slices is None:
            raise InsufficientCredits(wanted=wanted, available=account.available(now))
        return [
            CreditsWithdrawn(
                adjustment_id=command.adjustment_id,
                credits=wanted,
                slices=slices,
                actor=command.actor,
                reason=command.reason,
            )
        ]
    if command.expires_at is not None and command.expires_at <= now:
        raise ExpiryPassed(expires_at=command.expires_at.isoformat())
    _require_new_lot(account, command.lot_id)
    return [
        CreditsGranted(
            lot_id=command.lot_id,
            source=Source.ADJUSTMENT.value,
            credits=command.credits,
            granted_at=now,
            priority=PRIORITY[Source.ADJUSTMENT],
            expires_at=command.expires_at,
            reference=command.adjustment_id,
            actor=command.actor,
            reason=command.reason,
        )
    ]


def decide_forgiveness(account: Account, command: ForgiveDebt, _now: datetime) -> list[Event]:
    """Let a debt, or a part of it, go."""
    if not command.actor.strip() or not command.reason.strip():
        raise ReasonMissing
    require_amount(command.credits)
    if command.credits > account.debt:
        raise NoDebt(debt=account.debt, wanted=command.credits)
    return [DebtForgiven(credits=command.credits, actor=command.actor, reason=command.reason)]


def decide_lot_expiry(account: Account, command: ExpireLots, now: datetime) -> list[Event]:
    """Book the breakage of every lot whose time is over, at most `limit` of them."""
    return list(due_lot_expiries(account, now, command.limit))


def due_lot_expiries(account: Account, now: datetime, limit: int = 100) -> list[LotExpired]:
    """The breakage that has not been booked yet. Held slices are not part of it."""
    booked = []
    for lot in account.lots:
        expires_at = lot.terms.expires_at
        if expires_at is not None and expires_at <= now and lot.left > 0:
            booked.append(LotExpired(expired=lots_.slice_of(lot, lot.left), expires_at=expires_at))
            if len(booked) >= limit:
                break
    return booked


def due_allowance(account: Account, plan: Plan, now: datetime, *, account_id: str) -> list[Event]:
    """Today's allowance if the plan has one and it has not been granted: at most one event.

    Asking again, or with the clock set back, gives nothing. Holding two plans on one day
    gives the larger allowance, never the sum. Nothing is granted while a debt stands.
    """
    status = account.status
    if plan.period != "day" or account.debt or status.merged_into:
        return []
    day = periods.utc_day(now)
    if day < status.allowance_day:
        return []
    had = status.allowance_granted if day == status.allowance_day else 0
    amount = plan.credits - had
    if amount <= 0:
        return []
    part = "" if not had else f"_{plan.name}"
    return [
        CreditsGranted(
            lot_id=f"lot_{account_id.removeprefix('acct_')}_{day}{part}",
            source=Source.ALLOWANCE.value,
            credits=amount,
            granted_at=now,
            priority=PRIORITY[Source.ALLOWANCE],
            expires_at=periods.next_utc_midnight(now),
            reference=plan.name,
            plan=plan.name,
            period=day,
        )
    ]


def terms_of(event: CreditsGranted) -> LotTerms:
    """The terms of the lot that a grant made."""
    return LotTerms(
        lot_id=event.lot_id,
        source=event.source,
        credits=event.credits,
        granted_at=event.granted_at,
        priority=event.priority,
        expires_at=event.expires_at,
        consideration=event.consideration,
        reference=event.reference,
        period=event.period if event.source in CAPPED or event.source == Source.OVERAGE else "",
    )


def granted(account: Account, event: CreditsGranted) -> Account:
    """A lot is there."""
    account = with_lots(account, lots_.insert(account.lots, Lot(terms_of(event), event.credits)))
    if event.source == Source.OVERAGE:
        status = account.status
        return Account(
            account.lots,
            account.holds,
            account.debt,
            msgspec.structs.replace(account.usage, overage=account.usage.overage + event.credits),
            msgspec.structs.replace(status, overage_owed=status.overage_owed + event.credits),
        )
    if event.source not in CAPPED:
        return account
    usage, status = account.usage, account.status
    # The first grants named neither their subscription nor their period.
    subscription = status.find_subscription(event.reference) if event.reference else status.subscription
    if event.source == Source.SUBSCRIPTION and subscription is not None:
        if event.period and event.period != period_name(subscription.period_start):
            return account  # of a period that a newer one has overtaken: nothing of that one is used
        more = msgspec.structs.replace(subscription, granted=subscription.granted + event.credits)
        status = with_subscription(account, more).status
    if usage.period == event.period:
        whole = usage.granted + event.credits
        passed = max((mark for mark in MARKS if usage.used * 100 >= whole * mark), default=0)
        # A mark of the smaller allowance that the larger one has not reached will be given again.
        usage = msgspec.structs.replace(
            usage, granted=whole, warned_percent=min(usage.warned_percent, passed)
        )
    else:
        usage = Usage(event.period, event.credits)
    if event.source == Source.ALLOWANCE:
        had = status.allowance_granted if status.allowance_day == event.period else 0
        status = msgspec.structs.replace(
            status, allowance_day=event.period, allowance_granted=had + event.credits
        )
    return Account(account.lots, account.holds, account.debt, usage, status)


def lot_expired(account: Account, event: LotExpired) -> Account:
    """What was left of a lot lapsed."""
    portion = event.expired
    lot = lot_or_ghost(account, portion)
    account = replace_lot(account, lots_.withdrawn_left(lot, portion))
    return _owed_no_more(account, lot, portion.credits) if portion.source == Source.OVERAGE else account


def _owed_no_more(account: Account, lot: Lot, credits_: int) -> Account:
    """What was to be used beyond the plan was not used."""
    usage, status = account.usage, account.status
    if lot.terms.period == usage.period:
        usage = msgspec.structs.replace(usage, overage=max(0, usage.overage - credits_))
    status = msgspec.structs.replace(status, overage_owed=max(0, status.overage_owed - credits_))
    return Account(account.lots, account.holds, account.debt, usage, status)


def withdrawn(account: Account, event: CreditsWithdrawn) -> Account:
    """Credits were taken away by hand."""
    return withdraw_all(account, event.slices)


def withdraw_all(account: Account, slices: tuple[Slice, ...]) -> Account:
    """Unheld slices go away."""
    account = with_less_granted(account, slices)
    for portion in slices:
        account = replace_lot(account, lots_.withdrawn_left(lot_or_ghost(account, portion), portion))
    return account


def debt_incurred(account: Account, event: DebtIncurred) -> Account:
    """The account owes more credits."""
    return _with_debt(account, account.debt + event.credits)


def debt_repaid(account: Account, event: DebtRepaid) -> Account:
    """Paid credits were used to make up for a debt."""
    account = with_less_granted(account, event.slices)
    for portion in event.slices:
        account = replace_lot(account, lots_.spent_left(lot_or_ghost(account, portion), portion))
    return _with_debt(account, account.debt - total(event.slices))


def debt_forgiven(account: Account, event: DebtForgiven) -> Account:
    """The account owes less."""
    return _with_debt(account, account.debt - event.credits)


def _with_debt(account: Account, debt: int) -> Account:
    return Account(account.lots, account.holds, debt, account.usage, account.status)
