"""A credit account. `decide` may refuse a request; `evolve` never refuses a fact."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from ledger.domain import commands as c
from ledger.domain import events as e
from ledger.domain import granting, holding, merging, refunds, reversals, revoking, subscriptions
from ledger.domain.state import Account
from ledger.domain.touched import check_touched
from ledger.domain.upcasts import UPCASTS
from ledger.log.model import Category, Event

_DECIDERS: dict[type[c.Command], Callable[[Account, Any, datetime], list[Event]]] = {
    c.HoldCredits: holding.decide_hold,
    c.CaptureHold: holding.decide_capture,
    c.ReleaseHold: holding.decide_release,
    c.ExpireHold: holding.decide_expiry,
    c.MoveHold: holding.decide_move,
    c.GrantCredits: granting.decide_grant,
    c.AdjustCredits: granting.decide_adjustment,
    c.ForgiveDebt: granting.decide_forgiveness,
    c.ExpireLots: granting.decide_lot_expiry,
    c.ReverseCredits: reversals.decide_reversal,
    c.RestoreReversal: reversals.decide_restoration,
    c.LoseDispute: reversals.decide_loss,
    c.OpenRefund: refunds.decide_refund,
    c.ResolveRefund: refunds.decide_resolution,
    c.PayPeriod: subscriptions.decide_period,
    c.RevokePeriod: revoking.decide_revocation,
    c.RestorePeriod: revoking.decide_restoration,
    c.ChangePlan: subscriptions.decide_change,
    c.CancelSubscription: subscriptions.decide_cancellation,
    c.ResumeSubscription: subscriptions.decide_resumption,
    c.EndSubscription: subscriptions.decide_end,
    c.EarnRevenue: subscriptions.decide_earning,
    c.StopEarning: subscriptions.decide_stop,
    c.BillOverage: subscriptions.decide_billing,
}

_EVOLVERS: dict[type[Event], Callable[[Account, Any], Account]] = {
    e.CreditsHeld: holding.credits_held,
    e.HoldCaptured: holding.captured,
    e.HoldReleased: holding.released,
    e.HoldExpired: holding.expired,
    e.HoldMoved: holding.moved,
    e.UsageWarned: holding.warned,
    e.CreditsGranted: granting.granted,
    e.LotExpired: granting.lot_expired,
    e.CreditsWithdrawn: granting.withdrawn,
    e.DebtIncurred: granting.debt_incurred,
    e.DebtRepaid: granting.debt_repaid,
    e.DebtForgiven: granting.debt_forgiven,
    e.CreditsReversed: reversals.reversed_credits,
    e.ReversalRestored: reversals.restored_or_lost,
    e.DisputeLost: reversals.restored_or_lost,
    e.RefundOpened: refunds.opened,
    e.RefundSent: refunds.sent,
    e.RefundFailed: refunds.failed,
    e.RefundLeftUnknown: refunds.left_unknown,
    e.CreditsMovedOut: merging.moved_out,
    e.CreditsMovedIn: merging.moved_in,
    e.SubscriptionStarted: subscriptions.begun,
    e.SubscriptionRenewed: subscriptions.begun,
    e.PeriodRevoked: revoking.revoked_or_restored,
    e.PeriodRestored: revoking.revoked_or_restored,
    e.PlanUpgraded: subscriptions.changed,
    e.DowngradeScheduled: subscriptions.changed,
    e.CancellationScheduled: subscriptions.changed,
    e.SubscriptionResumed: subscriptions.changed,
    e.SubscriptionEnded: subscriptions.changed,
    e.EarningScheduled: subscriptions.scheduled,
    e.RevenueEarned: subscriptions.earned,
    e.EarningStopped: subscriptions.stopped,
    e.OverageBilled: subscriptions.billed,
}


def decide(account: Account, command: c.Command, now: datetime) -> list[Event]:
    """Answer one command with its events, or raise a `Refusal`. Pure: no clock, no IO, no randomness."""
    return _DECIDERS[type(command)](account, command, now)


def evolve(account: Account, event: Event) -> Account:
    """The account after a fact. Total: events of other kinds of streams leave it as it is."""
    evolver = _EVOLVERS.get(type(event))
    return account if evolver is None else evolver(account, event)


ACCOUNTS: Category[Account] = Category(
    prefix="acct",
    events=e.EVENTS,
    initial=Account(),
    evolve=evolve,
    follow_up=merging.note_what_is_left,
    upcasts=UPCASTS,
    check=check_touched,
    snapshot_type=Account,
    snapshot_version=6,
)
"""Streams of credit accounts."""
