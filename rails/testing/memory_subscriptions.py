"""The store of subscriptions in memory, over the rows of a `MemoryLog`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rails.testing.memory_store import Rows

_TABLE = "rail_subscriptions"


class MemorySubscriptionStore:
    """Implements `SubscriptionStore`. One event loop, no durability; nobody is merged here."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    async def row(self, subscription_id: str) -> Mapping[str, Any] | None:
        """See `SubscriptionStore`."""
        return self._rows.get((_TABLE, subscription_id))

    async def of_account(self, account_id: str) -> Sequence[Mapping[str, Any]]:
        """See `SubscriptionStore`."""
        theirs = [
            row
            for (table, _), row in self._rows.items()
            if table == _TABLE and row["account_id"] == account_id
        ]
        return sorted(theirs, key=lambda row: (row["opened_at"], row["subscription_id"]), reverse=True)

    async def known_payments(self, payment_ids: Sequence[str]) -> frozenset[str]:
        """See `SubscriptionStore`."""
        return frozenset(name for name in payment_ids if ("rail_payments", name) in self._rows)

    async def look_again(self, subscription_id: str, due_at: datetime) -> None:
        """See `SubscriptionStore`."""
        row = self._rows[_TABLE, subscription_id]
        row["due_at"] = min(row["due_at"], due_at)
