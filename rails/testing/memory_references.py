"""What the core remembers for rails, kept in memory: for tests of rails and of the core."""

from __future__ import annotations

from collections.abc import Sequence

from ledger.identifiers import PaymentId
from rails.contract import OpenReference


class MemoryReferences:
    """A `ReferenceStore` in memory. References are never forgotten."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, OpenReference]] = {}
        self._cursors: dict[str, str] = {}

    def next_ordinal(self, rail: str) -> int:
        """1, 2, 3 … for each rail."""
        return len(self._rows.get(rail, {})) + 1

    def add(self, rail: str, reference: str, payment_id: PaymentId, ordinal: int) -> None:
        """Remember a payment request; adding the same one again changes nothing."""
        row = OpenReference(reference=reference, payment_id=payment_id, ordinal=ordinal)
        self._rows.setdefault(rail, {}).setdefault(reference, row)

    def keep_cursor(self, rail: str, cursor: str) -> None:
        """Remember how far the rail's notifications were followed."""
        self._cursors[rail] = cursor

    async def cursor(self, rail: str) -> str | None:
        """The newest cursor that was kept of this rail's notifications."""
        return self._cursors.get(rail)

    async def all(self, rail: str) -> Sequence[OpenReference]:
        """Every reference ever opened on this rail, in order of `ordinal`."""
        return sorted(self._rows.get(rail, {}).values(), key=lambda row: row.ordinal)
