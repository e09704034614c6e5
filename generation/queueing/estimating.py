"""How long it will take: a range that is meant to hold nine times out of ten. Pure.

A wait has two causes, and the longer one counts. The line: whoever stands before it is painted first,
by all workers together. The turn: who took turns far ahead in the fair order lets all pass that come
meanwhile, however short the line is now. The painting itself comes on top of either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from generation.queueing.pace import Pace

PASSING = 2
"""People with a better right who come in before it, in any line."""
MARGIN_MILLISECONDS = 500
"""Asking, leasing and telling, and whatever else is nobody's fault."""


class Place(NamedTuple):
    """Where a waiting job stands."""

    position: int
    """1 is next."""
    running: int
    workers: int
    """Workers heard of lately that can run it."""
    rank: int
    virtual_time: int
    """The queue's: a rank beyond it lets those pass who come meanwhile."""
    pace: Pace | None = None
    """How fast virtual time moves, as far as this process knows."""


class Estimate(NamedTuple):
    """A place in the queue, and between how many seconds from now the image should be there.

    No range is given without evidence: no worker that can do it, or no image painted yet.
    """

    position: int
    low_seconds: int | None
    high_seconds: int | None
    workers: int
    """At hand that can make it. 0: it waits for one, and no place in the line says how long."""


class Span(NamedTuple):
    """At least and at most so many milliseconds."""

    low: int
    high: int


def estimate(place: Place, paint_milliseconds: Sequence[int]) -> Estimate:
    """From the place in the queue, the workers at hand, and how long the newest images took."""
    workers = max(place.workers, place.running)
    if not paint_milliseconds or not workers:
        return Estimate(place.position, None, None, place.workers)
    ordered = sorted(paint_milliseconds)
    line, turn = in_line(place, workers, sum(ordered) // len(ordered)), until_turn(place, workers)
    low = max(line.low, turn.low) + _at(ordered, 10)
    high = max(line.high, turn.high) + _at(ordered, 90) + MARGIN_MILLISECONDS
    return Estimate(place.position, max(1, low // 1000), max(2, -(-high // 1000)), place.workers)


def in_line(place: Place, workers: int, mean: int) -> Span:
    """Until all who stand before it are painted and a worker is free, at `mean` milliseconds an image.

    It can shrink (a frame before it is replaced, a worker joins, one is about to be done) and grow
    (somebody with a better right comes in).
    """
    if not _must_wait(place, workers):
        return Span(0, 0)
    before = mean * (place.position - 1) // workers
    with_its_own = mean * place.position // workers
    return Span(before * 6 // 10, with_its_own * 18 // 10 + PASSING * mean // workers)


def until_turn(place: Place, workers: int) -> Span:
    """Until the queue's virtual time reaches its rank, if that lies ahead and the pace is known."""
    ahead = place.rank - place.virtual_time
    if ahead <= 0 or place.pace is None or not _must_wait(place, workers):
        return Span(0, 0)
    milliseconds = place.pace.milliseconds_for(ahead)
    return Span(milliseconds * 6 // 10, milliseconds * 15 // 10)


def _must_wait(place: Place, workers: int) -> bool:
    """Whether no free worker is left for it by those who stand before it."""
    return place.position > workers - place.running


def _at(ordered: Sequence[int], percent: int) -> int:
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
