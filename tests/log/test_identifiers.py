"""Ids: one type each, prefixed, time-ordered, safe in URLs."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from ledger.clock import CorrectedClock, ManualClock, microseconds_of, system_clock
from ledger.identifiers import Identifiers, encode_crockford, is_identifier

DAY = timedelta(days=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def counting() -> object:
    """Randomness that is the same on every run."""
    drawn = 0

    def draw(count: int) -> bytes:
        nonlocal drawn
        drawn += 1
        return hashlib.shake_256(str(drawn).encode()).digest(count)

    return draw


def test_later_ids_sort_later() -> None:
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    identifiers = Identifiers(clock, counting())  # type: ignore[arg-type]
    made = []
    for _ in range(300):
        made.append(identifiers.job())
        clock.advance(timedelta(milliseconds=1))
    assert made == sorted(made)


def test_ids_of_one_millisecond_differ() -> None:
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    identifiers = Identifiers(clock)
    assert len({identifiers.hold() for _ in range(10_000)}) == 10_000


def test_an_id_has_the_shape_that_is_checked_for() -> None:
    identifiers = Identifiers(ManualClock(datetime(2026, 1, 1, tzinfo=UTC)))
    assert is_identifier(identifiers.account(), "acct")
    assert not is_identifier(identifiers.account(), "job")
    assert not is_identifier("acct_" + "u" * 26, "acct")
    assert not is_identifier(identifiers.account() + "0", "acct")


def test_an_id_begins_with_its_time() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    identifier = Identifiers(ManualClock(moment)).lot()
    expected = encode_crockford(int(moment.timestamp() * 1000) << 80)
    assert identifier.removeprefix("lot_")[:10] == expected[:10]


def test_an_id_says_the_millisecond_of_its_clock_also_one_that_is_corrected() -> None:
    moment = datetime(2026, 1, 1, 12, 0, 0, 999_999, tzinfo=UTC)
    corrected = CorrectedClock(ManualClock(moment + timedelta(seconds=3, microseconds=1)))
    corrected.correct(timedelta(seconds=3, microseconds=1))
    first = encode_crockford(int(datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC).timestamp()) * 1000 + 999 << 80)[
        :10
    ]
    for clock in (ManualClock(moment), corrected):
        assert Identifiers(clock).job()[4:14] == first


@given(st.timedeltas(DAY, 80_000 * DAY), st.timedeltas(-DAY, DAY))
def test_microseconds_are_the_time_of_the_clock(since_1970: timedelta, ahead: timedelta) -> None:
    local = ManualClock(EPOCH + since_1970)
    corrected = CorrectedClock(local)
    corrected.correct(ahead)
    for clock in (local, corrected):
        assert EPOCH + timedelta(microseconds=microseconds_of(clock)()) == clock()


def test_the_machines_clock_is_the_same_in_whole_numbers() -> None:
    before = system_clock()
    between = EPOCH + timedelta(microseconds=microseconds_of(system_clock)())
    assert before <= between <= system_clock()
