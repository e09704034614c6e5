"""Ids: one type each, prefixed, time-ordered, safe in URLs."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

from ledger.clock import ManualClock
from ledger.identifiers import Identifiers, encode_crockford, is_identifier


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
