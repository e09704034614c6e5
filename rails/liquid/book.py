"""Which scripts are ours: those of every payment remembered, and some of those to come."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rails.liquid.descriptor import WatchOnlyDescriptor


class ScriptBook:
    """A set of scripts that grows with the payments. One lookup, however many are open."""

    def __init__(self, descriptor: WatchOnlyDescriptor) -> None:
        self._descriptor = descriptor
        self._scripts: set[bytes] = set()

    def __contains__(self, script: bytes) -> bool:
        return script in self._scripts

    def __len__(self) -> int:
        return len(self._scripts)

    def blinding_key(self, script: bytes) -> bytes:
        """The private blinding key of one of our scripts."""
        return self._descriptor.blinding_key(script)

    def add(self, scripts: Iterable[bytes]) -> None:
        """Watch these scripts too."""
        self._scripts.update(scripts)

    def add_range(self, after: int, up_to: int) -> Sequence[bytes]:
        """Watch the scripts of these indexes too, without the first; returns them (about 50 µs each)."""
        scripts = [self._descriptor.script(index) for index in range(after + 1, up_to + 1)]
        self._scripts.update(scripts)
        return scripts
