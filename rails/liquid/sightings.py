"""What the follower knows of the outputs paid to us, in memory, and where each stands now. No IO."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from rails.liquid.unblind import Content

MAX_OTHERS_PER_SCRIPT = 200
"""Outputs kept per address beside those worth crediting: an address is one payment's, and a flood of dust or of
worthless assets, which costs its sender next to nothing, must not fill memory."""


@dataclass(slots=True, kw_only=True)
class Sighting:
    """One output paid to one of our scripts."""

    txid: str
    vout: int
    script: bytes
    content: Content | None
    """None if it cannot be told what it holds."""
    first_seen_at: datetime
    other: bool = False
    """Another asset, next to nothing, or unreadable: for a person to look at, not to be credited as it is."""
    height: int | None = None
    """The height of its block in the active chain; None if it is in no block."""
    block_hash: str | None = None
    gone: bool = False
    """In no block and not waiting either: replaced, double-spent or dropped. It may come back."""

    @property
    def outpoint(self) -> tuple[str, int]:
        """Its name."""
        return self.txid, self.vout


class Sightings:
    """Every output seen, by name, by transaction and by script."""

    def __init__(self) -> None:
        self._by_txid: dict[str, list[Sighting]] = {}
        self._by_script: dict[bytes, list[Sighting]] = {}
        self._young: dict[tuple[str, int], Sighting] = {}
        self._others: Counter[bytes] = Counter()

    def add(self, sighting: Sighting) -> bool:
        """Keep an output. False if it is known, or is one of too many others."""
        if any(known.outpoint == sighting.outpoint for known in self.of_transaction(sighting.txid)):
            return False
        if sighting.other:
            if self.is_full(sighting.script):
                return False
            self._others[sighting.script] += 1
        self._by_script.setdefault(sighting.script, []).append(sighting)
        self._by_txid.setdefault(sighting.txid, []).append(sighting)
        self._young[sighting.outpoint] = sighting
        return True

    def is_full(self, script: bytes) -> bool:
        """Whether no more outputs that are not worth crediting are kept of a script."""
        return self._others[script] >= MAX_OTHERS_PER_SCRIPT

    def of_script(self, script: bytes) -> list[Sighting]:
        """Outputs paid to a script, in order of first sight."""
        return list(self._by_script.get(script, ()))

    def of_transaction(self, txid: str) -> list[Sighting]:
        """Outputs of a transaction that are ours."""
        return list(self._by_txid.get(txid, ()))

    def knows(self, txid: str) -> bool:
        """Whether a transaction paid us."""
        return txid in self._by_txid

    def everything(self) -> Iterator[Sighting]:
        """Every output."""
        for sightings in self._by_script.values():
            yield from sightings

    @property
    def young(self) -> Iterable[Sighting]:
        """Outputs that are not final yet (and not gone): those each new block concerns."""
        return list(self._young.values())

    def ripen(self, sighting: Sighting) -> None:
        """It is final, or gone: new blocks do not concern it."""
        self._young.pop(sighting.outpoint, None)

    def rejuvenate(self, sighting: Sighting) -> None:
        """It is not final any more."""
        self._young[sighting.outpoint] = sighting
