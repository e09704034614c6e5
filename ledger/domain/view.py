"""An account as its owner sees it at an instant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

import msgspec

from ledger.domain import granting
from ledger.domain import lots as lots_
from ledger.domain.consideration import Consideration
from ledger.domain.events import CreditsGranted
from ledger.domain.state import Account, Period, Subscription
from ledger.domain.usage import UsageView, usage_now
from ledger.plans import FREE, PLANS, Plan


class LotView(msgspec.Struct, frozen=True, kw_only=True):
    """A lot with something in it. `claimable`: granted by itself with the next hold of today."""

    lot_id: str
    source: str
    granted: int
    left: int
    held: int
    spent: int
    granted_at: datetime
    expires_at: datetime | None
    reference: str
    consideration: Consideration | None
    claimable: bool = False


class SubscriptionView(msgspec.Struct, frozen=True, kw_only=True):
    """A paid plan and its present period."""

    subscription_id: str
    plan: str
    period_start: datetime
    period_end: datetime
    next_plan: str
    """A smaller plan that begins after the period, or empty."""
    cancels: bool
    lasts_until: datetime
    """The end of all that is paid, ahead too."""


class AccountView(msgspec.Struct, frozen=True, kw_only=True):
    """Balances in credits; `available == posted − held`, none negative.

    `posted` and `available` include `claimable`, today's allowance that the next hold grants:
    to the owner it is there. What is booked is `posted − claimable`.
    """

    plan: str
    plan_label: str
    priority: bool
    """Whether the plan's jobs go before those of others."""
    posted: int
    held: int
    available: int
    debt: int
    claimable: int
    overage_owed: int
    lots: tuple[LotView, ...]
    usage: UsageView
    subscription: SubscriptionView | None
    """The one that brings the plan in force."""
    subscriptions: tuple[SubscriptionView, ...]
    """All that are paid for now or ahead, that one too."""
    open_holds: int
    disputed: bool
    merged_into: str


def plan_in_force(account: Account, now: datetime, plans: Mapping[str, Plan] = PLANS) -> Plan:
    """The plan in force on an account at an instant: of several that are paid the one of the highest rank."""
    status = account.status
    if status.subscription is None:
        return plans[FREE]
    found = plans[FREE]
    for subscription in status.subscriptions():
        for plan, _ in _in_force(subscription, now, plans):
            found = max(found, plan, key=lambda p: p.rank)
    return found


def billing_subscription(account: Account, now: datetime) -> Subscription | None:
    """The subscription that bills what is used beyond its plan: the one in force, or the newest that ever did."""
    found: list[tuple[bool, int, datetime, Subscription]] = []
    for subscription in account.status.subscriptions():
        for period in subscription.periods:
            terms = period.brings[1]
            if terms is not None and terms.overage_limit:
                in_force = any(plan is terms for plan, _ in _in_force(subscription, now))
                found.append((in_force, terms.rank, period.start, subscription))
    return max(found, key=lambda each: each[:3])[3] if found else None


def _in_force(
    subscription: Subscription, now: datetime, plans: Mapping[str, Plan] = PLANS
) -> Iterator[tuple[Plan, Period]]:
    """What a subscription brings now. Its last period has its plan's grace, unless it is not to go on."""
    last = subscription.lasts_until
    goes_on = not subscription.cancels and subscription.ended_at is None
    for period in subscription.periods:
        name, terms = period.brings
        # A plan from before it was kept as it was sold bills nothing beyond it.
        known = plans.get(name)
        plan = terms or (None if known is None else known.cut_off())
        if plan is None or period.revoked_at is not None:
            continue
        grace = plan.grace_seconds if goes_on and period.until == last else 0
        if period.start <= now < period.until + timedelta(seconds=grace):
            yield plan, period


def view(account: Account, plan: Plan, now: datetime, *, account_id: str = "") -> AccountView:
    """The account at `now` under the plan in force (see `plan_in_force`)."""
    open_lots = [_lot_view(lot, now) for lot in account.lots]
    lots = [lot for lot in open_lots if lot.left or lot.held]
    claimable = 0
    for grant in granting.due_allowance(account, plan, now, account_id=account_id):
        if isinstance(grant, CreditsGranted):
            claimable += grant.credits
            lots.insert(0, _claimable(grant))
    paid_plans = _subscription_views(account, now)
    held = account.held()
    available = account.available(now) + claimable
    return AccountView(
        plan=plan.name,
        plan_label=plan.label,
        priority=plan.priority,
        posted=available + held,
        held=held,
        available=available,
        debt=account.debt,
        claimable=claimable,
        overage_owed=account.status.overage_owed,
        lots=tuple(lots),
        usage=usage_now(account, plan, claimable, now),
        subscription=next(
            (seen for seen in paid_plans if seen.plan == plan.name and seen.period_start <= now), None
        ),
        subscriptions=paid_plans,
        open_holds=sum(len(bucket) for bucket in account.holds),
        disputed=bool(account.status.disputes),
        merged_into=account.status.merged_into,
    )


def _lot_view(lot: lots_.Lot, now: datetime) -> LotView:
    terms = lot.terms
    return LotView(
        lot_id=terms.lot_id,
        source=terms.source,
        granted=terms.credits,
        left=0 if lots_.is_expired(lot, now) else lot.left,
        held=lot.held,
        spent=lot.spent,
        granted_at=terms.granted_at,
        expires_at=terms.expires_at,
        reference=terms.reference,
        consideration=terms.consideration,
    )


def _claimable(grant: CreditsGranted) -> LotView:
    return LotView(
        lot_id=grant.lot_id,
        source=grant.source,
        granted=grant.credits,
        left=grant.credits,
        held=0,
        spent=0,
        granted_at=grant.granted_at,
        expires_at=grant.expires_at,
        reference=grant.reference,
        consideration=None,
        claimable=True,
    )


def _subscription_views(account: Account, now: datetime) -> tuple[SubscriptionView, ...]:
    views = []
    for subscription in account.status.subscriptions():
        if subscription.ended_at is not None:
            continue
        present = list(_in_force(subscription, now))
        ahead = [p for p in subscription.periods if p.start > now and p.revoked_at is None]
        if present:
            plan, period = max(present, key=lambda found: (found[0].rank, found[1].start))
            views.append(_subscription_view(subscription, plan.name, period))
        elif ahead:
            views.append(_subscription_view(subscription, ahead[0].brings[0], ahead[0]))
    return tuple(views)


def _subscription_view(subscription: Subscription, plan: str, period: Period) -> SubscriptionView:
    is_newest = period.start == subscription.period_start
    return SubscriptionView(
        subscription_id=subscription.subscription_id,
        plan=plan,
        period_start=period.start,
        period_end=subscription.period_end if is_newest else period.until,
        next_plan=subscription.next_plan,
        cancels=subscription.cancels,
        lasts_until=subscription.lasts_until,
    )
