"""What a verification found: bounded in number, and able to say which event was wrong first."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ledger.log.model import Envelope

_FAR = 2**63
FINDINGS_MAX = 100
"""More are counted, not kept: one broken event may break everything after it."""

Progress = Callable[[str, int, int], None]
"""Called now and then with what is being read, how much of it is done, and how much there is."""


def silent(what: str, done: int, whole: int) -> None:
    """Progress that nobody watches."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong."""

    why: str
    part: str
    """`chain`, `stream`, `snapshot`, `command`, `projection` or `seal`."""
    position: int | None = None
    stream: str | None = None
    version: int | None = None
    batch: int | None = None
    until: int | None = None
    """Set if it is known only that something from `position` to here is wrong."""


class Findings:
    """Collects what is wrong."""

    def __init__(self) -> None:
        self.kept: list[Finding] = []
        self.count = 0

    def add(self, finding: Finding) -> None:
        """Keep a finding, or only count it if there are too many."""
        self.count += 1
        if len(self.kept) < FINDINGS_MAX:
            self.kept.append(finding)

    def at(self, envelope: Envelope, part: str, why: str) -> None:
        """Something is wrong with this event."""
        self.add(
            Finding(
                why=why,
                part=part,
                position=envelope.position,
                stream=envelope.stream,
                version=envelope.version,
                batch=envelope.batch,
            )
        )

    @property
    def first(self) -> Finding | None:
        """The first thing that is wrong; of a whole batch, the first event that is known to be."""
        first = min(self.kept, key=_place, default=None)
        if first is None or first.until is None:
            return first
        inside = [
            f
            for f in self.kept
            if f.until is None and (first.position or 0) <= (f.position or 0) <= first.until
        ]
        return min(inside, key=_place, default=first)


def _place(finding: Finding) -> tuple[int, bool, bool]:
    position = _FAR if finding.position is None else finding.position
    return position, finding.until is not None, finding.part != "chain"
