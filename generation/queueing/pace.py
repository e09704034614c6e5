"""How fast the queue's virtual time moves while people wait: noted by one process as it looks. Pure.

Virtual time says when a turn comes that somebody took far ahead: whoever asks for twelve images at once
stands with the last of them twelve turns past everybody else, and all who come meanwhile go first.
"""

from __future__ import annotations

from collections import deque
from datetime import datetime, timedelta
from typing import NamedTuple

NOTED_EVERY = timedelta(seconds=2)
NOTED_FOR = timedelta(seconds=60)
"""A pace is that of the last minute, or of the stretch since people wait if it is shorter."""
TELLING_AFTER = timedelta(seconds=10)
"""In less than that a few claims would decide."""
UNSEEN_MAX = timedelta(seconds=15)
"""If nobody looked for longer, nothing is known about what was between."""
_MILLISECOND = timedelta(milliseconds=1)


class Pace(NamedTuple):
    """Virtual time moved on by so much (more than nothing) in so many milliseconds."""

    moved: int
    milliseconds: int

    def milliseconds_for(self, distance: int) -> int:
        """How long so much virtual time takes at this pace."""
        return distance * self.milliseconds // self.moved


class PaceWatch:
    """Notes virtual time now and then. A stretch ends when nobody waits: whoever is next is then served
    at once, however far ahead the turn, and a pace from before would promise a wait that does not come."""

    def __init__(self) -> None:
        self._notes: deque[tuple[datetime, int]] = deque()

    def note(self, now: datetime, virtual_time: int, *, waiting: bool) -> None:
        """Virtual time is this now, and somebody waits or nobody."""
        if not waiting or (self._notes and now - self._notes[-1][0] > UNSEEN_MAX):
            self._notes.clear()
        if not self._notes or now - self._notes[-1][0] >= NOTED_EVERY:
            self._notes.append((now, virtual_time))
        while now - self._notes[0][0] > NOTED_FOR:
            self._notes.popleft()

    def pace(self, now: datetime, virtual_time: int) -> Pace | None:
        """Of the present stretch; None if too little was seen, or virtual time stood still."""
        if not self._notes:
            return None
        since, before = self._notes[0]
        if now - since < TELLING_AFTER or virtual_time <= before:
            return None
        return Pace(virtual_time - before, (now - since) // _MILLISECOND)
