"""Commands and accounts of people with a plan."""

from __future__ import annotations

from datetime import UTC, datetime

from ledger.domain.account import ACCOUNTS
from ledger.domain.commands import CaptureHold, ChangePlan, PayPeriod
from ledger.domain.events import UsageWarned
from ledger.domain.granting import due_allowance
from ledger.domain.state import Account
from ledger.plans import PLANS, Plan
from tests.ledger.world import HOUR, NOON, after, apply, events_of, hold, paid

FREE, STARTER, PRO, UNLIMITED = (PLANS[name] for name in ("free", "starter", "pro", "unlimited"))
START = datetime(2026, 11, 1, tzinfo=UTC)
END = datetime(2026, 12, 1, tzinfo=UTC)


def with_allowance(account: Account, plan: Plan = FREE, now: datetime = NOON) -> Account:
    return apply(account, due_allowance(account, plan, now, account_id="acct_1"))


def pay(
    plan: Plan, start: datetime = START, end: datetime = END, subscription_id: str = "sub_1"
) -> PayPeriod:
    return PayPeriod(
        subscription_id=subscription_id,
        plan=plan,
        period_start=start,
        period_end=end,
        lot_id=f"lot_{plan.name}_{start:%Y%m%d}",
        consideration=paid(plan.price_usd_minor),
    )


def change(current: Plan, target: Plan) -> ChangePlan:
    return ChangePlan(subscription_id="sub_1", current=current, target=target, lot_id=f"lot_to_{target.name}")


def subscribed(plan: Plan) -> Account:
    return after(ACCOUNTS.initial, pay(plan), now=START)


# Caps


def use(account: Account, amount: int, now: datetime = NOON) -> tuple[Account, list[int]]:
    account = after(account, hold(amount, deadline=now + HOUR), now=now)
    events = events_of(account, CaptureHold(hold_id="h1"), now)
    return apply(account, events), [event.percent for event in events if isinstance(event, UsageWarned)]
