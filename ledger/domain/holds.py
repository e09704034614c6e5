"""Open holds: a small persistent map, so that one of a thousand holds closes as cheaply as one of one.

The map is a tuple of 32 dicts chosen by the last character of the hold id (random in our
ids), or the empty tuple. A change copies one tuple and one small dict and shares the rest.
Plain tuples and dicts keep it encodable in a snapshot.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import msgspec

from ledger.domain.consideration import Slice


class Hold(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Credits reserved for one job."""

    hold_id: str
    job_id: str
    credits: int
    deadline: datetime
    slices: tuple[Slice, ...]


HoldMap = tuple[dict[str, Hold], ...]

_EMPTY: dict[str, Hold] = {}
_ALL_EMPTY: HoldMap = (_EMPTY,) * 32


def _place(hold_id: str) -> int:
    return ord(hold_id[-1]) & 31 if hold_id else 0


def get(holds: HoldMap, hold_id: str) -> Hold | None:
    """The open hold with this id."""
    return holds[_place(hold_id)].get(hold_id) if holds else None


def put(holds: HoldMap, hold: Hold) -> HoldMap:
    """The map with this hold added or replaced."""
    place = _place(hold.hold_id)
    buckets = list(holds or _ALL_EMPTY)
    bucket = buckets[place].copy()
    bucket[hold.hold_id] = hold
    buckets[place] = bucket
    return tuple(buckets)


def remove(holds: HoldMap, hold_id: str) -> HoldMap:
    """The map without this hold; the same map if it was not there."""
    place = _place(hold_id)
    if not holds or hold_id not in holds[place]:
        return holds
    buckets = list(holds)
    bucket = buckets[place].copy()
    del bucket[hold_id]
    buckets[place] = bucket or _EMPTY
    rest = tuple(buckets)
    return () if not bucket and rest == _ALL_EMPTY else rest


def each(holds: HoldMap) -> Iterator[Hold]:
    """All open holds, in no particular order."""
    for bucket in holds:
        yield from bucket.values()


def due(holds: HoldMap, now: datetime, limit: int) -> list[Hold]:
    """At most `limit` holds whose deadline has passed, the oldest deadline first."""
    late = [hold for hold in each(holds) if hold.deadline <= now]
    late.sort(key=lambda hold: (hold.deadline, hold.hold_id))
    return late[:limit]
