"""Periods of a plan that are paid ahead, one by one, by whatever rail. Nothing renews by itself."""

from __future__ import annotations

import calendar
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from ledger.domain.periods import months_after
from ledger.domain.state import Account, Period
from ledger.plans import Plan

PREFIX = "prepaid_"
RANK_MAX = 1_000


def prepaid_subscription(account_id: str) -> str:
    """The one subscription of an account whose periods are paid ahead."""
    return PREFIX + account_id.removeprefix("acct_")


def next_period(account: Account, plan: Plan, months: int, now: datetime) -> tuple[datetime, datetime]:
    """When the next paid period of a plan begins and ends.

    It begins right behind all that is paid of this plan and of higher ones, by any rail, also within the grace
    behind them, and otherwise now: a higher plan takes effect at once, and what the lower one granted stays.
    A month that was cut short at its end is followed by one that ends on the day before: the 31st comes back.
    """
    row = [period for period in _paid(account) if _rank(period) >= plan.rank]
    last = max(row, key=lambda period: period.until, default=None)
    if last is None or now >= last.until + timedelta(seconds=plan.grace_seconds):
        return now, months_after(now, months)
    begun, start = last.start.astimezone(UTC), last.until.astimezone(UTC)
    cut = begun.day > start.day == calendar.monthrange(start.year, start.month)[1]
    return last.until, months_after(start, months, day=begun.day if cut else start.day)


def _rank(period: Period) -> int:
    """Of what the period brings; the highest, if nobody knows any more."""
    _, terms = period.brings
    return RANK_MAX if terms is None else terms.rank


def _paid(account: Account) -> Iterator[Period]:
    for subscription in account.status.subscriptions():
        yield from (period for period in subscription.periods if period.revoked_at is None)
