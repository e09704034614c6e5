"""The money of a paid period, or of a larger plan for the rest of it, goes back or comes back: what the period brings.

A larger plan whose money went back leaves the plan that was there before it, until the end of the period. Its credits or its earning schedule are taken and given by commands of their own.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from ledger.domain.commands import RestorePeriod, RevokePeriod
from ledger.domain.events import EarningScheduled, PeriodRestored, PeriodRevoked
from ledger.domain.state import Account, Period, with_subscription
from ledger.log.model import Event


def decide_revocation(account: Account, command: RevokePeriod, now: datetime) -> list[Event]:
    """Once; nothing if the period is over and forgotten."""
    period, revoked_at = _paid_by(account, command.subscription_id, command.payment_id)
    if period is None or revoked_at is not None:
        return []
    return [
        PeriodRevoked(
            subscription_id=command.subscription_id,
            payment_id=command.payment_id,
            period_start=period.start,
            at=now,
        )
    ]


def decide_restoration(account: Account, command: RestorePeriod, now: datetime) -> list[Event]:
    """The time for which a period was revoked comes behind; a larger plan ends with its period in any case.

    Money that came back is earned until then, or today.
    """
    period, revoked_at = _paid_by(account, command.subscription_id, command.payment_id)
    events: list[Event] = []
    until = now
    if period is not None and revoked_at is not None:
        whole = period.payment_id == command.payment_id
        until = period.until + (max(now - revoked_at, timedelta(0)) if whole else timedelta(0))
        events.append(
            PeriodRestored(
                subscription_id=command.subscription_id,
                payment_id=command.payment_id,
                period_start=period.start,
                until=until,
            )
        )
    elif period is not None:
        until = period.until
    paid = command.consideration
    if paid is not None:
        first = now.astimezone(UTC).date()
        events.append(
            EarningScheduled(
                schedule_id=command.schedule_id,
                consideration=paid,
                first_day=first,
                days=max(1, (until.astimezone(UTC).date() - first).days),
                plan="" if period is None else _plan_paid_by(period, command.payment_id),
                reference=command.subscription_id,
            )
        )
    return events


def _paid_by(
    account: Account, subscription_id: str, payment_id: str
) -> tuple[Period | None, datetime | None]:
    """The period that a payment paid, or a larger plan of; and since when that is revoked."""
    subscription = account.status.find_subscription(subscription_id)
    if subscription is None or not payment_id:
        return None, None
    for period in subscription.periods:
        if period.payment_id == payment_id:
            return period, period.revoked_at
    for period in subscription.periods:
        for upgrade in period.upgrades:
            if upgrade.payment_id == payment_id:
                return period, upgrade.revoked_at
    return None, None


def _plan_paid_by(period: Period, payment_id: str) -> str:
    return next((u.plan for u in period.upgrades if u.payment_id == payment_id), period.plan)


def revoked_or_restored(account: Account, event: PeriodRevoked | PeriodRestored) -> Account:
    """The period is another."""
    subscription = account.status.find_subscription(event.subscription_id)
    if subscription is None:
        return account
    periods = tuple(
        _changed(period, event) if period.start == event.period_start else period
        for period in subscription.periods
    )
    newest = (period.brings[0] for period in periods if period.start == subscription.period_start)
    plan = next(newest, subscription.plan)
    return with_subscription(account, msgspec.structs.replace(subscription, plan=plan, periods=periods))


def _changed(period: Period, event: PeriodRevoked | PeriodRestored) -> Period:
    if period.payment_id != event.payment_id:
        at = event.at if isinstance(event, PeriodRevoked) else None
        upgrades = tuple(
            msgspec.structs.replace(upgrade, revoked_at=at)
            if upgrade.payment_id == event.payment_id
            else upgrade
            for upgrade in period.upgrades
        )
        return msgspec.structs.replace(period, upgrades=upgrades)
    match event:
        case PeriodRevoked():
            return msgspec.structs.replace(period, revoked_at=event.at)
        case PeriodRestored():
            return msgspec.structs.replace(period, revoked_at=None, until=event.until)
