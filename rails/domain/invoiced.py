"""What a payment is for that a rail invoiced by itself. Frozen with the payment: a later catalogue changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from ledger.plans import Plan
from rails.domain.purchases import Arrival


class _Invoiced(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    subscription_id: str
    overage_credits: int = 0
    """Credits that were used beyond the plan, which the same invoice bills."""
    overage_minor: int = 0
    """Of its price, for those."""


class PeriodInvoiced(_Invoiced, frozen=True, kw_only=True, omit_defaults=True, tag="period"):
    """A period of a plan."""

    plan: Plan
    starts_at: datetime
    ends_at: datetime

    @property
    def credits(self) -> int:
        """Credits that it brings as a lot."""
        return 0 if self.plan.period == "day" else self.plan.credits


class ChangeInvoiced(_Invoiced, frozen=True, kw_only=True, omit_defaults=True, tag="change"):
    """A larger plan for the rest of a period."""

    current: Plan
    target: Plan
    credits: int
    """Credits that it brings as a lot, by the time that was left at `at`."""
    at: datetime | None = None
    """From when on the rest of the period was charged for; None: when it was booked, as it was once."""


class OverageInvoiced(_Invoiced, frozen=True, kw_only=True, omit_defaults=True, tag="overage"):
    """What was used beyond a plan, and nothing else."""

    @property
    def credits(self) -> int:
        """It brings nothing: all of it is used."""
        return 0


Invoiced = PeriodInvoiced | ChangeInvoiced | OverageInvoiced


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceShare:
    """What of an arrival goes toward the plan on an invoice, and what toward what was used beyond it."""

    minor: int
    """For the plan; the rest is for what was used beyond."""
    credits: int
    """Of the plan."""
    overage: int
    """Of what was used beyond."""


def invoice_shares(
    invoiced: Invoiced, due_minor: int, arrivals: Sequence[Arrival]
) -> Mapping[str, InvoiceShare]:
    """How the money of an invoice pays for it, the plan first. Nothing if it is too little.

    An invoice may be paid by several payments. What each says that it pays for is rounded, so that a unit may be missing
    for each but one of them; the provider has called it paid.
    """
    whole = sum(arrival.minor for arrival in arrivals)
    if not arrivals or whole + len(arrivals) - 1 < due_minor:
        return {}
    beyond = invoiced.overage_credits
    for_plan = max(0, min(due_minor - invoiced.overage_minor, whole - 1)) if beyond else whole
    shares: dict[str, InvoiceShare] = {}
    plan_before = beyond_before = 0
    for arrival in arrivals:
        plan_minor = min(arrival.minor, for_plan - plan_before)
        beyond_minor = arrival.minor - plan_minor
        overage = _part(beyond, beyond_before, beyond_minor, whole - for_plan)
        shares[arrival.money_ref] = InvoiceShare(
            # What would stand for nothing that was used stands for the plan.
            minor=plan_minor if overage else arrival.minor,
            credits=_part(invoiced.credits, plan_before, plan_minor, for_plan),
            overage=overage,
        )
        plan_before, beyond_before = plan_before + plan_minor, beyond_before + beyond_minor
    return shares


def _part(credits_: int, before: int, minor: int, whole: int) -> int:
    """Of some credits, those of the next units of their price; the parts sum to the whole."""
    return credits_ * (before + minor) // whole - credits_ * before // whole if whole else 0
