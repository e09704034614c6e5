"""Notes when time will next do something to an account: a lot lapses, a day is earned.

A projection like any other: it writes down what events tell and commands nothing. The rows are worked
off by `processes.idle_accounts`; repeating events makes accounts due once in vain, and no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from ledger.domain.due import due_after
from ledger.log.model import Envelope
from ledger.log.tables import account_due
from projections.writing import driver_of, inserting, put

_PUT_SOONER = inserting(
    account_due,
    ("account_id", "due_at"),
    on_conflict="ON CONFLICT (account_id) DO UPDATE SET due_at = least(account_due.due_at, excluded.due_at)",
)


class DueProjection:
    """Notes when accounts become due."""

    name = "account_due"

    async def apply(self, connection: AsyncConnection, entries: Sequence[Envelope]) -> None:
        """See `Projection.apply`. Repeating events does no harm."""
        rows: dict[str, dict[str, Any]] = {}
        for entry in entries:
            due_at = due_after(entry.event)
            if due_at is None:
                continue
            earlier = rows.get(entry.stream)
            rows[entry.stream] = {
                "account_id": entry.stream,
                "due_at": due_at if earlier is None else min(due_at, earlier["due_at"]),
            }
        if not rows:
            return
        await put(await driver_of(connection), _PUT_SOONER, [rows[account] for account in sorted(rows)])
