"""Which scripts are ours: those of every payment remembered, and some of those to come."""

from __future__ import annotations

from collections.abc import Iterable

from rails.liquid.descriptor import WatchOnlyDescriptor

LOOKAHEAD = 1_000
"""Addresses watched beyond the newest one known here: another process may open payments too."""
_STEP = 64


class ScriptBook:
    """A set of scripts that grows with the payments. One lookup, however many are open."""

    def __init__(self, descriptor: WatchOnlyDescriptor, lookahead: int = LOOKAHEAD) -> None:
        self._descriptor = descriptor
        self._lookahead = lookahead
        self._scripts: set[bytes] = set()
        self._derived_to = 0

    def __contains__(self, script: bytes) -> bool:
        return script in self._scripts

    def __len__(self) -> int:
        return len(self._scripts)

    def blinding_key(self, script: bytes) -> bytes:
        """The private blinding key of one of our scripts."""
        return self._descriptor.blinding_key(script)

    def remember(self, scripts: Iterable[bytes], newest_ordinal: int) -> None:
        """Watch scripts that were given out before, and those to come after `newest_ordinal`."""
        self._scripts.update(scripts)
        self._derived_to = max(self._derived_to, newest_ordinal)
        self.reach(newest_ordinal)

    def add(self, script: bytes) -> None:
        """Watch one script more."""
        self._scripts.add(script)

    def reach(self, ordinal: int) -> None:
        """Watch up to `ordinal` and the look-ahead beyond it; derived in steps (about 50 µs each)."""
        wanted = ordinal + self._lookahead
        if self._derived_to and wanted < self._derived_to + _STEP:
            return
        for index in range(self._derived_to + 1, wanted + 1):
            self._scripts.add(self._descriptor.script(index))
        self._derived_to = max(self._derived_to, wanted)
