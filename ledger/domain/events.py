"""What can happen to a credit account. Stored names are data and never change their meaning.

Every event carries the credits and the parts of considerations that it moves, so that its
postings are a pure function of the event alone.
"""

from __future__ import annotations

from datetime import date, datetime

import msgspec

from ledger.domain.consideration import Consideration, Slice, Worth
from ledger.domain.lots import ClosedLot, LotTerms
from ledger.domain.state import Dispute
from ledger.log.model import Event
from ledger.plans import Plan


class CreditsGranted(Event, frozen=True, kw_only=True):
    """A lot was granted."""

    lot_id: str
    source: str
    credits: int
    granted_at: datetime
    priority: int
    expires_at: datetime | None = None
    consideration: Consideration | None = None
    reference: str = ""
    """What it came from: a payment id, a subscription id, an adjustment id."""
    plan: str = ""
    period: str = ""
    """For allowances and subscriptions: the period it was granted for, `2026-11-22` or its start."""
    actor: str = ""
    """Who decided it, if it was granted by hand."""
    reason: str = ""


class CreditsHeld(Event, frozen=True, kw_only=True):
    """Credits were reserved for a job."""

    hold_id: str
    job_id: str
    credits: int
    deadline: datetime
    slices: tuple[Slice, ...]

    @property
    def allowance_credits(self) -> int:
        """How many of the credits came from a plan's daily allowance."""
        return sum(portion.credits for portion in self.slices if portion.source == "allowance")


class HoldCaptured(Event, frozen=True, kw_only=True):
    """Held credits were spent; the rest of the hold went back."""

    hold_id: str
    job_id: str
    credits: int
    """All that was spent: the slices and the overage."""
    slices: tuple[Slice, ...]
    """Spent out of the hold."""
    returned: tuple[Slice, ...] = ()
    """Not spent, back in their lots."""
    revoked: tuple[Slice, ...] = ()
    """Not spent, and gone because their money had gone back to the payer."""
    overage: tuple[Slice, ...] = ()
    """Spent beyond the hold, straight from what was available."""


class HoldReleased(Event, frozen=True, kw_only=True):
    """A hold was let go: its job cost nothing."""

    hold_id: str
    job_id: str
    credits: int
    returned: tuple[Slice, ...]
    revoked: tuple[Slice, ...] = ()
    reason: str = ""


class HoldExpired(Event, frozen=True, kw_only=True):
    """A hold's deadline passed before anything resolved it."""

    hold_id: str
    job_id: str
    credits: int
    deadline: datetime
    returned: tuple[Slice, ...]
    revoked: tuple[Slice, ...] = ()


class HoldMoved(Event, frozen=True, kw_only=True):
    """A hold now serves another job, without its credits being free in between."""

    hold_id: str
    to_hold_id: str
    from_job_id: str
    to_job_id: str
    credits: int
    deadline: datetime


class LotExpired(Event, frozen=True, kw_only=True):
    """Credits lapsed unused. A lot whose slices come back after its expiry lapses more than once."""

    expired: Slice
    expires_at: datetime


class DebtIncurred(Event, frozen=True, kw_only=True):
    """Credits were used whose money went back."""

    credits: int
    cause: str
    """`reversal`: they had been spent before; `capture`: they were held then and spent now; `merge`."""
    reference: str
    """The reversal's, hold's or account's id."""


class DebtRepaid(Event, frozen=True, kw_only=True):
    """Paid credits made up for a debt."""

    credits: int
    slices: tuple[Slice, ...]


class DebtForgiven(Event, frozen=True, kw_only=True):
    """A person in charge let a debt go, or it followed its guest to another account."""

    credits: int
    actor: str
    reason: str


class RevokedHold(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """An open hold (or refund) as it stands after a reversal took the money behind some of its slices."""

    hold_id: str
    slices: tuple[Slice, ...]


class CreditsReversed(Event, frozen=True, kw_only=True):
    """Money behind a lot went back to the payer without our doing."""

    reversal_id: str
    lot_id: str
    cause: str
    """`dispute`, `refund` (outside of us) or `reversal`."""
    credits: int
    """How many credits the money stood for."""
    asset: str
    rail: str
    payment_id: str
    worth: Worth
    """The money that went back."""
    left: Slice | None = None
    """Unheld credits of the lot that went with it, and the worth they carried."""
    held: Slice | None = None
    """Held credits that lost their money, and the worth they carried."""
    holds: tuple[RevokedHold, ...] = ()
    spent_credits: int = 0
    """Credits already spent; they become a debt."""
    terms: LotTerms | None = None
    """Of a dispute: the lot to grant should it be won."""


class ReversalRestored(Event, frozen=True, kw_only=True):
    """A dispute was won: the money came back. A grant of the credits follows."""

    reversal_id: str
    lot_id: str
    credits: int


class DisputeLost(Event, frozen=True, kw_only=True):
    """A dispute is over and the money stays away."""

    reversal_id: str


class RefundOpened(Event, frozen=True, kw_only=True):
    """Unspent credits were held while we send their money back."""

    refund_id: str
    held: Slice
    amount_minor: int
    """What is to be sent, in minor units of the slice's asset."""


class RefundSent(Event, frozen=True, kw_only=True):
    """The money of a refund has left; its credits are gone."""

    refund_id: str
    slices: tuple[Slice, ...]
    asset: str
    rail: str
    amount_minor: int
    """What was sent, in minor units of the asset."""


class RefundFailed(Event, frozen=True, kw_only=True):
    """A refund did not happen; its credits are back."""

    refund_id: str
    returned: tuple[Slice, ...]
    revoked: tuple[Slice, ...] = ()


class RefundLeftUnknown(Event, frozen=True, kw_only=True):
    """Nobody can say yet whether a refund was sent; its credits stay held."""

    refund_id: str


class CreditsWithdrawn(Event, frozen=True, kw_only=True):
    """Credits were taken away by hand."""

    adjustment_id: str
    credits: int
    slices: tuple[Slice, ...]
    actor: str
    reason: str


class CreditsMovedOut(Event, frozen=True, kw_only=True):
    """A guest signed in: paid credits left for the person's account."""

    to_account: str
    credits: int
    slices: tuple[Slice, ...]


class CreditsMovedIn(Event, frozen=True, kw_only=True):
    """A guest signed in: paid credits arrived with their considerations."""

    from_account: str
    credits: int
    lots: tuple[LotTerms, ...]
    closed: tuple[ClosedLot, ...] = ()
    """Used-up lots that the guest remembered: a reversal will ask the person."""
    disputes: tuple[Dispute, ...] = ()
    """Open disputes: should one be won, the credits come back to the person."""


class SubscriptionStarted(Event, frozen=True, kw_only=True):
    """The first period of a subscription was paid."""

    subscription_id: str
    plan: str
    period_start: datetime
    period_end: datetime
    payment_id: str = ""
    terms: Plan | None = None
    """The plan as it was sold; None in events of before: the plan that has this name today."""
    lasts_until: datetime | None = None
    """Until when it brings the plan, if it was paid late; else as long as the period."""
    paid_at: datetime | None = None
    """By our clock; None in events of before."""


class SubscriptionRenewed(Event, frozen=True, kw_only=True):
    """A further period of a subscription was paid: a later one, or one that others had overtaken."""

    subscription_id: str
    plan: str
    period_start: datetime
    period_end: datetime
    payment_id: str = ""
    terms: Plan | None = None
    """The plan as it was sold; None in events of before: the plan that has this name today."""
    lasts_until: datetime | None = None
    """Until when it brings the plan, if it was paid late; else as long as the period."""
    paid_at: datetime | None = None
    """By our clock; None in events of before."""


class PeriodRevoked(Event, frozen=True, kw_only=True):
    """A period, or a larger plan for the rest of it, brings its plan no more: its money went back."""

    subscription_id: str
    payment_id: str
    period_start: datetime
    at: datetime


class PeriodRestored(Event, frozen=True, kw_only=True):
    """A revoked period, or larger plan, brings its plan again: its money came back."""

    subscription_id: str
    payment_id: str
    period_start: datetime
    until: datetime
    """When it is over now: later by the time for which it was revoked; of a larger plan, the end of its period."""


class PlanUpgraded(Event, frozen=True, kw_only=True):
    """A larger plan took effect at once."""

    subscription_id: str
    from_plan: str
    to_plan: str
    at: datetime
    terms: Plan | None = None
    """The larger plan as it was sold."""
    payment_id: str = ""
    """What paid for it; empty if it was paid out of what the provider kept, and in events of before."""


class DowngradeScheduled(Event, frozen=True, kw_only=True):
    """A smaller plan will take effect when the period ends."""

    subscription_id: str
    from_plan: str
    to_plan: str
    at: datetime
    """The end of the period."""


class CancellationScheduled(Event, frozen=True, kw_only=True):
    """The subscription will end with its period."""

    subscription_id: str
    at: datetime


class SubscriptionResumed(Event, frozen=True, kw_only=True):
    """A scheduled cancellation or downgrade was taken back."""

    subscription_id: str


class SubscriptionEnded(Event, frozen=True, kw_only=True):
    """The subscription is over."""

    subscription_id: str
    at: datetime
    reason: str = ""


class UsageWarned(Event, frozen=True, kw_only=True):
    """A share of a period's allowance has been used."""

    percent: int
    """80 or 100."""
    period: str
    used: int
    granted: int


class EarningScheduled(Event, frozen=True, kw_only=True):
    """Money for a plan without countable credits will be earned day by day."""

    schedule_id: str
    consideration: Consideration
    first_day: date
    days: int
    plan: str = ""
    reference: str = ""


class RevenueEarned(Event, frozen=True, kw_only=True):
    """A day of a schedule has passed."""

    schedule_id: str
    day: date
    ordinal: int
    """1, 2, 3 … up to the schedule's number of days."""
    asset: str
    rail: str
    worth: Worth


class EarningStopped(Event, frozen=True, kw_only=True):
    """A schedule ended early because its money went back; the rest is never earned."""

    schedule_id: str
    asset: str
    rail: str
    worth: Worth
    """The money that went back."""
    unearned: Worth
    """What had not been earned of it."""


class OverageBilled(Event, frozen=True, kw_only=True):
    """Credits used beyond the allowance were paid for."""

    credits: int
    consideration: Consideration


EVENTS: dict[str, type[Event]] = {
    "ledger.credits_granted.v1": CreditsGranted,
    "ledger.credits_held.v1": CreditsHeld,
    "ledger.hold_captured.v1": HoldCaptured,
    "ledger.hold_released.v1": HoldReleased,
    "ledger.hold_expired.v1": HoldExpired,
    "ledger.hold_moved.v1": HoldMoved,
    "ledger.lot_expired.v1": LotExpired,
    "ledger.debt_incurred.v1": DebtIncurred,
    "ledger.debt_repaid.v1": DebtRepaid,
    "ledger.debt_forgiven.v1": DebtForgiven,
    "ledger.credits_reversed.v1": CreditsReversed,
    "ledger.reversal_restored.v1": ReversalRestored,
    "ledger.dispute_lost.v1": DisputeLost,
    "ledger.refund_opened.v1": RefundOpened,
    "ledger.refund_sent.v1": RefundSent,
    "ledger.refund_failed.v1": RefundFailed,
    "ledger.refund_left_unknown.v1": RefundLeftUnknown,
    "ledger.credits_withdrawn.v1": CreditsWithdrawn,
    "ledger.credits_moved_out.v1": CreditsMovedOut,
    "ledger.credits_moved_in.v1": CreditsMovedIn,
    "ledger.subscription_started.v2": SubscriptionStarted,
    "ledger.subscription_renewed.v1": SubscriptionRenewed,
    "ledger.period_revoked.v1": PeriodRevoked,
    "ledger.period_restored.v1": PeriodRestored,
    "ledger.plan_upgraded.v1": PlanUpgraded,
    "ledger.downgrade_scheduled.v1": DowngradeScheduled,
    "ledger.cancellation_scheduled.v1": CancellationScheduled,
    "ledger.subscription_resumed.v1": SubscriptionResumed,
    "ledger.subscription_ended.v1": SubscriptionEnded,
    "ledger.usage_warned.v1": UsageWarned,
    "ledger.earning_scheduled.v1": EarningScheduled,
    "ledger.revenue_earned.v1": RevenueEarned,
    "ledger.earning_stopped.v1": EarningStopped,
    "ledger.overage_billed.v1": OverageBilled,
}
"""Every current event by its stored name."""

EVENT_NAMES: dict[type[Event], str] = {kind: name for name, kind in EVENTS.items()}
"""The name under which each is stored."""
