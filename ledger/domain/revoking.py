"""The money of a paid period goes back, or comes back: whether the period brings its plan.

Its credits or its earning schedule are taken and given by commands of their own.
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
    period = _paid_by(account, command.subscription_id, command.payment_id)
    if period is None or period.revoked_at is not None:
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
    """The time for which it was revoked comes behind. Money that came back is earned until then, or today."""
    period = _paid_by(account, command.subscription_id, command.payment_id)
    events: list[Event] = []
    until = now
    if period is not None and period.revoked_at is not None:
        until = period.until + max(now - period.revoked_at, timedelta(0))
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
                plan="" if period is None else period.plan,
                reference=command.subscription_id,
            )
        )
    return events


def _paid_by(account: Account, subscription_id: str, payment_id: str) -> Period | None:
    subscription = account.status.find_subscription(subscription_id)
    if subscription is None or not payment_id:
        return None
    return next((period for period in subscription.periods if period.payment_id == payment_id), None)


def revoked_or_restored(account: Account, event: PeriodRevoked | PeriodRestored) -> Account:
    """The period is another."""
    subscription = account.status.find_subscription(event.subscription_id)
    if subscription is None:
        return account
    periods = tuple(
        _changed(period, event)
        if period.payment_id == event.payment_id and period.start == event.period_start
        else period
        for period in subscription.periods
    )
    return with_subscription(account, msgspec.structs.replace(subscription, periods=periods))


def _changed(period: Period, event: PeriodRevoked | PeriodRestored) -> Period:
    match event:
        case PeriodRevoked():
            return msgspec.structs.replace(period, revoked_at=event.at)
        case PeriodRestored():
            return msgspec.structs.replace(period, revoked_at=None, until=event.until)
