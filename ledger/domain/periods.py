"""Days, months and shares of time. Everything is aware UTC; local time zones play no part."""

from __future__ import annotations

import calendar
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache


@lru_cache(maxsize=16)
def utc_day(now: datetime) -> str:
    """The UTC day of an instant in any time zone, `2026-11-22`."""
    return now.astimezone(UTC).date().isoformat()


def next_utc_midnight(now: datetime) -> datetime:
    """When the UTC day of an instant ends."""
    return datetime.combine(now.astimezone(UTC).date() + timedelta(days=1), time(), UTC)


def months_after(anchor: datetime, months: int, day: int | None = None) -> datetime:
    """The anchor's time `months` later, on its day or on `day`; a day the month does not have becomes its last.

    Always counted from the anchor, so that the 31st comes back after a February.
    """
    anchor = anchor.astimezone(UTC)
    years, month = divmod(anchor.month - 1 + months, 12)
    year = anchor.year + years
    day = min(anchor.day if day is None else day, calendar.monthrange(year, month + 1)[1])
    return anchor.replace(year=year, month=month + 1, day=day)


def monthly_period(anchor: datetime, now: datetime) -> tuple[datetime, datetime]:
    """The anchored month that contains `now`, as (start, end); the start belongs to it.

    For plans whose payment provider has no periods of its own.
    """
    now, anchor = now.astimezone(UTC), anchor.astimezone(UTC)
    months = (now.year - anchor.year) * 12 + now.month - anchor.month
    if months_after(anchor, months) > now:
        months -= 1
    return months_after(anchor, months), months_after(anchor, months + 1)


def share_of_time_floor(amount: int, start: datetime, end: datetime, now: datetime) -> int:
    """floor(amount × what remains of the period at `now`); all before its start, none after its end."""
    length = _microseconds(end - start)
    remaining = min(max(_microseconds(end - now), 0), length)
    return amount * remaining // length


def share_of_time_ceiling(amount: int, start: datetime, end: datetime, now: datetime) -> int:
    """ceil(amount × what remains of the period at `now`); all before its start, none after its end."""
    return -share_of_time_floor(-amount, start, end, now)


def days_between(first: date, now: datetime) -> int:
    """How many whole UTC days from the beginning of `first` have passed at `now`; never negative."""
    return max(0, (now.astimezone(UTC).date() - first).days)


def _microseconds(delta: timedelta) -> int:
    return delta // timedelta(microseconds=1)
