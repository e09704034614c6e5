"""The queue as one process sees it: read with one question for all who ask, and kept for a moment.

Requests and estimates need to know how long the line is, how far its virtual time is, and who works. All of that is
in PostgreSQL; a snapshot of it is kept here for `FRESH_FOR` at most, and less if something of this process changed
the queue. What this process puts into the line is counted at once. Nothing is decided by a snapshot that would be
wrong later: a bound that it says is reached is looked at anew before anybody is refused.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from generation.fleet.registry import PRESENT_WITHIN
from generation.queueing import statements as sql
from generation.queueing.estimating import Estimate, Place, estimate
from generation.queueing.pace import PaceWatch
from generation.store.autocommit import Autocommit
from generation.store.batching import Batcher

FRESH_FOR = timedelta(milliseconds=250)
"""How old a snapshot may be: what other processes did is seen that late."""
RANKS_MAX = 2_000
"""Places of the line that are known one by one, the first ones."""
KNOWN_WITHIN = timedelta(hours=24)
"""A worker that was not heard of for longer is no promise that its kind of image can ever be made."""
_ALL = ""


class QueueSummary(NamedTuple):
    """What a request needs to know about the queue before it is decided."""

    virtual_time: int
    in_flight: int
    queued: int
    servable: bool = True
    """False if workers are known and none of them can ever run the graph."""


@dataclass(slots=True)
class QueueSnapshot:
    """The queue at a moment."""

    taken_at: datetime
    virtual_time: int
    queued: int
    ranks: list[int]
    """Of those that wait, in order; the first `RANKS_MAX`."""
    running: int
    workers: Mapping[str, int]
    """Heard of lately and active, by graph."""
    graphs: frozenset[str] | None
    """What known workers can run; None if none is known."""
    recent_milliseconds: Sequence[int]
    """From lease to image, of the newest results."""
    log_position: int = 0
    """Of the log: what was recorded up to there is in this, and nothing later."""

    def serves(self, graph: str) -> bool:
        """False if workers are known and none of them can ever run the graph."""
        return self.graphs is None or graph in self.graphs

    def position(self, rank: int) -> int | None:
        """The place of the newest job in line with this rank, 1 is next; None if so far back nothing is known."""
        if len(self.ranks) < self.queued and (not self.ranks or rank >= self.ranks[-1]):
            return None
        return max(1, bisect_right(self.ranks, rank))

    def enter(self, rank: int, position: int) -> None:
        """Somebody has come, at a position of the log."""
        if position <= self.log_position:
            return
        if len(self.ranks) == self.queued or rank < self.ranks[-1]:
            insort(self.ranks, rank)
        self.queued += 1


class QueueWatch:
    """The newest snapshot. One per process; every method belongs to its event loop."""

    def __init__(self, reading: Autocommit, pace: PaceWatch) -> None:
        """`reading` opens no transactions; `pace` is told virtual time as it is seen."""
        self._reading = reading
        self._pace = pace
        self._asked_at: datetime | None = None
        self._loads: Batcher[str, QueueSnapshot] = Batcher(self._load)
        self._newest: QueueSnapshot | None = None
        self._changed = False
        self._entered: deque[tuple[int, int]] = deque(maxlen=RANKS_MAX)
        """Ranks and positions of the jobs that came since the newest load began."""

    async def snapshot(self, now: datetime) -> QueueSnapshot:
        """The queue as of `FRESH_FOR` ago or later, with everything that this process did to it."""
        newest = self._newest
        if newest is not None and abs(now - newest.taken_at) < FRESH_FOR:
            return newest
        return await self.anew(now)

    async def anew(self, now: datetime) -> QueueSnapshot:
        """The queue as of now or later: asked of PostgreSQL, once for all who ask meanwhile."""
        self._asked_at = now
        found = await self._loads.get(_ALL)
        assert found is not None, "a snapshot is loaded, or an error raised"
        return found

    async def line(self, graph: str, now: datetime, *, queue_max: int) -> QueueSummary:
        """What a request needs to know that is the same for everybody. That the queue is full, or that nobody
        serves the graph, is asked anew."""
        found = await self.snapshot(now)
        if found.queued >= queue_max or not found.serves(graph):
            found = await self.anew(now)
        return QueueSummary(found.virtual_time, 0, found.queued, found.serves(graph))

    def changed(self) -> None:
        """This process has changed the queue in a way that only PostgreSQL knows exactly."""
        self._newest, self._changed = None, True

    def entered(self, rank: int, position: int) -> None:
        """A job of this process is in line, recorded at a position of the log."""
        if self._newest is not None:
            self._newest.enter(rank, position)
        self._entered.append((rank, position))

    async def estimate(self, graph: str, rank: int, now: datetime) -> Estimate | None:
        """When the image of a job that has just come with this rank will be there; None if its place is not known here."""
        snapshot = await self.snapshot(now)
        position = snapshot.position(rank)
        if position is None:
            return None
        workers, virtual_time = snapshot.workers.get(graph, 0), snapshot.virtual_time
        pace = self._pace.pace(now, virtual_time)
        place = Place(position, snapshot.running, workers, rank, virtual_time, pace)
        return estimate(place, snapshot.recent_milliseconds)

    async def _load(self, _: Sequence[str]) -> Mapping[str, QueueSnapshot]:
        self._changed = False
        self._entered.clear()
        now = self._asked_at
        assert now is not None, "it is asked for by `anew`"
        known = {"most": RANKS_MAX, "known_since": now - KNOWN_WITHIN, "present_since": now - PRESENT_WITHIN}
        async with self._reading.connect() as connection:
            row = (await connection.execute(sql.SNAPSHOT, known)).one()
        found = _snapshot(row, now)
        self._pace.note(now, found.virtual_time, waiting=found.queued > 0)
        for entered in self._entered:  # while it was read
            found.enter(*entered)
        # What else this process did meanwhile may be in it, or not: the next one asks again.
        self._newest = None if self._changed else found
        return {_ALL: found}


def _snapshot(row: Any, now: datetime) -> QueueSnapshot:
    present: dict[str, int] = {}
    known: set[str] = set()
    for graphs, active in row.workers or ():
        known.update(graphs)
        if active:
            for graph in graphs:
                present[graph] = present.get(graph, 0) + 1
    return QueueSnapshot(
        taken_at=now,
        virtual_time=row.virtual_time or 0,
        queued=row.queued,
        ranks=list(row.ranks or ()),
        running=row.running,
        workers=present,
        graphs=None if row.workers is None else frozenset(known),
        recent_milliseconds=list(row.recent or ()),
        log_position=row.log_position,
    )
