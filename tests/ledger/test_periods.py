from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.periods import (
    days_between,
    monthly_period,
    months_after,
    next_utc_midnight,
    share_of_time_floor,
    utc_day,
)

EARLY, LATE = datetime(2020, 1, 1), datetime(2060, 1, 1)  # noqa: DTZ001 - hypothesis adds the zone
instants = st.datetimes(EARLY, LATE, timezones=st.just(UTC))


def day(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_the_31st_becomes_the_last_day_of_a_short_month_and_comes_back():
    anchor = day("2026-01-31")
    assert [months_after(anchor, n) for n in range(1, 4)] == [
        day("2026-02-28"),
        day("2026-03-31"),
        day("2026-04-30"),
    ]


def test_a_leap_day_is_kept_in_leap_years():
    assert months_after(day("2028-02-29"), 12) == day("2029-02-28")
    assert months_after(day("2028-02-29"), 48) == day("2032-02-29")
    assert monthly_period(day("2028-01-30"), day("2028-02-29")) == (day("2028-02-29"), day("2028-03-30"))


@given(instants, instants)
def test_every_instant_lies_in_exactly_one_anchored_month(anchor, now):
    start, end = monthly_period(anchor, now)
    assert start <= now < end
    assert monthly_period(anchor, end)[0] == end
    assert monthly_period(anchor, start - timedelta(microseconds=1))[1] == start


@given(st.integers(0, 10**9), instants, st.lists(st.integers(0, 10**6), min_size=1))
def test_shares_of_time_shrink_and_never_exceed_the_whole(amount, start, steps):
    end = start + timedelta(days=30)
    shares = [share_of_time_floor(amount, start, end, start + timedelta(seconds=s)) for s in sorted(steps)]
    assert shares == sorted(shares, reverse=True)
    assert all(0 <= share <= amount for share in shares)
    assert share_of_time_floor(amount, start, end, start - timedelta(days=1)) == amount


def test_the_share_is_the_part_that_remains_rounded_down():
    start, end = day("2026-11-01"), day("2026-12-01")
    assert share_of_time_floor(1_000, start, end, day("2026-11-11")) == 666
    assert share_of_time_floor(1_000, start, end, end) == 0
    assert share_of_time_floor(10**12, start, start + timedelta(seconds=1), end) == 0


def test_whole_days_are_counted_from_their_utc_midnight_and_never_below_none():
    first = date(2026, 11, 22)
    assert days_between(first, day("2026-11-22")) == 0
    assert days_between(first, day("2026-11-25") - timedelta(microseconds=1)) == 2
    assert days_between(first, day("2026-11-25")) == 3
    assert days_between(first, day("2026-11-01")) == 0


@pytest.mark.parametrize("zone", ["Pacific/Auckland", "America/Los_Angeles"])
def test_the_time_zone_of_the_machine_plays_no_part(zone, monkeypatch):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        late, early = day("2026-11-22") + timedelta(hours=23), day("2026-11-22") + timedelta(hours=1)
        for now in (late, early):
            assert utc_day.__wrapped__(now) == "2026-11-22"
            assert next_utc_midnight(now) == day("2026-11-23")
            assert days_between(date(2026, 11, 20), now) == 2
            [month] = {monthly_period(day("2026-10-22"), now)}
            assert month == (day("2026-11-22"), day("2026-12-22"))
        last = day("2026-01-31") + timedelta(hours=23)
        assert months_after(last, 1) == day("2026-02-28") + timedelta(hours=23)
        first = day("2026-03-01") + timedelta(hours=1)
        assert months_after(first, 1) == day("2026-04-01") + timedelta(hours=1)
    finally:
        monkeypatch.undo()
        time.tzset()
