"""The state of a credit account: what is open, never what is over."""

from __future__ import annotations

from datetime import UTC, date, datetime

import msgspec

from ledger.domain import lots as lots_
from ledger.domain.consideration import NOTHING, Consideration, Slice, Worth
from ledger.domain.holds import HoldMap
from ledger.domain.lots import ClosedLot, Lot, LotTerms, Source
from ledger.plans import Plan

CLOSED_LOTS_KEPT = 24
"""How many used-up paid lots are remembered for late disputes.

The first to be forgotten are those that were wholly spent and never touched: a lot that nobody
remembers counts as wholly spent, so that nothing is lost with them. Of the others the oldest go.
"""


MARKS = (80, 100)
"""Percent of a period's allowance at which its owner is told."""


class Usage(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What a plan's current period has granted and how much of it is spent."""

    period: str = ""
    granted: int = 0
    used: int = 0
    """Spent out of lots of this period."""
    warned_percent: int = 0
    overage: int = 0
    """Credits used beyond the allowance in this period."""


PERIODS_KEPT = 24
"""How many paid periods of a subscription are kept that are not over: those that last longest."""

STARTS_KEPT = 24
"""How many starts of paid periods are remembered. What began before all of them counts as granted."""

UPGRADES_KEPT = 8
"""How many larger plans of one period are kept: there are as many as there are plans above it."""

OTHERS_KEPT = 3
"""How many subscriptions are kept beside the newest."""


class Upgrade(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A larger plan for the rest of a period."""

    plan: str
    payment_id: str = ""
    terms: Plan | None = None
    revoked_at: datetime | None = None
    """Since when its money is not ours, and it brings nothing."""


class Period(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A paid period: from its start until its end it brings its plan."""

    plan: str
    start: datetime
    until: datetime
    terms: Plan | None = None
    """The plan as it was sold; None means the plan that has its name today."""
    payment_id: str = ""
    revoked_at: datetime | None = None
    """Since when its money is not ours, and it brings nothing."""
    upgrades: tuple[Upgrade, ...] = ()
    """Larger plans for the rest of it, in the order in which they were paid. `plan` and `terms` stay those it began with."""

    @property
    def brings(self) -> tuple[str, Plan | None]:
        """The plan that it brings, and that as it was sold: the last upgrade whose money is ours."""
        for upgrade in reversed(self.upgrades):
            if upgrade.revoked_at is None:
                return upgrade.plan, upgrade.terms
        return self.plan, self.terms


class Subscription(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A paid plan of an account. Its newest period is the one with the latest start."""

    subscription_id: str
    plan: str
    """Of the newest period."""
    period_start: datetime
    period_end: datetime
    granted: int = 0
    """Credits granted for the newest period, upgrades included."""
    next_plan: str = ""
    """The smaller plan that takes effect at the end of the period."""
    cancels: bool = False
    """It will end with its period."""
    ended_at: datetime | None = None
    periods: tuple[Period, ...] = ()
    """Paid periods by their start: the one that lasts longest, and those that were not over when it was last paid."""
    starts: tuple[datetime, ...] = ()
    """When the periods that were granted began, in order."""

    @property
    def lasts_until(self) -> datetime:
        """When the last of its paid periods is over; when the newest began if there are none."""
        ends = [period.until for period in self.periods if period.revoked_at is None]
        return max(ends, default=self.period_start)

    @property
    def newest_until(self) -> datetime:
        """When the newest period is over; later than `period_end` if it was paid late."""
        return max((p.until for p in self.periods if p.start == self.period_start), default=self.period_end)

    def has_granted(self, start: datetime) -> bool:
        """Whether the period that begins then was granted, as far as anybody remembers."""
        return start in self.starts or (len(self.starts) == STARTS_KEPT and start < self.starts[0])


class Refund(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A refund of ours on its way."""

    refund_id: str
    held: tuple[Slice, ...]
    amount_minor: int
    asset: str
    rail: str
    unknown: bool = False


class Dispute(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A dispute that may still be won. Also stored in events, where it follows a guest to a person."""

    reversal_id: str
    lot_id: str
    terms: LotTerms
    """What to grant should it be won; `granted_at` is when the money went."""


class Schedule(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Money that is earned day by day."""

    schedule_id: str
    consideration: Consideration
    first_day: date
    days: int
    earned_days: int = 0
    earned: Worth = NOTHING


class AccountStatus(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Everything about an account that a hold or a capture does not change."""

    allowance_day: str = ""
    """The last UTC day an allowance was granted for, `2026-11-22`."""
    allowance_granted: int = 0
    """Credits granted for that day, over all plans held that day."""
    subscription: Subscription | None = None
    """The one whose newest period was paid last."""
    others: tuple[Subscription, ...] = ()
    """Further subscriptions, the one that was the newest last first."""
    refunds: tuple[Refund, ...] = ()
    disputes: tuple[Dispute, ...] = ()
    closed: tuple[ClosedLot, ...] = ()
    schedules: tuple[Schedule, ...] = ()
    overage_owed: int = 0
    """Credits used beyond allowances and not billed yet."""
    merged_into: str = ""

    def subscriptions(self) -> tuple[Subscription, ...]:
        """All that are kept, the newest first."""
        return self.others if self.subscription is None else (self.subscription, *self.others)

    def find_subscription(self, subscription_id: str) -> Subscription | None:
        """The subscription with this id."""
        for subscription in self.subscriptions():
            if subscription.subscription_id == subscription_id:
                return subscription
        return None


class Account(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A credit account. Frozen: every event makes a new one that shares what did not change."""

    lots: tuple[Lot, ...] = ()
    """Open lots in burn-down order."""
    holds: HoldMap = ()
    debt: int = 0
    usage: Usage = Usage()
    status: AccountStatus = AccountStatus()

    def posted(self, now: datetime) -> int:
        """Credits owned: available and held. Never negative."""
        return lots_.available(self.lots, now) + self.held()

    def held(self) -> int:
        """Credits reserved by holds and refunds. Never negative."""
        return sum(lot.held for lot in self.lots)

    def available(self, now: datetime) -> int:
        """Credits that a hold could take: posted − held."""
        return lots_.available(self.lots, now)


def with_lots(account: Account, lots: tuple[Lot, ...]) -> Account:
    """The account with other lots."""
    return Account(lots, account.holds, account.debt, account.usage, account.status)


def with_status(account: Account, status: AccountStatus) -> Account:
    """The account with another standing."""
    return Account(account.lots, account.holds, account.debt, account.usage, status)


def with_subscription(account: Account, changed: Subscription, *, is_newest: bool = False) -> Account:
    """Put a subscription in place of its former self, or beside the others; `is_newest`: before them."""
    status = account.status
    present, others = status.subscription, status.others
    if present is None or present.subscription_id == changed.subscription_id:
        present = changed
    elif is_newest:
        rest = [other for other in others if other.subscription_id != changed.subscription_id]
        present, others = changed, (present, *rest)[:OTHERS_KEPT]
    else:
        others = tuple(
            changed if other.subscription_id == changed.subscription_id else other for other in others
        )
    return with_status(account, msgspec.structs.replace(status, subscription=present, others=others))


def replace_lot(account: Account, changed: Lot) -> Account:
    """Put a lot in place of its former self. A used-up lot leaves; a paid one is remembered."""
    lot_id = changed.terms.lot_id
    if changed.left or changed.held:
        lots = tuple([changed if lot.terms.lot_id == lot_id else lot for lot in account.lots])
        return Account(lots, account.holds, account.debt, account.usage, account.status)
    account = with_lots(account, tuple([lot for lot in account.lots if lot.terms.lot_id != lot_id]))
    if changed.terms.consideration is None:
        return account
    return remembering(account, (_closed(changed),))


def remembering(account: Account, closed: tuple[ClosedLot, ...]) -> Account:
    """The account with these used-up lots remembered, and what is beyond the bound forgotten."""
    kept = [*account.status.closed, *closed]
    excess = len(kept) - CLOSED_LOTS_KEPT
    if excess > 0:
        plain = [place for place, lot in enumerate(kept) if lot.plain]
        others = [place for place, lot in enumerate(kept) if not lot.plain]
        gone = {*(plain + others)[:excess]}
        kept = [lot for place, lot in enumerate(kept) if place not in gone]
    return with_status(account, msgspec.structs.replace(account.status, closed=tuple(kept)))


def _closed(lot: Lot) -> ClosedLot:
    terms = lot.terms
    return ClosedLot(
        terms.lot_id,
        lot.spent + terms.spent_before,
        terms.priority,
        lot.reversed,
        terms.expires_at,
        # Of a lot that came from a guest, more may follow: it must be known then.
        partly=lot.withdrawn > 0 or terms.spent_before > 0,
    )


def lot_or_ghost(account: Account, portion: Slice) -> Lot:
    """The lot of a slice. Facts are never refused: a missing lot counts as an empty one."""
    lot = lots_.find(account.lots, portion.lot_id)
    if lot is not None:
        return lot
    terms = LotTerms(
        lot_id=portion.lot_id,
        source=portion.source,
        credits=0,
        granted_at=datetime.min.replace(tzinfo=UTC),
        priority=lots_.PRIORITY.get(Source.PAYMENT, 0),
    )
    return Lot(terms, 0)
