"""An account as its owner sees it at an instant."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from ledger.domain import granting
from ledger.domain import lots as lots_
from ledger.domain.consideration import Consideration
from ledger.domain.events import CreditsGranted
from ledger.domain.state import Account, Usage
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
    """The paid plan in force."""

    subscription_id: str
    plan: str
    period_start: datetime
    period_end: datetime
    next_plan: str
    """A smaller plan that begins after the period, or empty."""
    cancels: bool


class AccountView(msgspec.Struct, frozen=True, kw_only=True):
    """Balances in credits; `available == posted − held`, none negative.

    `posted` and `available` include `claimable`, today's allowance that the next hold grants:
    to the owner it is there. What is booked is `posted − claimable`.
    """

    plan: str
    posted: int
    held: int
    available: int
    debt: int
    claimable: int
    overage_owed: int
    lots: tuple[LotView, ...]
    usage: Usage
    subscription: SubscriptionView | None
    open_holds: int
    disputed: bool
    merged_into: str


def plan_in_force(account: Account, now: datetime, plans: Mapping[str, Plan] = PLANS) -> Plan:
    """The plan in force on an account at an instant."""
    subscription = account.status.subscription
    if subscription is None:
        return plans[FREE]
    paid = plans.get(subscription.plan)
    name = account.plan_at(now, 0 if paid is None else paid.grace_seconds)
    return plans.get(name, plans[FREE])


def view(account: Account, plan: Plan, now: datetime, *, account_id: str = "") -> AccountView:
    """The account at `now` under the plan in force (see `plan_in_force`)."""
    open_lots = [_lot_view(lot, now) for lot in account.lots]
    lots = [lot for lot in open_lots if lot.left or lot.held]
    claimable = 0
    for grant in granting.due_allowance(account, plan, now, account_id=account_id):
        if isinstance(grant, CreditsGranted):
            claimable += grant.credits
            lots.insert(0, _claimable(grant))
    held = account.held()
    available = account.available(now) + claimable
    return AccountView(
        plan=plan.name,
        posted=available + held,
        held=held,
        available=available,
        debt=account.debt,
        claimable=claimable,
        overage_owed=account.status.overage_owed,
        lots=tuple(lots),
        usage=account.usage,
        subscription=_subscription_view(account, plan),
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


def _subscription_view(account: Account, plan: Plan) -> SubscriptionView | None:
    subscription = account.status.subscription
    if subscription is None or subscription.plan != plan.name or subscription.ended_at is not None:
        return None
    return SubscriptionView(
        subscription_id=subscription.subscription_id,
        plan=subscription.plan,
        period_start=subscription.period_start,
        period_end=subscription.period_end,
        next_plan=subscription.next_plan,
        cancels=subscription.cancels,
    )
