"""Recently used stream states, all of them as of one position of the log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ledger.errors import CorruptLog
from ledger.log.categories import Categories
from ledger.log.encoding import EventRow, decode_event
from ledger.log.recorder import Snapshot
from ledger.log.sharing import share

SNAPSHOT_EVERY = 25
"""Events between two snapshots of a stream: what a load has to replay at most, per process."""
FOREIGN_MAX = 100
"""A stream to which others have appended so much since it was used here is forgotten."""


class Cached(NamedTuple):
    """A stream's state and version, and the version that its newest snapshot has."""

    state: Any
    version: int
    snapshot_version: int


class StateCache:
    """A bounded map from stream to state; the least recently written or loaded leave first."""

    def __init__(self, categories: Categories, *, capacity: int) -> None:
        self.position = 0
        self._categories = categories
        self._capacity = capacity
        self._cached: dict[str, Cached] = {}
        self._foreign: dict[str, list[EventRow]] = {}
        """What other processes appended to cached streams and has not been folded in."""

    def __len__(self) -> int:
        return len(self._cached)

    def clear(self, position: int) -> None:
        """Forget everything; what is loaded next is as of `position`."""
        self._cached.clear()
        self._foreign.clear()
        self.position = position

    def seen(self, stream: str, including: int = 0) -> Any | None:
        """A state as it was last used; None if it is not here, or without something that was appended up to the
        position `including`. Safe from any thread: what others appended is noted before the position, and folded in
        before the note goes.
        """
        if self.position < including or (including and stream in self._foreign):
            return None
        known = self._cached.get(stream)
        return None if known is None else known.state

    def missing(self, streams: Iterable[str]) -> set[str]:
        """Those that have to be loaded."""
        return {stream for stream in streams if stream not in self._cached}

    def catch_up(self, rows: Iterable[EventRow], position: int) -> None:
        """Take note of what other processes appended to cached streams.

        It is folded in by `fold_in`, when there is time, or when a stream is wanted: few are wanted
        in this turn, and the others would be folded while everybody waits for the lock.
        """
        for row in rows:
            if row.stream in self._cached:
                waiting = self._foreign.setdefault(row.stream, [])
                waiting.append(row)
                if len(waiting) >= FOREIGN_MAX:
                    self._forget(row.stream)
        self.position = position

    def fold_in(self) -> None:
        """Bring all cached streams up to date."""
        for stream in list(self._foreign):
            self._present(stream)

    def _forget(self, stream: str) -> None:
        del self._cached[stream]
        self._foreign.pop(stream, None)

    def _present(self, stream: str) -> Cached:
        try:
            known = self._cached[stream]
            for row in self._foreign.get(stream, ()):
                if row.version > known.version + 1:
                    raise CorruptLog(f"{stream} has no version {known.version + 1}")
                if row.version > known.version:
                    known = self._evolved(known, row)
        except CorruptLog:
            self._forget(stream)
            raise
        self._cached[stream] = known
        self._foreign.pop(stream, None)
        return known

    def _evolved(self, known: Cached, row: EventRow) -> Cached:
        event = decode_event(row, self._categories)
        evolve = self._categories.of(row.stream).evolve
        return Cached(evolve(known.state, event), row.version, known.snapshot_version)

    def load(
        self,
        streams: Iterable[str],
        snapshots: Iterable[Snapshot],
        events_after: Callable[[Mapping[str, int]], Iterable[EventRow]],
    ) -> None:
        """Load streams: snapshot first, then the events past it."""
        loaded = {s: Cached(self._categories.of(s).initial, 0, 0) for s in streams}
        for snapshot in snapshots:
            state = self._decode(snapshot)
            if state is not None:
                loaded[snapshot.stream] = Cached(state, snapshot.version, snapshot.version)
        for row in events_after({stream: known.version for stream, known in loaded.items()}):
            loaded[row.stream] = self._evolved(loaded[row.stream], row)
        self._cached.update(loaded)

    def view(self, streams: Iterable[str]) -> dict[str, tuple[Any, int]]:
        """State and version of cached streams."""
        cached, foreign = self._cached, self._foreign
        found = {}
        for stream in streams:
            known = self._present(stream) if stream in foreign else cached[stream]
            found[stream] = (known.state, known.version)
        return found

    def due_snapshots(self, changed: Mapping[str, tuple[Any, int]]) -> list[Snapshot]:
        """Snapshots to be written along with these changed states."""
        due = []
        for stream, (state, version) in changed.items():
            if version - self._cached[stream].snapshot_version >= SNAPSHOT_EVERY:
                codec = self._categories.codec_of(stream)
                if codec is not None:
                    due.append(Snapshot(stream, version, codec.shape, codec.encode(state)))
        return due

    def keep(
        self, changed: Mapping[str, tuple[Any, int]], snapshots: Iterable[Snapshot], position: int
    ) -> None:
        """Take over the states of a batch that has committed, and forget the oldest."""
        cached = self._cached
        for stream, (state, version) in changed.items():
            old = cached.pop(stream)
            cached[stream] = Cached(state, version, old.snapshot_version)
        for snapshot in snapshots:
            known = cached[snapshot.stream]
            cached[snapshot.stream] = known._replace(snapshot_version=snapshot.version)
        self.position = position
        self.trim()

    def trim(self) -> None:
        """Forget the oldest beyond the capacity."""
        excess = len(self._cached) - self._capacity
        if excess > 0:
            for stream in list(self._cached)[:excess]:
                self._forget(stream)

    def _decode(self, snapshot: Snapshot) -> Any | None:
        codec = self._categories.codec_of(snapshot.stream)
        if codec is None or codec.shape != snapshot.shape:
            return None
        state = codec.decode(snapshot.state)
        share(state)
        return state
