from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.periods import monthly_period, months_after, share_of_time_floor

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
