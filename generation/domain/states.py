"""Where a job stands."""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """Where a job stands, in the API's words."""

    UNKNOWN = "unknown"
    AWAITING_PAYMENT = "awaiting_payment"
    QUEUED = "queued"
    RUNNING = "running"
    SETTLING = "settling"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"
    EXPIRED = "expired"
    BLOCKED = "blocked"

    @property
    def final(self) -> bool:
        """Whether nothing can happen to the job any more."""
        return self in _FINAL


_FINAL = frozenset(
    {
        JobState.COMPLETED,
        JobState.FAILED,
        JobState.CANCELLED,
        JobState.SUPERSEDED,
        JobState.EXPIRED,
        JobState.BLOCKED,
    }
)
