"""One example of every event, for golden files and properties."""

from __future__ import annotations

from datetime import UTC, date, datetime

from ledger.domain import events as e
from ledger.domain.consideration import Consideration, Slice, Worth
from ledger.domain.lots import LotTerms
from ledger.log.model import Event
from ledger.money import BTC, USD

AT = datetime(2026, 11, 22, 12, 30, 15, 250_000, tzinfo=UTC)
LATER = datetime(2026, 12, 22, tzinfo=UTC)
MONEY = Consideration(
    asset=USD,
    worth=Worth(430, 50, 20, 450, 50),
    rate_numerator=1,
    rate_denominator=1,
    rail="card",
    payment_id="pay_1",
)
SATS = Consideration(
    asset=BTC,
    worth=Worth(5_000_000_000, 0, 1_000, 500),
    rate_numerator=9,
    rate_denominator=90_000_000,
    rail="lightning",
    payment_id="pay_2",
)
FREE = Slice("lot_free", 2, "allowance")
BOUGHT = Slice("lot_1", 3, "payment", "USD", "card", Worth(3, 1, 0, 3, 1))
REVOKED = Slice("lot_1", 1, "payment", revoked=True)
TERMS = LotTerms(
    lot_id="lot_1",
    source="payment",
    credits=500,
    granted_at=AT,
    priority=30,
    expires_at=LATER,
    consideration=MONEY,
    reference="pay_1",
    spent_before=7,
)

SAMPLES: dict[str, Event] = {
    "ledger.credits_granted.v1": e.CreditsGranted(
        lot_id="lot_1",
        source="payment",
        credits=500,
        granted_at=AT,
        priority=30,
        expires_at=LATER,
        consideration=SATS,
        reference="pay_2",
        plan="pro",
        period="2026-11-22",
        actor="operator:1",
        reason="goodwill",
    ),
    "ledger.credits_held.v1": e.CreditsHeld(
        hold_id="hold_1", job_id="job_1", credits=5, deadline=AT, slices=(FREE, BOUGHT)
    ),
    "ledger.hold_captured.v1": e.HoldCaptured(
        hold_id="hold_1",
        job_id="job_1",
        credits=5,
        slices=(FREE,),
        returned=(BOUGHT,),
        revoked=(REVOKED,),
        overage=(BOUGHT,),
    ),
    "ledger.hold_released.v1": e.HoldReleased(
        hold_id="hold_1", job_id="job_1", credits=4, returned=(BOUGHT,), revoked=(REVOKED,), reason="failed"
    ),
    "ledger.hold_expired.v1": e.HoldExpired(
        hold_id="hold_1", job_id="job_1", credits=4, deadline=AT, returned=(BOUGHT,), revoked=(REVOKED,)
    ),
    "ledger.hold_moved.v1": e.HoldMoved(
        hold_id="hold_1", to_hold_id="hold_2", from_job_id="job_1", to_job_id="job_2", credits=1, deadline=AT
    ),
    "ledger.lot_expired.v1": e.LotExpired(expired=BOUGHT, expires_at=AT),
    "ledger.debt_incurred.v1": e.DebtIncurred(credits=3, cause="reversal", reference="rev_1"),
    "ledger.debt_repaid.v1": e.DebtRepaid(credits=3, slices=(BOUGHT,)),
    "ledger.debt_forgiven.v1": e.DebtForgiven(credits=3, actor="operator:1", reason="goodwill"),
    "ledger.credits_reversed.v1": e.CreditsReversed(
        reversal_id="rev_1",
        lot_id="lot_1",
        cause="dispute",
        credits=500,
        asset="USD",
        rail="card",
        payment_id="pay_1",
        worth=MONEY.worth,
        left=BOUGHT,
        held=BOUGHT,
        holds=(e.RevokedHold("hold_1", (FREE, REVOKED)),),
        spent_credits=494,
        terms=TERMS,
    ),
    "ledger.reversal_restored.v1": e.ReversalRestored(reversal_id="rev_1", lot_id="lot_9", credits=500),
    "ledger.dispute_lost.v1": e.DisputeLost(reversal_id="rev_1"),
    "ledger.refund_opened.v1": e.RefundOpened(refund_id="refund_1", held=BOUGHT, amount_minor=4),
    "ledger.refund_sent.v1": e.RefundSent(
        refund_id="refund_1", slices=(BOUGHT,), asset="USD", rail="card", amount_minor=3
    ),
    "ledger.refund_failed.v1": e.RefundFailed(refund_id="refund_1", returned=(BOUGHT,), revoked=(REVOKED,)),
    "ledger.refund_left_unknown.v1": e.RefundLeftUnknown(refund_id="refund_1"),
    "ledger.credits_withdrawn.v1": e.CreditsWithdrawn(
        adjustment_id="adj_1", credits=3, slices=(BOUGHT,), actor="operator:1", reason="granted twice"
    ),
    "ledger.credits_moved_out.v1": e.CreditsMovedOut(to_account="acct_2", credits=3, slices=(BOUGHT,)),
    "ledger.credits_moved_in.v1": e.CreditsMovedIn(from_account="acct_1", credits=500, lots=(TERMS,)),
    "ledger.subscription_started.v2": e.SubscriptionStarted(
        subscription_id="sub_1", plan="pro", period_start=AT, period_end=LATER, payment_id="pay_1"
    ),
    "ledger.subscription_renewed.v1": e.SubscriptionRenewed(
        subscription_id="sub_1", plan="pro", period_start=AT, period_end=LATER, payment_id="pay_1"
    ),
    "ledger.plan_upgraded.v1": e.PlanUpgraded(
        subscription_id="sub_1", from_plan="starter", to_plan="pro", at=AT
    ),
    "ledger.downgrade_scheduled.v1": e.DowngradeScheduled(
        subscription_id="sub_1", from_plan="pro", to_plan="starter", at=LATER
    ),
    "ledger.cancellation_scheduled.v1": e.CancellationScheduled(subscription_id="sub_1", at=LATER),
    "ledger.subscription_resumed.v1": e.SubscriptionResumed(subscription_id="sub_1"),
    "ledger.period_revoked.v1": e.PeriodRevoked(
        subscription_id="prepaid_1", payment_id="pay_1", period_start=AT, at=AT
    ),
    "ledger.period_restored.v1": e.PeriodRestored(
        subscription_id="prepaid_1", payment_id="pay_1", period_start=AT, until=AT
    ),
    "ledger.subscription_ended.v1": e.SubscriptionEnded(subscription_id="sub_1", at=AT, reason="unpaid"),
    "ledger.usage_warned.v1": e.UsageWarned(percent=80, period="2026-11-22", used=16, granted=20),
    "ledger.earning_scheduled.v1": e.EarningScheduled(
        schedule_id="lot_5",
        consideration=MONEY,
        first_day=date(2026, 11, 22),
        days=30,
        plan="unlimited",
        reference="sub_1",
    ),
    "ledger.revenue_earned.v1": e.RevenueEarned(
        schedule_id="lot_5",
        day=date(2026, 11, 22),
        ordinal=1,
        asset="USD",
        rail="card",
        worth=Worth(14, 1, 0, 15, 1),
    ),
    "ledger.earning_stopped.v1": e.EarningStopped(
        schedule_id="lot_5", asset="USD", rail="card", worth=MONEY.worth, unearned=Worth(400, 45, 20, 420, 45)
    ),
    "ledger.overage_billed.v1": e.OverageBilled(credits=5, consideration=MONEY),
}
