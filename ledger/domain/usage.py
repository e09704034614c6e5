"""How much of a plan's allowance is used: what a period granted, and what is shown of it at an instant."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from ledger.domain import lots as lots_
from ledger.domain.consideration import Slice
from ledger.domain.lots import CAPPED
from ledger.domain.periods import next_utc_midnight, utc_day
from ledger.domain.state import Account, Subscription, Usage
from ledger.plans import Plan


class UsageView(msgspec.Struct, frozen=True, kw_only=True):
    """Use of the allowance of the present period, in credits; nothing of a period that is over."""

    period: str = ""
    """The UTC day, or the start of the paid period; empty if the plan brings nothing now."""
    granted: int = 0
    """What the period brought, without what went back to its payer or made up for a debt."""
    used: int = 0
    warned_percent: int = 0
    overage: int = 0
    ends_at: datetime | None = None
    """When the next period begins."""
    overage_limit: int = 0
    """Credits that may be used beyond it, and are billed; 0: it ends there."""
    overage_usd_minor: int = 0
    """US cents for each of them."""

    @property
    def percent(self) -> int:
        """The share that is used, rounded down; may be above 100 where credits in work lost their money."""
        return 0 if self.granted == 0 else self.used * 100 // self.granted


def usage_now(account: Account, plan: Plan, claimable: int, now: datetime) -> UsageView:
    """What is used under the plan in force. `claimable`: today's allowance that the next hold grants."""
    usage, today = account.usage, utc_day(now)
    if plan.period == "day":
        known = usage if usage.period == today else Usage(today)
        return UsageView(
            period=today,
            granted=known.granted + claimable,
            used=known.used,
            warned_percent=known.warned_percent,
            overage=known.overage,
            ends_at=next_utc_midnight(now),
        )
    subscription = subscription_of_usage(account)
    if subscription is None or subscription.newest_until <= now:
        return UsageView()
    return UsageView(
        period=usage.period,
        granted=usage.granted,
        used=usage.used,
        warned_percent=usage.warned_percent,
        overage=usage.overage,
        ends_at=subscription.newest_until,
        overage_limit=plan.overage_limit,
        overage_usd_minor=plan.overage_usd_minor,
    )


def subscription_of_usage(account: Account) -> Subscription | None:
    """The subscription whose newest period the account's usage is about; None if it is about a day."""
    for subscription in account.status.subscriptions():
        if account.usage.period == period_name(subscription.period_start):
            return subscription
    return None


def period_name(start: datetime) -> str:
    """What a paid period is called in its lots and in the usage of its credits."""
    return start.astimezone(UTC).isoformat()


def with_less_granted(account: Account, slices: Iterable[Slice]) -> Account:
    """Unspent credits went away: what is of the present period's allowance is granted no more.

    Called while their lots are still there.
    """
    usage = account.usage
    less = sum(portion.credits for portion in slices if is_of_period(account, portion))
    if not less:
        return account
    usage = msgspec.structs.replace(usage, granted=max(0, usage.granted - less))
    return Account(account.lots, account.holds, account.debt, usage, account.status)


def is_of_period(account: Account, portion: Slice) -> bool:
    """Whether credits are of the present period's allowance.

    What is left of an earlier one (held over its end, or used in its grace) is not: its period is over.
    """
    if portion.source not in CAPPED:
        return False
    lot = lots_.find(account.lots, portion.lot_id)
    return lot is not None and lot.terms.period == account.usage.period
