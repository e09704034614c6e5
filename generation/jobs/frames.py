"""Frames of live sessions that arrive faster than they are taken in: one of each session at a time, then the newest.

Decoding and recording a frame costs; recording two of one session at once costs both of them another try. Those in
between would be superseded at once, and are refused before anything is spent on them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from generation.domain.errors import OutOfOrder


@dataclass(slots=True)
class _Session:
    waiting: asyncio.Future[None] | None = None
    """The one frame that waits while another is taken in."""
    seq: int = -1


class FrameTurns:
    """Whose turn it is, by session. One per process; every method belongs to its event loop."""

    def __init__(self) -> None:
        self._sessions: dict[str, _Session] = {}
        """Those of which a frame is taken in now."""

    @contextlib.asynccontextmanager
    async def turn(self, session: str, seq: int) -> AsyncIterator[None]:
        """Hold it while a frame is taken in. Raises `OutOfOrder` if a newer one waits, or comes before it is its turn."""
        found = self._sessions.get(session)
        if found is None:
            self._sessions[session] = _Session()
        else:
            await self._wait(found, session, seq)
        try:
            yield
        finally:
            self._next(session)

    async def _wait(self, found: _Session, session: str, seq: int) -> None:
        before = found.waiting
        if before is not None and found.seq > seq:
            raise OutOfOrder(newest=found.seq)
        found.waiting, found.seq = asyncio.get_running_loop().create_future(), seq
        if before is not None and not before.done():
            before.set_exception(OutOfOrder(newest=seq))
        mine = found.waiting
        try:
            await mine
        except asyncio.CancelledError:
            if found.waiting is mine:
                found.waiting = None
            elif mine.done() and not mine.cancelled() and mine.exception() is None:
                self._next(session)  # it was its turn already
            raise

    def _next(self, session: str) -> None:
        found = self._sessions[session]
        waiting, found.waiting = found.waiting, None
        if waiting is None or waiting.done():  # given up
            del self._sessions[session]
        else:
            waiting.set_result(None)
