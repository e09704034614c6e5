"""What a payment is for that a rail invoiced by itself. Frozen with the payment: a later catalogue changes nothing."""

from __future__ import annotations

from datetime import datetime

import msgspec

from ledger.plans import Plan


class PeriodInvoiced(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="period"):
    """A period of a plan."""

    subscription_id: str
    plan: Plan
    starts_at: datetime
    ends_at: datetime

    @property
    def credits(self) -> int:
        """Credits that it brings as a lot."""
        return 0 if self.plan.period == "day" else self.plan.credits


class ChangeInvoiced(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="change"):
    """A larger plan for the rest of a period."""

    subscription_id: str
    current: Plan
    target: Plan
    credits: int
    """Credits that it brings as a lot, by the time that was left when it was booked."""


Invoiced = PeriodInvoiced | ChangeInvoiced
