"""Requests of one address that are worked on at the same time: a few, and the others wait for their turn.

Hundreds of callers at one address would otherwise be in front of everybody else, each with a whole request that is
allowed. An address that is alone has room for as many as are of use. Those whose connection was of use before and
those that come anew go by turns. A request that waits for something else than us (its own body, somebody else's
server, the next job) soon counts no more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

SECONDS_MAX = 0.1
"""For which a request counts: longer ones wait for somebody else, and others are let in meanwhile."""
ALONE_AT_ONCE = 32
ALONE_SECONDS = 1.0
"""For how long nobody else may have asked."""


@dataclass(eq=False, slots=True)
class Turn:
    """One request's."""

    address: str
    start: Callable[[Turn], None]
    until: float = 0.0


@dataclass(slots=True)
class _Address:
    running: dict[Turn, None] = field(default_factory=dict)
    """Those that count, the oldest first."""
    known: deque[Turn] = field(default_factory=deque)
    new: deque[Turn] = field(default_factory=deque)
    newcomer_next: bool = False
    timer: asyncio.TimerHandle | None = None

    def next(self) -> Turn | None:
        newcomer = bool(self.new) and (self.newcomer_next or not self.known)
        self.newcomer_next = not newcomer
        waiting = self.new if newcomer else self.known
        return waiting.popleft() if waiting else None


class Turns:
    """Who may begin, by address."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._last = ""
        self._shared_until = 0.0
        self._addresses: dict[str, _Address] = {}

    def begin(self, address: str, start: Callable[[Turn], None], *, known: bool) -> None:
        """Call `start` now, or when it is this request's turn. `known`: its connection was of use before."""
        turn = Turn(address, start)
        if address != self._last:
            self._last, self._shared_until = address, asyncio.get_running_loop().time() + ALONE_SECONDS
        found = self._addresses.setdefault(address, _Address())
        if len(found.running) < self._most():
            self._run(found, turn)
        else:
            (found.known if known else found.new).append(turn)
            self._watch(found)

    def end(self, turn: Turn) -> None:
        """It needs us no more; once is enough."""
        found = self._addresses.get(turn.address)
        if found is not None and turn in found.running:
            del found.running[turn]
            self._go_on(turn.address, found)

    def _most(self) -> int:
        shared = asyncio.get_running_loop().time() < self._shared_until
        return self._at_once if shared else max(self._at_once, ALONE_AT_ONCE)

    def _run(self, found: _Address, turn: Turn) -> None:
        turn.until = asyncio.get_running_loop().time() + SECONDS_MAX
        found.running[turn] = None
        turn.start(turn)

    def _go_on(self, address: str, found: _Address) -> None:
        most = self._most()
        while len(found.running) < most and (turn := found.next()) is not None:
            self._run(found, turn)
        if not found.running:
            if found.timer is not None:
                found.timer.cancel()
            self._addresses.pop(address, None)
        elif found.known or found.new:
            self._watch(found)

    def _watch(self, found: _Address) -> None:
        if found.timer is None:
            oldest = next(iter(found.running))
            loop = asyncio.get_running_loop()
            found.timer = loop.call_at(oldest.until, self._expire, oldest.address, found)

    def _expire(self, address: str, found: _Address) -> None:
        found.timer = None
        now = asyncio.get_running_loop().time()
        for turn in [turn for turn in found.running if turn.until <= now]:
            del found.running[turn]
        self._go_on(address, found)
