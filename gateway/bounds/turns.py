"""Requests of one address that are worked on at the same time: a few, and the others wait for their turn.

Hundreds of callers at one address would otherwise be in front of everybody else, each with a whole request that is
allowed. An address that is alone has room for as many as are of use. Where so many wait that it is a crowd, and somebody
who is none asks, too, the crowd goes one by one, and in the pauses of that somebody: whatever else is in progress keeps
them waiting at each of the dozen steps of their own request. Those whose connection was of use before do not wait for
those that come anew, nor for whoever sends many at once by the same token, at the same address. A request that waits for
something else than us (its own body, somebody else's server, the next job) soon counts no more, until it goes on.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import NamedTuple

SECONDS_MAX = 0.1
"""For which a request counts that does nothing: it waits for somebody else, and others are let in meanwhile."""
ALONE_AT_ONCE = 32
ALONE_SECONDS = 1.0
"""For how long nobody else may have asked."""
CROWD_WAITING_MIN = 16
"""So many that wait are a crowd: no page and no program of one person has as many."""
CROWD_PAUSE_SECONDS = 0.02
"""For how long at most a crowd's next one waits while somebody who is none is served."""
FEW_MAX = 6
"""Requests by one token that are under way at once, as a browser sends them. Whoever sends more stands behind."""
MANY_SECONDS = 1.0
"""For how long after that. Otherwise six of each token would be in front again whenever others of its own had ended."""


class Lane(NamedTuple):
    """Who wait for each other."""

    address: str
    known: bool
    """Their connections were of use before."""
    many: bool = False
    """Each of them has many requests under way, or had lately."""


@dataclass(eq=False, slots=True)
class Turn:
    """One request's."""

    lane: Lane
    whose: Hashable
    start: Callable[[Turn], None]
    until: float = 0.0
    light: bool = False
    """It is of few, and none of a crowd's: these make way for it."""
    ended: bool = False


@dataclass(slots=True)
class _Waiting:
    """Of one lane."""

    running: dict[Turn, None] = field(default_factory=dict)
    """Those that count."""
    turns: deque[Turn] = field(default_factory=deque)
    began: float = 0.0
    """When the newest one did."""
    timer: asyncio.TimerHandle | None = None
    timer_at: float = 0.0

    @property
    def is_crowd(self) -> bool:
        return len(self.turns) >= CROWD_WAITING_MIN


class _Lately:
    """Who has asked in the last second, of two the one who is not asking now."""

    def __init__(self) -> None:
        self._times: dict[Hashable, float] = {}

    def note(self, who: Hashable, now: float) -> None:
        self._times.pop(who, None)
        self._times[who] = now
        if len(self._times) > 2:
            del self._times[next(iter(self._times))]

    def anybody_but(self, who: Hashable, now: float) -> bool:
        return any(other != who and now < at + ALONE_SECONDS for other, at in self._times.items())


class Turns:
    """Who may begin, by address."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._addresses = _Lately()
        self._light_addresses = _Lately()
        self._light_lanes = _Lately()
        self._light_people = _Lately()
        self._light_running = 0
        self._under_way = Counter[Hashable]()
        """Requests that wait or are worked on, by who sent them."""
        self._many: dict[Hashable, float] = {}
        """Who lately had more than a few under way, and when; the latest last."""
        self._lanes: dict[Lane, _Waiting] = {}
        self._making_way: dict[Lane, None] = {}

    def begin(
        self, address: str, start: Callable[[Turn], None], *, known: bool, who: Hashable = None
    ) -> None:
        """Call `start` now, or when it is this request's turn. `known`: its connection was of use before; `who`: by
        which token it came."""
        whose = (address, who)
        now = asyncio.get_running_loop().time()
        turn = Turn(lane := Lane(address, known, self._has_many(whose, now)), whose, start)
        self._under_way[whose] += 1
        found = self._lanes.setdefault(lane, _Waiting())
        self._addresses.note(address, now)
        if not (found.is_crowd or lane.many):
            self._light_addresses.note(address, now)
            self._light_lanes.note(lane, now)
            self._light_people.note(whose, now)
        found.turns.append(turn)
        self._go_on(lane, found)

    def _has_many(self, whose: Hashable, now: float) -> bool:
        """Whether more than a few of theirs are under way, or lately were."""
        while self._many and self._many[oldest := next(iter(self._many))] + MANY_SECONDS <= now:
            del self._many[oldest]
        if self._under_way[whose] >= FEW_MAX:
            self._many.pop(whose, None)
            self._many[whose] = now
        return whose in self._many

    def end(self, turn: Turn) -> None:
        """It needs us no more; once is enough."""
        if turn.ended:
            return
        turn.ended = True
        self._under_way[turn.whose] -= 1
        if not self._under_way[turn.whose]:
            del self._under_way[turn.whose]
        found = self._lanes.get(turn.lane)
        if found is not None and turn in found.running:
            self._stop(found, turn)
            self._go_on(turn.lane, found)

    def goes_on(self, turn: Turn) -> None:
        """It does something: it counts, also if it was waited for so long that it did not."""
        if turn.ended:
            return
        turn.until = asyncio.get_running_loop().time() + SECONDS_MAX
        found = self._lanes.setdefault(turn.lane, _Waiting())
        if turn not in found.running:
            found.running[turn] = None
            self._light_running += turn.light

    def _most(self, lane: Lane, found: _Waiting) -> int:
        now = asyncio.get_running_loop().time()
        in_the_way = self._is_in_the_way(lane, found, now)
        elsewhere = self._light_addresses.anybody_but(lane.address, now)
        if (in_the_way and lane.many) or (found.is_crowd and (in_the_way or elsewhere)):
            return 0 if self._light_running and now < found.began + CROWD_PAUSE_SECONDS else 1
        if in_the_way or self._addresses.anybody_but(lane.address, now):
            return self._at_once
        return max(self._at_once, ALONE_AT_ONCE)

    def _is_in_the_way(self, lane: Lane, found: _Waiting, now: float) -> bool:
        """Whether somebody asks, too, who comes before this lane: at its address, or by few where many stand in it."""
        if not lane.known:
            return self._light_lanes.anybody_but(lane, now)
        return lane.many and self._light_people.anybody_but(found.turns[0].whose, now)

    def _run(self, found: _Waiting, turn: Turn) -> None:
        now = asyncio.get_running_loop().time()
        turn.until, turn.light, found.began = now + SECONDS_MAX, not (found.is_crowd or turn.lane.many), now
        found.running[turn] = None
        self._light_running += turn.light
        turn.start(turn)

    def _stop(self, found: _Waiting, turn: Turn) -> None:
        del found.running[turn]
        if not turn.light:
            return
        self._light_running -= 1
        if not self._light_running and self._making_way:
            lanes, self._making_way = list(self._making_way), {}
            for lane in lanes:
                if lane in self._lanes:
                    self._go_on(lane, self._lanes[lane])

    def _go_on(self, lane: Lane, found: _Waiting) -> None:
        while found.turns and len(found.running) < self._most(lane, found):
            self._run(found, found.turns.popleft())
        if found.turns:
            self._watch(lane, found)
        elif not found.running:
            if found.timer is not None:
                found.timer.cancel()
            if self._lanes.get(lane) is found:
                del self._lanes[lane]

    def _watch(self, lane: Lane, found: _Waiting) -> None:
        """Look again when somebody counts no more, or a crowd has made way for long enough."""
        if found.running:
            at = min(turn.until for turn in found.running)
        else:
            at = found.began + CROWD_PAUSE_SECONDS
            self._making_way[lane] = None
        if found.timer is not None:
            if found.timer_at <= at:
                return
            found.timer.cancel()
        found.timer, found.timer_at = asyncio.get_running_loop().call_at(at, self._look, lane, found), at

    def _look(self, lane: Lane, found: _Waiting) -> None:
        found.timer = None
        now = asyncio.get_running_loop().time()
        for turn in [turn for turn in found.running if turn.until <= now]:
            self._stop(found, turn)
        self._go_on(lane, found)
