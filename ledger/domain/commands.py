"""What can be asked of a credit account."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from ledger.domain.consideration import Consideration, Worth
from ledger.domain.lots import Source
from ledger.plans import Plan


class Command(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of every command. Credits are whole numbers of the unit of service."""


class GrantCredits(Command, frozen=True, kw_only=True):
    """Grant a lot. A paid lot first makes up for a debt."""

    lot_id: str
    credits: int
    source: Source = Source.PAYMENT
    expires_at: datetime | None = None
    priority: int | None = None
    """None means the priority of its source."""
    consideration: Consideration | None = None
    reference: str = ""
    """A payment id or the like; of a paid lot by default its payment id."""
    plan: str = ""


class HoldCredits(Command, frozen=True, kw_only=True):
    """Reserve credits for a job until a deadline."""

    hold_id: str
    job_id: str
    credits: int
    deadline: datetime
    only_lot: str | None = None
    """Take from this lot alone (pay per image: that money pays for that image)."""
    allowance: bool = True
    """Whether the daily allowance may be used (no, where an address has had its share today)."""
    overage_lot: str = ""
    """The id of the lot that `overage_limit` may grant."""
    overage_limit: int = 0
    """Credits that may be used beyond what is there in this period, to be billed; 0 is a hard cut-off."""


class CaptureHold(Command, frozen=True, kw_only=True):
    """Spend a hold: all of it, a part, or explicitly more."""

    hold_id: str
    credits: int | None = None
    """None means all that is held. Less returns the rest; more needs `overage_limit`."""
    overage_limit: int = 0
    """How many credits beyond the hold may be taken from what is available."""


class ReleaseHold(Command, frozen=True, kw_only=True):
    """Let a hold go."""

    hold_id: str
    reason: str = ""
    """A short code: `failed`, `cancelled`, `superseded`, `blocked`."""


class ExpireHold(Command, frozen=True, kw_only=True):
    """Close a hold whose deadline has passed."""

    hold_id: str


class MoveHold(Command, frozen=True, kw_only=True):
    """Let a hold serve another job instead, in one step."""

    hold_id: str
    to_hold_id: str
    """May be the same id."""
    job_id: str
    deadline: datetime


class ExpireLots(Command, frozen=True, kw_only=True):
    """Book the breakage of lots whose time is over; at most `limit` lots."""

    limit: int = 100


class ReverseCredits(Command, frozen=True, kw_only=True):
    """The money behind a lot, or a part of it, went back to the payer without our doing."""

    reversal_id: str
    lot_id: str
    credits: int
    """How many of the lot's credits that money stood for."""
    cause: str
    """`dispute` (it may be won), `refund` (outside of us) or `reversal`."""
    asset: str
    rail: str
    payment_id: str
    worth: Worth
    """The money that went back."""


class RestoreReversal(Command, frozen=True, kw_only=True):
    """A dispute was won."""

    reversal_id: str
    lot_id: str
    """The id of the lot to be granted."""


class LoseDispute(Command, frozen=True, kw_only=True):
    """A dispute is over and lost."""

    reversal_id: str


class OpenRefund(Command, frozen=True, kw_only=True):
    """Hold unspent credits of a paid lot while their money is sent back."""

    refund_id: str
    lot_id: str
    credits: int | None = None
    """None means everything left in the lot."""
    amount_minor: int | None = None
    """At most, and by default exactly, what was paid for those credits (net, tax and fee)."""


class ResolveRefund(Command, frozen=True, kw_only=True):
    """Say how a refund ended: `sent`, `failed` or `unknown`."""

    refund_id: str
    outcome: str


class AdjustCredits(Command, frozen=True, kw_only=True):
    """Grant (positive) or take away (negative) credits by hand."""

    adjustment_id: str
    lot_id: str
    """The id of the lot a positive adjustment grants."""
    credits: int
    actor: str
    reason: str
    """A short code or sentence without personal data."""
    expires_at: datetime | None = None


class ForgiveDebt(Command, frozen=True, kw_only=True):
    """Let a debt go."""

    credits: int
    actor: str
    reason: str


class PayPeriod(Command, frozen=True, kw_only=True):
    """A subscription period was paid: start or renew, and grant what it brings, once."""

    subscription_id: str
    plan: Plan
    period_start: datetime
    period_end: datetime
    lot_id: str
    """The id of the lot, or of the earning schedule of a plan without countable credits."""
    consideration: Consideration | None = None


class RevokePeriod(Command, frozen=True, kw_only=True):
    """The money of a period went back: it brings its plan no more."""

    subscription_id: str
    payment_id: str


class RestorePeriod(Command, frozen=True, kw_only=True):
    """The money of a period came back: it brings its plan for as long as it still would have."""

    subscription_id: str
    payment_id: str
    schedule_id: str = ""
    """The id of the schedule by which `consideration` is earned."""
    consideration: Consideration | None = None
    """What came back of a plan without countable credits."""


class ChangePlan(Command, frozen=True, kw_only=True):
    """Change to a larger plan at once, or to a smaller one when the period ends."""

    subscription_id: str
    current: Plan
    target: Plan
    lot_id: str
    consideration: Consideration | None = None
    """What was paid for the rest of the period, if anything."""
    at: datetime | None = None
    """From when on the rest of the period is paid for; None: from now on. An upgrade brings credits for that rest."""


class CancelSubscription(Command, frozen=True, kw_only=True):
    """End the subscription with its period."""

    subscription_id: str


class ResumeSubscription(Command, frozen=True, kw_only=True):
    """Take back a scheduled cancellation or downgrade."""

    subscription_id: str


class EndSubscription(Command, frozen=True, kw_only=True):
    """End the subscription now."""

    subscription_id: str
    reason: str = ""


class EarnRevenue(Command, frozen=True, kw_only=True):
    """Book the days of earning schedules that have passed; at most `limit` days."""

    limit: int = 100


class StopEarning(Command, frozen=True, kw_only=True):
    """The money behind a schedule went back."""

    schedule_id: str
    worth: Worth


class BillOverage(Command, frozen=True, kw_only=True):
    """Credits used beyond the allowance were paid for."""

    credits: int
    consideration: Consideration


NAMES: Mapping[type[Command], str] = {
    GrantCredits: "GrantCredits",
    HoldCredits: "HoldCredits",
    CaptureHold: "CaptureHold",
    ReleaseHold: "ReleaseHold",
    ExpireHold: "ExpireHold",
    MoveHold: "MoveHold",
    ExpireLots: "ExpireLots",
    ReverseCredits: "ReverseCredits",
    RestoreReversal: "RestoreReversal",
    LoseDispute: "LoseDispute",
    OpenRefund: "OpenRefund",
    ResolveRefund: "ResolveRefund",
    AdjustCredits: "AdjustCredits",
    ForgiveDebt: "ForgiveDebt",
    PayPeriod: "PayPeriod",
    RevokePeriod: "RevokePeriod",
    RestorePeriod: "RestorePeriod",
    ChangePlan: "ChangePlan",
    CancelSubscription: "CancelSubscription",
    ResumeSubscription: "ResumeSubscription",
    EndSubscription: "EndSubscription",
    EarnRevenue: "EarnRevenue",
    StopEarning: "StopEarning",
    BillOverage: "BillOverage",
}
"""What a command is called in the digest that makes it the same when it is repeated: data, whatever its class is called."""
