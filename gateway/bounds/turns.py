"""Requests of one address that are worked on at the same time: a few, and the others wait for their turn.

Hundreds of callers at one address would otherwise be in front of everybody else, each with a whole request that is
allowed. An address that is alone has room for as many as are of use. Where so many wait that it is a crowd, and somebody
who is none asks, too, the crowd goes one by one: whatever else is in progress keeps that somebody waiting at each of the
dozen steps of their own request. Those whose connection was of use before do not wait for those that come anew, and a
crowd of newcomers goes one by one also for them. A request that waits for something else than us (its own body, somebody
else's server, the next job) soon counts no more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import NamedTuple

SECONDS_MAX = 0.1
"""For which a request counts: longer ones wait for somebody else, and others are let in meanwhile."""
ALONE_AT_ONCE = 32
ALONE_SECONDS = 1.0
"""For how long nobody else may have asked."""
CROWD_WAITING_MIN = 16
"""So many that wait are a crowd: no page and no program of one person has as many."""


class Lane(NamedTuple):
    """Who wait for each other."""

    address: str
    known: bool
    """Their connections were of use before."""


@dataclass(eq=False, slots=True)
class Turn:
    """One request's."""

    lane: Lane
    start: Callable[[Turn], None]
    until: float = 0.0


@dataclass(slots=True)
class _Waiting:
    """Of one lane."""

    running: dict[Turn, None] = field(default_factory=dict)
    """Those that count, the oldest first."""
    turns: deque[Turn] = field(default_factory=deque)
    timer: asyncio.TimerHandle | None = None

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
        self._lanes: dict[Lane, _Waiting] = {}

    def begin(self, address: str, start: Callable[[Turn], None], *, known: bool) -> None:
        """Call `start` now, or when it is this request's turn. `known`: its connection was of use before."""
        turn = Turn(lane := Lane(address, known), start)
        found = self._lanes.setdefault(lane, _Waiting())
        now = asyncio.get_running_loop().time()
        self._addresses.note(address, now)
        if not found.is_crowd:
            self._light_addresses.note(address, now)
            self._light_lanes.note(lane, now)
        if len(found.running) < self._most(lane, found):
            self._run(found, turn)
        else:
            found.turns.append(turn)
            self._watch(found)

    def end(self, turn: Turn) -> None:
        """It needs us no more; once is enough."""
        found = self._lanes.get(turn.lane)
        if found is not None and turn in found.running:
            del found.running[turn]
            self._go_on(turn.lane, found)

    def _most(self, lane: Lane, found: _Waiting) -> int:
        now = asyncio.get_running_loop().time()
        if found.is_crowd and self._holds_up_others(lane, now):
            return 1
        if self._addresses.anybody_but(lane.address, now):
            return self._at_once
        return max(self._at_once, ALONE_AT_ONCE)

    def _holds_up_others(self, lane: Lane, now: float) -> bool:
        if lane.known:
            return self._light_addresses.anybody_but(lane.address, now)
        return self._light_lanes.anybody_but(lane, now)

    def _run(self, found: _Waiting, turn: Turn) -> None:
        turn.until = asyncio.get_running_loop().time() + SECONDS_MAX
        found.running[turn] = None
        turn.start(turn)

    def _go_on(self, lane: Lane, found: _Waiting) -> None:
        while found.turns and len(found.running) < self._most(lane, found):
            self._run(found, found.turns.popleft())
        if not found.running:
            if found.timer is not None:
                found.timer.cancel()
            self._lanes.pop(lane, None)
        elif found.turns:
            self._watch(found)

    def _watch(self, found: _Waiting) -> None:
        if found.timer is None:
            oldest = next(iter(found.running))
            loop = asyncio.get_running_loop()
            found.timer = loop.call_at(oldest.until, self._expire, oldest.lane, found)

    def _expire(self, lane: Lane, found: _Waiting) -> None:
        found.timer = None
        now = asyncio.get_running_loop().time()
        for turn in [turn for turn in found.running if turn.until <= now]:
            del found.running[turn]
        self._go_on(lane, found)
