"""Paid plans: periods granted once, upgrades now, downgrades later, and money earned by the day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec

from ledger.domain import periods
from ledger.domain.commands import (
    BillOverage,
    CancelSubscription,
    ChangePlan,
    EarnRevenue,
    EndSubscription,
    PayPeriod,
    ResumeSubscription,
    StopEarning,
)
from ledger.domain.consideration import Consideration, next_part
from ledger.domain.events import (
    CancellationScheduled,
    CreditsGranted,
    DowngradeScheduled,
    EarningScheduled,
    EarningStopped,
    OverageBilled,
    PlanUpgraded,
    RevenueEarned,
    SubscriptionEnded,
    SubscriptionRenewed,
    SubscriptionResumed,
    SubscriptionStarted,
)
from ledger.domain.granting import require_amount, with_debt_repaid
from ledger.domain.lots import PRIORITY, Source
from ledger.domain.refusals import (
    InvalidPeriod,
    NothingToBill,
    PeriodAlreadyGranted,
    ScheduleNotFound,
    SubscriptionNotFound,
)
from ledger.domain.state import (
    PERIODS_KEPT,
    STARTS_KEPT,
    UPGRADES_KEPT,
    Account,
    Period,
    Schedule,
    Subscription,
    Upgrade,
    with_status,
    with_subscription,
)
from ledger.domain.usage import period_name
from ledger.log.model import Event
from ledger.plans import Plan


def decide_period(account: Account, command: PayPeriod, now: datetime) -> list[Event]:
    """Start or renew, and grant what the period brings: once, in whatever order periods are paid.

    A period paid later than its plan's grace after its start brings its plan and its credits for its whole
    length from the payment on. It never moves the newest period back.
    """
    start, end, plan = command.period_start, command.period_end, command.plan
    if end <= start:
        raise InvalidPeriod(period_start=start.isoformat(), period_end=end.isoformat())
    old = account.status.find_subscription(command.subscription_id)
    if old is not None and old.has_granted(start):
        raise PeriodAlreadyGranted(subscription_id=old.subscription_id, period_start=start.isoformat())
    kind = SubscriptionStarted if old is None else SubscriptionRenewed
    paid = command.consideration
    lasting = _lasting(old, command, now)
    begun = kind(
        subscription_id=command.subscription_id,
        plan=plan.name,
        period_start=start,
        period_end=end,
        payment_id="" if paid is None else paid.payment_id,
        terms=plan,
        lasts_until=None if lasting.until == end else lasting.until,
        paid_at=now,
    )
    grants = _grants(command.subscription_id, plan, plan.credits, command.lot_id, paid, start, lasting, now)
    return with_debt_repaid(account, [begun, *grants])


class _Lasting(NamedTuple):
    """From when until when something paid brings what it was paid for."""

    start: datetime
    until: datetime


def _lasting(old: Subscription | None, command: PayPeriod, now: datetime) -> _Lasting:
    start, end, plan = command.period_start, command.period_end, command.plan
    if now <= start + timedelta(seconds=plan.grace_seconds):
        return _Lasting(start, end)
    begins = now
    if plan.period == "day" and old is not None:
        # Credits of two periods add up, days do not: they come behind those that are paid already.
        begins = max(now, old.lasts_until)
    return _Lasting(begins, begins + (end - start))


def _grants(
    subscription_id: str,
    plan: Plan,
    amount: int,
    lot_id: str,
    paid: Consideration | None,
    period_start: datetime,
    lasting: _Lasting,
    now: datetime,
) -> list[Event]:
    """Countable credits as a lot; otherwise the money goes on a schedule and credits come daily."""
    if plan.period != "day" and amount > 0:
        return [
            CreditsGranted(
                lot_id=lot_id,
                source=Source.SUBSCRIPTION.value,
                credits=amount,
                granted_at=now,
                priority=PRIORITY[Source.SUBSCRIPTION],
                consideration=paid,
                reference=subscription_id,
                expires_at=lasting.until + timedelta(seconds=plan.grace_seconds),
                plan=plan.name,
                period=period_name(period_start),
            )
        ]
    if paid is None:
        return []
    first = max(lasting.start, min(now, lasting.until)).astimezone(UTC).date()
    days = max(1, (lasting.until.astimezone(UTC).date() - first).days)
    return [
        EarningScheduled(
            schedule_id=lot_id,
            consideration=paid,
            first_day=first,
            days=days,
            plan=plan.name,
            reference=subscription_id,
        )
    ]


def decide_change(account: Account, command: ChangePlan, now: datetime) -> list[Event]:
    """Up: now, with floor(allowance difference × remaining time). Down: when the period ends.

    However often plans are changed, a period never grants more than the larger plan does.
    """
    subscription = _active(account, command.subscription_id)
    current, target = command.current, command.target
    if target.name == subscription.plan:
        return _resume(subscription)
    if target.rank <= current.rank:
        if subscription.next_plan == target.name and not subscription.cancels:
            return []
        return [
            DowngradeScheduled(
                subscription_id=subscription.subscription_id,
                from_plan=subscription.plan,
                to_plan=target.name,
                at=subscription.period_end,
            )
        ]
    start, end = subscription.period_start, subscription.period_end
    upgraded = PlanUpgraded(
        subscription_id=subscription.subscription_id,
        from_plan=subscription.plan,
        to_plan=target.name,
        at=now,
        terms=target,
        payment_id="" if command.consideration is None else command.consideration.payment_id,
    )
    grants = _grants(
        subscription.subscription_id,
        target,
        credits_of_upgrade(subscription, current, target, min(now, command.at or now)),
        command.lot_id,
        command.consideration,
        start,
        _Lasting(start, max(end, subscription.newest_until)),
        now,
    )
    return with_debt_repaid(account, [upgraded, *grants])


def credits_of_upgrade(subscription: Subscription, current: Plan, target: Plan, now: datetime) -> int:
    """Credits that a larger plan brings at once: floor(difference × what remains of the period).

    None of a plan that brings its credits by the day.
    """
    if target.period == "day":
        return 0
    start, end = subscription.period_start, subscription.period_end
    before = current.credits if current.period != "day" else 0
    more = periods.share_of_time_floor(max(0, target.credits - before), start, end, now)
    return max(0, min(more, target.credits - subscription.granted))


def credits_of_rest(subscription: Subscription, at: datetime) -> int:
    """Credits that were granted for what remains of the newest period, rounded up; none if it began after `at`.

    So many fewer does a period bring that begins within it, if what was left of it was credited in money.
    """
    start, end = subscription.period_start, subscription.period_end
    if start >= at:
        return 0
    return periods.share_of_time_ceiling(subscription.granted, start, end, at)


def decide_cancellation(account: Account, command: CancelSubscription, _now: datetime) -> list[Event]:
    """End with the period."""
    subscription = _active(account, command.subscription_id)
    if subscription.cancels:
        return []
    return [CancellationScheduled(subscription_id=subscription.subscription_id, at=subscription.period_end)]


def decide_resumption(account: Account, command: ResumeSubscription, _now: datetime) -> list[Event]:
    """Take back a scheduled cancellation or downgrade."""
    return _resume(_active(account, command.subscription_id))


def _resume(subscription: Subscription) -> list[Event]:
    if not subscription.cancels and not subscription.next_plan:
        return []
    return [SubscriptionResumed(subscription_id=subscription.subscription_id)]


def decide_end(account: Account, command: EndSubscription, now: datetime) -> list[Event]:
    """End now, for example because renewals stayed unpaid."""
    subscription = _active(account, command.subscription_id)
    return [SubscriptionEnded(subscription_id=subscription.subscription_id, at=now, reason=command.reason)]


def _active(account: Account, subscription_id: str) -> Subscription:
    subscription = account.status.find_subscription(subscription_id)
    if subscription is None or subscription.ended_at is not None:
        raise SubscriptionNotFound(subscription_id=subscription_id)
    return subscription


def decide_earning(account: Account, command: EarnRevenue, now: datetime) -> list[Event]:
    """Book the days that have passed, at most `limit` of them."""
    return due_earnings(account, now, command.limit)


def due_earnings(account: Account, now: datetime, limit: int = 100) -> list[Event]:
    """The earned days of every schedule that have not been booked yet, in order."""
    events: list[Event] = []
    for schedule in account.status.schedules:
        paid = schedule.consideration
        upto = min(schedule.days, periods.days_between(schedule.first_day, now))
        earned = schedule.earned
        for ordinal in range(schedule.earned_days + 1, upto + 1):
            if len(events) >= limit:
                return events
            worth = next_part(paid.worth, earned, ordinal - 1, 1, schedule.days)
            earned = earned + worth
            events.append(
                RevenueEarned(
                    schedule_id=schedule.schedule_id,
                    ordinal=ordinal,
                    asset=paid.asset.code,
                    day=schedule.first_day + timedelta(days=ordinal - 1),
                    rail=paid.rail,
                    worth=worth,
                )
            )
    return events


def decide_stop(account: Account, command: StopEarning, _now: datetime) -> list[Event]:
    """The money behind a schedule went back: what was not earned never will be."""
    for schedule in account.status.schedules:
        if schedule.schedule_id == command.schedule_id:
            paid = schedule.consideration
            return [
                EarningStopped(
                    schedule_id=schedule.schedule_id,
                    asset=paid.asset.code,
                    rail=paid.rail,
                    worth=command.worth,
                    unearned=paid.worth - schedule.earned,
                )
            ]
    raise ScheduleNotFound(schedule_id=command.schedule_id)


def decide_billing(account: Account, command: BillOverage, _now: datetime) -> list[Event]:
    """Credits used beyond the allowance were paid for."""
    require_amount(command.credits)
    owed = account.status.overage_owed
    if command.credits > owed:
        raise NothingToBill(owed=owed, wanted=command.credits)
    return [OverageBilled(credits=command.credits, consideration=command.consideration)]


def begun(account: Account, event: SubscriptionStarted | SubscriptionRenewed) -> Account:
    """A period was paid: it is the newest, or one that others had overtaken."""
    name, start = event.subscription_id, event.period_start
    until = event.period_end if event.lasts_until is None else event.lasts_until
    period = Period(event.plan, start, until, event.terms, event.payment_id)
    old = account.status.find_subscription(name)
    if old is None:
        new = Subscription(name, event.plan, start, event.period_end, periods=(period,), starts=(start,))
        return with_subscription(account, new, is_newest=True)
    kept = _still_bringing((*old.periods, period), event.paid_at)
    starts = tuple(sorted({*old.starts, start}))[-STARTS_KEPT:]
    if start <= old.period_start:
        return with_subscription(account, msgspec.structs.replace(old, periods=kept, starts=starts))
    new = Subscription(name, event.plan, start, event.period_end, periods=kept, starts=starts)
    return with_subscription(account, new, is_newest=True)


def _still_bringing(periods: tuple[Period, ...], now: datetime | None) -> tuple[Period, ...]:
    """Those that are not over, and the one that lasts longest: it may have a grace."""
    last = max((p for p in periods if p.revoked_at is None), key=lambda p: p.until)
    kept = [p for p in periods if now is None or p.until > now or p is last]
    kept = sorted(kept, key=lambda p: p.until)[-PERIODS_KEPT:]
    return tuple(sorted(kept, key=lambda p: p.start))


def changed(
    account: Account,
    event: PlanUpgraded
    | DowngradeScheduled
    | CancellationScheduled
    | SubscriptionResumed
    | SubscriptionEnded,
) -> Account:
    """The subscription is another now, or will be."""
    old = account.status.find_subscription(event.subscription_id)
    if old is None:
        return account
    replace = msgspec.structs.replace
    match event:
        case PlanUpgraded():
            new = replace(old, plan=event.to_plan, next_plan="", cancels=False, periods=_upgraded(old, event))
        case DowngradeScheduled():
            new = replace(old, next_plan=event.to_plan, cancels=False)
        case CancellationScheduled():
            new = replace(old, cancels=True)
        case SubscriptionResumed():
            new = replace(old, cancels=False, next_plan="")
        case SubscriptionEnded():
            # What is paid after its end, late, still brings its plan.
            new = replace(old, ended_at=event.at, periods=())
    return with_subscription(account, new)


def _upgraded(old: Subscription, event: PlanUpgraded) -> tuple[Period, ...]:
    """The newest period brings the larger plan."""
    upgrade = Upgrade(event.to_plan, event.payment_id, event.terms)
    return tuple(
        msgspec.structs.replace(period, upgrades=(*period.upgrades, upgrade)[-UPGRADES_KEPT:])
        if period.start == old.period_start
        else period
        for period in old.periods
    )


def scheduled(account: Account, event: EarningScheduled) -> Account:
    """Money waits to be earned."""
    new = Schedule(event.schedule_id, event.consideration, event.first_day, event.days)
    schedules = (*account.status.schedules, new)
    return with_status(account, msgspec.structs.replace(account.status, schedules=schedules))


def earned(account: Account, event: RevenueEarned) -> Account:
    """One more day is earned; a finished schedule leaves."""
    schedules = []
    for schedule in account.status.schedules:
        if schedule.schedule_id == event.schedule_id:
            schedule = msgspec.structs.replace(
                schedule, earned_days=event.ordinal, earned=schedule.earned + event.worth
            )
            if schedule.earned_days >= schedule.days:
                continue
        schedules.append(schedule)
    return with_status(account, msgspec.structs.replace(account.status, schedules=tuple(schedules)))


def stopped(account: Account, event: EarningStopped) -> Account:
    """A schedule is over early."""
    schedules = tuple(s for s in account.status.schedules if s.schedule_id != event.schedule_id)
    return with_status(account, msgspec.structs.replace(account.status, schedules=schedules))


def billed(account: Account, event: OverageBilled) -> Account:
    """Overage is paid for."""
    owed = account.status.overage_owed - event.credits
    return with_status(account, msgspec.structs.replace(account.status, overage_owed=owed))
