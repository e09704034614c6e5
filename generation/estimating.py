"""How long it will take: a range that is meant to hold four times out of five. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from generation.queue import Place


class Estimate(NamedTuple):
    """A place in the queue, and between how many seconds from now the image should be there.

    No range is given without evidence: no box that can do it, or no image painted yet.
    """

    position: int
    low_seconds: int | None
    high_seconds: int | None


def estimate(place: Place, paint_milliseconds: Sequence[int]) -> Estimate:
    """From the place in the queue, the boxes at hand, and how long the newest images took.

    Everyone ahead is painted first, by all boxes together: that part of the wait can shrink
    (a frame is replaced, a box joins) and grow (somebody with a better right comes in between).
    """
    boxes = max(place.boxes, place.running)
    if not paint_milliseconds or not boxes:
        return Estimate(place.position, None, None)
    ordered = sorted(paint_milliseconds)
    mean = sum(ordered) // len(ordered)
    busy = place.running >= boxes or place.position > boxes - place.running
    ahead = place.position - 1 if busy else 0
    turns = mean * ahead // boxes
    fast, slow = _at(ordered, 10), _at(ordered, 90)
    low = turns * 2 // 3 + fast
    high = turns * 8 // 5 + slow + (slow if busy else 0) + 1000
    return Estimate(place.position, max(1, low // 1000), max(2, -(-high // 1000)))


def _at(ordered: Sequence[int], percent: int) -> int:
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
