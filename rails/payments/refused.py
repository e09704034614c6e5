"""Notifications that were refused: why, how often, and what was said last. For operators.

Kept by this process alone and forgotten with it. Anybody may send what is not signed, so that each reason
is counted apart: a stranger's noise does not hide that the provider's messages have another version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from ledger.clock import Clock
from rails.contract import NotificationRejected, RejectionReason

LOGGED_EVERY = timedelta(seconds=10)
"""A line per rail and reason, at most."""


@dataclass(frozen=True, slots=True)
class Refused:
    """What was refused for one reason."""

    reason: RejectionReason
    times: int
    detail: str
    at: datetime
    """Of the last one."""
    logged_at: datetime


class RefusedNotifications:
    """Counts and tells of refused notifications."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_rail: dict[str, dict[RejectionReason, Refused]] = {}
        self._log = structlog.get_logger("rails.payments.refused")

    def note(self, rail: str, error: NotificationRejected) -> None:
        """Count one, and say it in the log unless the same was said just now."""
        known = self._by_rail.setdefault(rail, {})
        before, now = known.get(error.reason), self._clock()
        times = 1 if before is None else before.times + 1
        is_due = before is None or now - before.logged_at >= LOGGED_EVERY
        known[error.reason] = Refused(
            error.reason, times, error.detail, now, now if is_due or before is None else before.logged_at
        )
        if is_due:
            self._log.warning(
                "notification_refused", rail=rail, reason=error.reason, detail=error.detail, times=times
            )

    def of(self, rail: str) -> Mapping[RejectionReason, Refused]:
        """What was refused of a rail, by reason."""
        return self._by_rail.get(rail, {})

    def last(self, rail: str) -> Refused | None:
        """The newest."""
        return max(self.of(rail).values(), key=lambda refused: refused.at, default=None)
