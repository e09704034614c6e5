"""The store of what was used beyond plans in memory, over the rows of a `MemoryLog`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rails.store.usage import REPORTED, WAITING, Counts
from rails.testing.memory_store import Rows

_TABLE = "rail_uses"


class MemoryUseStore:
    """Implements `UseStore`. One event loop, no durability."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def all(self) -> Sequence[Mapping[str, Any]]:
        """Every use, in order."""
        rows = [row for (table, _), row in self._rows.items() if table == _TABLE]
        return sorted(rows, key=lambda row: (row["used_at"], row["use_id"]))

    def waiting(self) -> Sequence[Mapping[str, Any]]:
        """What a sweeper would work on, in order."""
        return [dict(row) for row in self.all() if row["state"] == WAITING]

    async def counts(self, subscription_id: str) -> Counts:
        """See `UseStore`."""
        rows = [row for row in self.all() if row["subscription_id"] == subscription_id]
        waiting = [row for row in rows if row["state"] == WAITING]
        return Counts(
            reported=sum(row["credits"] for row in rows if row["state"] == REPORTED),
            open=sum(row["credits"] for row in waiting if row.get("first_tried_at") is not None),
            waiting=sum(row["credits"] for row in waiting),
        )

    async def tried(self, use_id: str, now: datetime) -> None:
        """See `UseStore`."""
        row = self._rows[_TABLE, use_id]
        if row.get("first_tried_at") is None:
            row["first_tried_at"] = now

    async def reported(self, use_id: str) -> None:
        """See `UseStore`."""
        row = self._rows[_TABLE, use_id]
        if row["state"] == WAITING:
            row["state"] = REPORTED
