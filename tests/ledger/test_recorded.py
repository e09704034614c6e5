"""What each command records, to the last field, as it is stored for ever."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from ledger.domain.account import ACCOUNTS
from ledger.domain.commands import (
    AdjustCredits,
    BillOverage,
    CancelSubscription,
    CaptureHold,
    ChangePlan,
    Command,
    EarnRevenue,
    EndSubscription,
    ExpireHold,
    ExpireLots,
    ForgiveDebt,
    GrantCredits,
    HoldCredits,
    LoseDispute,
    MoveHold,
    OpenRefund,
    PayPeriod,
    ReleaseHold,
    ResolveRefund,
    RestoreReversal,
    ResumeSubscription,
    ReverseCredits,
    StopEarning,
)
from ledger.domain.consideration import Consideration, Worth
from ledger.domain.due import next_due
from ledger.domain.events import EVENTS
from ledger.domain.granting import pack_grant
from ledger.domain.lots import Source
from ledger.domain.state import Account
from ledger.domain.view import plan_in_force, view
from ledger.log.model import Event
from ledger.money import BTC
from ledger.plans import PACKS, PLANS
from tests.ledger.world import DAY, DEADLINE, HOUR, MINUTE, NOON, apply, events_of, grant, hold, paid

RECORDED = Path(__file__).parent / "recorded.txt"
NEW: Account = ACCOUNTS.initial
NAMES = {kind: name for name, kind in EVENTS.items()}
END = NOON + 30 * DAY
SATS = Consideration(
    asset=BTC,
    worth=Worth(90_000, 0, 100, 9),
    rate_numerator=9,
    rate_denominator=90_000,
    rail="lightning",
    payment_id="pay_2",
)
BOUGHT = grant(10, money=paid(100, tax=10, fee=3), expires_at=NOON + DAY)
TAKEN_BACK = ReverseCredits(
    reversal_id="rev_1",
    lot_id="lot_1",
    credits=10,
    cause="dispute",
    asset="USD",
    rail="card",
    payment_id="pay_1",
    worth=Worth(87, 10, 3, 90, 10),
)
TAKE_12 = HoldCredits(
    hold_id="h1", job_id="job_h1", credits=12, deadline=DEADLINE, overage_lot="lot_over", overage_limit=5
)


def period(plan: str, start: datetime = NOON, end: datetime = END, **more: object) -> PayPeriod:
    return PayPeriod(
        **{
            "subscription_id": "sub_1",
            "plan": PLANS[plan],
            "period_start": start,
            "period_end": end,
            "lot_id": f"lot_{plan}",
            "consideration": paid(PLANS[plan].price_usd_minor, fee=30),
            **more,
        }
    )


def change(current: str, target: str) -> ChangePlan:
    return ChangePlan(
        subscription_id="sub_1",
        current=PLANS[current],
        target=PLANS[target],
        lot_id=f"lot_{target}",
        consideration=paid(600, payment_id="pay_3"),
    )


def stop(worth: Worth) -> StopEarning:
    return StopEarning(schedule_id="lot_unlimited", worth=worth)


Step = Command | tuple[timedelta, Command]
"""A command at noon, or that long after it."""

STORIES: dict[str, list[Step]] = {
    "a grant": [grant(5, source=Source.PROMOTION)],
    "a grant with everything": [
        GrantCredits(
            lot_id="lot_2",
            credits=7,
            source=Source.PASS,
            expires_at=END,
            priority=3,
            consideration=SATS,
            reference="ref",
            plan="pro",
        )
    ],
    "a bought pack": [
        pack_grant(next(p for p in PACKS.values() if p.lasts_seconds is None), "lot_1", SATS, NOON)
    ],
    "a bought pass": [pack_grant(next(p for p in PACKS.values() if p.lasts_seconds), "lot_1", SATS, NOON)],
    "an adjustment upwards": [
        AdjustCredits(
            adjustment_id="adj_1",
            lot_id="lot_a",
            credits=5,
            actor="operator:1",
            reason="sorry",
            expires_at=END,
        )
    ],
    "an adjustment downwards": [
        BOUGHT,
        AdjustCredits(adjustment_id="adj_1", lot_id="lot_a", credits=-5, actor="operator:1", reason="twice"),
    ],
    "a hold over two lots, captured in part": [
        grant(3, "lot_0", source=Source.PROMOTION),
        BOUGHT,
        hold(9),
        (MINUTE, CaptureHold(hold_id="h1", credits=5)),
    ],
    "a hold captured beyond itself": [BOUGHT, hold(4), CaptureHold(hold_id="h1", credits=6, overage_limit=2)],
    "a hold released": [BOUGHT, hold(4), ReleaseHold(hold_id="h1", reason="superseded")],
    "a hold that expires after its lot": [
        BOUGHT,
        hold(4, deadline=NOON + 2 * DAY),
        (DAY, ExpireLots()),
        (2 * DAY, ExpireHold(hold_id="h1")),
    ],
    "a hold moved": [
        BOUGHT,
        hold(4),
        MoveHold(hold_id="h1", to_hold_id="h2", job_id="job_2", deadline=DEADLINE + MINUTE),
    ],
    "a hold beyond what is there, and its bill": [
        grant(10),
        TAKE_12,
        CaptureHold(hold_id="h1"),
        BillOverage(credits=2, consideration=paid(20)),
    ],
    "a dispute of used and held credits, won": [
        BOUGHT,
        hold(2, "h1"),
        CaptureHold(hold_id="h1"),
        hold(3, "h2"),
        hold(1, "h3", deadline=DEADLINE + MINUTE),
        (HOUR, TAKEN_BACK),
        (2 * HOUR, RestoreReversal(reversal_id="rev_1", lot_id="lot_9")),
    ],
    "a dispute of held credits, captured and lost, forgiven in part": [
        BOUGHT,
        hold(10),
        TAKEN_BACK,
        CaptureHold(hold_id="h1"),
        LoseDispute(reversal_id="rev_1"),
        ForgiveDebt(credits=4, actor="operator:1", reason="goodwill"),
    ],
    "a dispute of a payment that nobody remembers": [
        msgspec.structs.replace(TAKEN_BACK, lot_id="lot_gone", asset="XAU"),
        grant(30, "lot_2", money=paid(300, payment_id="pay_5")),
    ],
    "a dispute of a lot that was paid in bitcoin": [
        grant(10, money=SATS),
        msgspec.structs.replace(TAKEN_BACK, asset="BTC", rail="lightning", payment_id="pay_2"),
    ],
    "a reversal after the time of the lot was over": [
        BOUGHT,
        (DAY, msgspec.structs.replace(TAKEN_BACK, cause="reversal")),
    ],
    "a refund that was sent": [
        BOUGHT,
        OpenRefund(refund_id="re_1", lot_id="lot_1", credits=5),
        ResolveRefund(refund_id="re_1", outcome="sent"),
    ],
    "a refund of a smaller amount, unknown and then failed": [
        BOUGHT,
        OpenRefund(refund_id="re_1", lot_id="lot_1", amount_minor=60),
        ResolveRefund(refund_id="re_1", outcome="unknown"),
        ResolveRefund(refund_id="re_1", outcome="failed"),
    ],
    "a subscription that is renewed, changed and ended": [
        period("starter"),
        change("starter", "pro"),
        (15 * DAY, change("pro", "starter")),
        (16 * DAY, ResumeSubscription(subscription_id="sub_1")),
        (17 * DAY, CancelSubscription(subscription_id="sub_1")),
        (30 * DAY, period("starter", END, END + 31 * DAY, lot_id="lot_again", consideration=None)),
        (31 * DAY, EndSubscription(subscription_id="sub_1", reason="unpaid")),
    ],
    "an upgrade half-way": [period("starter"), (15 * DAY, change("starter", "pro"))],
    "money that is earned by the day": [
        period("unlimited"),
        (3 * DAY, EarnRevenue(limit=2)),
        (3 * DAY, EarnRevenue()),
        (3 * DAY, stop(Worth(3_000, 0, 0, 3_000))),
    ],
    "an upgrade to money that is earned by the day": [
        period("starter"),
        (15 * DAY, change("starter", "unlimited")),
    ],
    "a period paid late": [(31 * DAY, period("unlimited"))],
}


def stored(event: Event) -> str:
    return f"    {NAMES[type(event)]} {msgspec.json.encode(event).decode()}"


def returned() -> Iterator[str]:
    for sentence, steps in STORIES.items():
        yield sentence
        account = NEW
        for step in steps:
            later, command = step if isinstance(step, tuple) else (timedelta(0), step)
            events = events_of(account, command, NOON + later)
            account = apply(account, events)
            yield f"  {type(command).__name__} after {later}"
            yield from map(stored, events)
            due = next_due(account, NOON + later)
            yield f"    due {due.isoformat() if due else 'never'}"
        seen = view(account, plan_in_force(account, NOON + later), NOON + later, account_id="acct_1")
        yield f"  seen by its owner: {msgspec.json.encode(seen).decode()}"
        yield ""


def test_every_command_records_what_it_always_did() -> None:
    """A field that changes here is stored otherwise from now on: `recorded.txt` is read, then edited."""
    assert "\n".join(returned()) == RECORDED.read_text()
