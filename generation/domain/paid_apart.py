"""How many jobs stand without a hold, because each is paid by a payment of its own. Pure.

The ledger bounds what is held; of these it knows nothing. So they are counted in rows of `jobs_paid_apart`: one for
each account, one for everybody, and one for each network (there by time alone: whatever becomes of the job, it counts
until its first deadline). A job counts from the transaction that accepts it until it ends or is held,
and never beyond its deadline: a count that somebody forgot to take back ends by time alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

EVERYBODY: Final = "all"
"""The name of the row that counts the jobs of all accounts."""
_MINUTE = timedelta(minutes=1)


class PaidApart(NamedTuple):
    """The jobs of one account, or of everybody. A row of `jobs_paid_apart`."""

    counted_for: str
    by_minute: Mapping[datetime, int]
    """By the end of the minute in which their deadlines lie."""

    @classmethod
    def of(cls, counted_for: str, row: Mapping[str, Any] | None, now: datetime) -> PaidApart:
        """Those that have time left at `now`, out of the row."""
        kept = {} if row is None else row["by_minute"]
        known = {datetime.fromisoformat(minute): jobs for minute, jobs in kept.items()}
        return cls(counted_for, {minute: jobs for minute, jobs in known.items() if minute > now})

    @property
    def jobs(self) -> int:
        """How many they are."""
        return sum(self.by_minute.values())

    def changed_by(self, jobs: int, deadline: datetime) -> PaidApart:
        """With so many more, or less, of the jobs with this deadline."""
        minute = deadline.replace(second=0, microsecond=0) + _MINUTE
        left = self.by_minute.get(minute, 0) + jobs
        others = {other: count for other, count in self.by_minute.items() if other != minute}
        return PaidApart(self.counted_for, {**others, minute: left} if left > 0 else others)

    def to_row(self) -> dict[str, Any]:
        """The row of `jobs_paid_apart`. There is none for no jobs."""
        shown = {minute.isoformat(): jobs for minute, jobs in self.by_minute.items()}
        return {"counted_for": self.counted_for, "by_minute": shown, "until": max(self.by_minute)}
