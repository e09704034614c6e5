"""Open holds: a small persistent map, so that one of a thousand holds closes as cheaply as one of one.

The map is the empty tuple, a tuple of one dict with a few holds, or a tuple of 32 dicts chosen by the
last character of the hold id (random in our ids). A change copies the tuple and one small dict and
shares the rest. Plain tuples and dicts keep it encodable in a snapshot.
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

_DICTS = 32
_FEW = 8
"""More holds than these are spread over many dicts, and stay so until there are none."""


def get(holds: HoldMap, hold_id: str) -> Hold | None:
    """The open hold with this id."""
    return holds[_place(holds, hold_id)].get(hold_id) if holds else None


def _place(holds: HoldMap, hold_id: str) -> int:
    return ord(hold_id[-1]) & (len(holds) - 1) if hold_id else 0


def put(holds: HoldMap, hold: Hold) -> HoldMap:
    """The map with this hold added or replaced."""
    hold_id = hold.hold_id
    if not holds:
        return ({hold_id: hold},)
    if len(holds) == 1:
        few = holds[0].copy()
        few[hold_id] = hold
        return (few,) if len(few) <= _FEW else _spread(few)
    place = _place(holds, hold_id)
    dicts = list(holds)
    dicts[place] = {**dicts[place], hold_id: hold}
    return tuple(dicts)


def _spread(holds: dict[str, Hold]) -> HoldMap:
    dicts: HoldMap = tuple([{} for _ in range(_DICTS)])
    for hold_id, hold in holds.items():
        dicts[_place(dicts, hold_id)][hold_id] = hold
    return dicts


def remove(holds: HoldMap, hold_id: str) -> HoldMap:
    """The map without this hold; the same map if it was not there."""
    place = _place(holds, hold_id)
    if not holds or hold_id not in holds[place]:
        return holds
    rest = holds[place].copy()
    del rest[hold_id]
    if len(holds) == 1:
        return (rest,) if rest else ()
    dicts = list(holds)
    dicts[place] = rest
    return tuple(dicts) if rest or any(dicts) else ()


def differing(before: HoldMap, after: HoldMap) -> tuple[list[Hold], list[Hold]]:
    """The holds of each map that are not in the other as the same object."""
    old: list[Hold] = []
    new: list[Hold] = []
    if len(before) != len(after):
        before, after = _together(before), _together(after)
    for was, now in zip(before, after, strict=True):
        if was is not now:
            old.extend(hold for hold_id, hold in was.items() if now.get(hold_id) is not hold)
            new.extend(hold for hold_id, hold in now.items() if was.get(hold_id) is not hold)
    return old, new


def _together(holds: HoldMap) -> HoldMap:
    return ({hold.hold_id: hold for hold in each(holds)},)


def the_one_more(fewer: HoldMap, more: HoldMap, hold_id: str) -> Hold | None:
    """The hold with this id, if it is in `more` and is all in which two maps of one shape differ; else None."""
    if not fewer or len(fewer) != len(more):
        return None
    place = _place(more, hold_id)
    rest = more[place].copy()
    hold = rest.pop(hold_id, None)
    if hold is None or rest != fewer[place]:
        return None
    if len(more) > 1 and (fewer[:place] != more[:place] or fewer[place + 1 :] != more[place + 1 :]):
        return None
    return hold


def each(holds: HoldMap) -> Iterator[Hold]:
    """All open holds, in no particular order."""
    for bucket in holds:
        yield from bucket.values()


def due(holds: HoldMap, now: datetime, limit: int) -> list[Hold]:
    """At most `limit` holds whose deadline has passed, the oldest deadline first."""
    late = [hold for hold in each(holds) if hold.deadline <= now]
    late.sort(key=lambda hold: (hold.deadline, hold.hold_id))
    return late[:limit]
