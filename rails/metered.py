"""The contract of a rail whose subscriptions bill what was used beyond a plan.

The core tells each use once or more often, under one name; the rail makes it count once, and bills the sum of a
period with the next invoice. What the rail has counted can be asked for: that is compared with what was told.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, runtime_checkable

from rails.contract import RailError

NAMES_KEPT_HOURS = 24
"""For at least so long a rail knows that it has counted something of this name. Later it may count it again."""


class NotBillable(RailError):
    """There is no subscription any more that could bill it; nothing was counted."""

    code = "usage_not_billable"
    message = "This subscription is over; nothing can be billed with it any more."


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageReport:
    """Credits that were used beyond a plan."""

    report_id: str
    """Under which it counts once."""
    credits: int
    used_at: datetime


@runtime_checkable
class Metered(Protocol):
    """A rail that bills use. Subscriptions are named by their rail's own reference."""

    async def report_usage(self, reference: str, report: UsageReport) -> None:
        """Count it, once for its name: toward the period in which it was used, or, if that was billed, the present one.

        Raises `NotBillable`. After `RailUnavailable` nobody knows whether it counts.
        """

    async def usage_total(self, reference: str, since: datetime) -> int:
        """All credits that were counted for a subscription since then, to the minute. What was told just now may be missing."""
