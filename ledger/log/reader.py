"""Reading the log: the present state of a stream, its events, and the log in order."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from ledger.log.model import Envelope


class StreamState(NamedTuple):
    """A stream folded up to its newest event."""

    state: Any
    version: int
    """0 if the stream has no event yet."""
    position: int
    """The log's position at the time of reading: nothing up to it is missing."""


class LogReader(Protocol):
    """The port through which other packages read. Reads never block writers."""

    async def state(self, stream: str) -> StreamState:
        """The stream as of the last commit; the category's initial state if it is new."""

    async def events(
        self,
        stream: str,
        *,
        after_version: int = 0,
        up_to_position: int | None = None,
        up_to_time: datetime | None = None,
        limit: int | None = None,
    ) -> Sequence[Envelope]:
        """The stream's events in order; `up_to_time` compares `recorded_at`, inclusive."""

    async def read(self, *, after: int, limit: int) -> Sequence[Envelope]:
        """The whole log in order, from just after a position."""

    async def head(self) -> int:
        """The position of the newest event, 0 if there is none."""
