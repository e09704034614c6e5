"""Notes when time will next do something to an account: a lot lapses, a day is earned.

A projection like any other: it writes down what events tell and commands nothing. The rows are worked
off by `processes.idle_accounts`; repeating events makes accounts due once in vain, and no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from ledger.domain.due import due_after
from ledger.log.model import Envelope
from ledger.log.tables import account_due


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
        statement = insert(account_due)
        sooner = sa.func.least(account_due.c.due_at, statement.excluded.due_at)
        await connection.execute(
            statement.on_conflict_do_update(index_elements=["account_id"], set_={"due_at": sooner}),
            [rows[account_id] for account_id in sorted(rows)],
        )
