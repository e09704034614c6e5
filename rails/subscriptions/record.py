"""A subscription as of when its rail was last asked: the row of `rail_subscriptions`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any

from rails.recurring import (
    OVER,
    Invoice,
    InvoiceStatus,
    Offer,
    SubscriptionObservation,
    SubscriptionStatus,
)

PREFIX = "subscr"
"""Of our own ids of subscriptions."""
NOT_OPENED = timedelta(minutes=10)
"""For so long a page that was asked for may not be there yet: then whoever asked has given up."""
PAGE_GRACE = timedelta(minutes=5)
"""After the end of a page, until the rail says so, too."""
LOOKED_AT = timedelta(days=1)
"""How often a subscription is asked about at least, whether or not anything is notified."""
TROUBLED = timedelta(hours=1)
"""The same of one that waits for money."""
LAST_INVOICE = timedelta(days=21)
"""So long after its end a subscription that bills use is asked about: its last invoice may be tried for weeks."""
_WAITS_FOR_MONEY = (
    SubscriptionStatus.INCOMPLETE,
    SubscriptionStatus.PAST_DUE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionRecord:
    """How a subscription stands."""

    subscription_id: str
    account_id: str
    """Who opened it."""
    rail: str
    status: SubscriptionStatus
    plan: str
    """What is charged for now; before the first payment, what it was opened for."""
    length: str
    opened_at: datetime
    asked_at: datetime
    """When the rail was asked for all this."""
    due_at: datetime
    """When it is asked about next, if it is watched."""
    watched: bool
    page_expires_at: datetime
    page_reference: str | None = None
    page_url: str | None = None
    reference: str | None = None
    """The rail's own name of it, once there is one."""
    period_start: datetime | None = None
    period_end: datetime | None = None
    cancels: bool = False
    next_plan: str | None = None
    next_length: str | None = None
    pending_plan: str | None = None
    pending_length: str | None = None
    next_attempt_at: datetime | None = None
    pay_url: str | None = None
    overage_usd_minor: int = 0
    """What it bills for each credit that is used beyond the plan; 0: it bills none."""

    @property
    def offer(self) -> Offer:
        """What is charged for now."""
        return Offer(plan=self.plan, length=self.length)

    @property
    def is_over(self) -> bool:
        """Whether nothing comes after this."""
        return self.status in OVER

    @property
    def is_opening(self) -> bool:
        """Whether nobody has paid yet."""
        return self.status in (SubscriptionStatus.OPENING, SubscriptionStatus.INCOMPLETE)

    def to_row(self) -> dict[str, Any]:
        """The row."""
        return {**asdict(self), "status": self.status.value}


_NAMES = tuple(field.name for field in fields(SubscriptionRecord))


def record_of(row: Mapping[str, Any]) -> SubscriptionRecord:
    """The record of a row."""
    values = {name: row[name] for name in _NAMES}
    return SubscriptionRecord(**{**values, "status": SubscriptionStatus(row["status"])})


def opened_record(
    subscription_id: str,
    account_id: str,
    rail: str,
    offer: Offer,
    *,
    now: datetime,
    page_expires_at: datetime,
) -> SubscriptionRecord:
    """The intent to subscribe, stored before the rail is asked for anything."""
    return SubscriptionRecord(
        subscription_id=subscription_id,
        account_id=account_id,
        rail=rail,
        status=SubscriptionStatus.OPENING,
        plan=offer.plan,
        length=offer.length,
        opened_at=now,
        asked_at=now,
        due_at=now + NOT_OPENED,
        watched=True,
        page_expires_at=page_expires_at,
    )


def with_observation(
    record: SubscriptionRecord, seen: SubscriptionObservation, asked_at: datetime
) -> SubscriptionRecord:
    """The record after an answer of the rail; unchanged by one that was asked for before what is known."""
    if asked_at < record.asked_at:
        return record
    offer = seen.offer or record.offer
    unpaid = _unpaid(seen)
    is_opening = seen.status is SubscriptionStatus.OPENING
    changed = replace(
        record,
        status=seen.status,
        plan=offer.plan,
        length=offer.length,
        asked_at=asked_at,
        reference=seen.reference or record.reference,
        page_url=record.page_url if is_opening else None,
        period_start=seen.period_start or record.period_start,
        period_end=seen.period_end or record.period_end,
        cancels=seen.cancels,
        next_plan=None if seen.next_offer is None else seen.next_offer.plan,
        next_length=None if seen.next_offer is None else seen.next_offer.length,
        pending_plan=None if seen.pending_offer is None else seen.pending_offer.plan,
        pending_length=None if seen.pending_offer is None else seen.pending_offer.length,
        next_attempt_at=None if unpaid is None else unpaid.next_attempt_at,
        pay_url=None if unpaid is None else unpaid.pay_url,
        overage_usd_minor=_overage(record, seen),
    )
    watched = not changed.is_over or _is_billed_still(changed, asked_at)
    return replace(changed, watched=watched, due_at=_next_look(changed, asked_at))


def _overage(record: SubscriptionRecord, seen: SubscriptionObservation) -> int:
    if seen.overage is not None:
        return seen.overage.minor
    return record.overage_usd_minor if seen.status in OVER else 0


def _is_billed_still(record: SubscriptionRecord, now: datetime) -> bool:
    """Whether an invoice of what was used beyond the plan may come, or be paid, after the end."""
    if not record.overage_usd_minor or record.period_end is None:
        return False
    return now < record.period_end + LAST_INVOICE


def _unpaid(seen: SubscriptionObservation) -> Invoice | None:
    """The newest invoice that the payer may pay by hand."""
    if seen.status in OVER:
        return None
    return next((each for each in reversed(seen.invoices) if each.status is InvoiceStatus.OPEN), None)


def _next_look(record: SubscriptionRecord, now: datetime) -> datetime:
    if record.status is SubscriptionStatus.OPENING:
        return max(record.page_expires_at, now) + PAGE_GRACE
    if record.status in _WAITS_FOR_MONEY or record.pending_plan is not None:
        return now + TROUBLED
    soon = now + LOOKED_AT
    return (
        min(soon, record.period_end + PAGE_GRACE) if record.period_end and record.period_end > now else soon
    )


def never_opened(record: SubscriptionRecord, now: datetime) -> SubscriptionRecord | None:
    """The record of a page that nobody was given, once nobody waits for it; None if that may still come."""
    if record.page_reference is not None or now < record.opened_at + NOT_OPENED:
        return None
    return replace(record, status=SubscriptionStatus.EXPIRED, watched=False)
