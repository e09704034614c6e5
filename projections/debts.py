"""Which accounts owe, and what was adjusted by hand: for operators, out of the read models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from projections.tables import balances, statement_entries

MOST = 200


class Debts:
    """Questions over all accounts."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def owed(self) -> Sequence[Mapping[str, Any]]:
        """Rows of `balances` of accounts that owe credits, the largest debt first."""
        query = sa.select(balances).where(balances.c.debt > 0).order_by(balances.c.debt.desc()).limit(MOST)
        return await self._many(query)

    async def adjustments(self, limit: int = 50) -> Sequence[Mapping[str, Any]]:
        """Entries of statements that were made by hand, the newest first."""
        entries = statement_entries.c
        by_hand = sa.select(statement_entries).where(entries.reference_type == "adjustment")
        return await self._many(by_hand.order_by(entries.position.desc()).limit(limit))

    async def _many(self, query: sa.Select[Any]) -> list[dict[str, Any]]:
        async with self._engine.connect() as connection:
            return [dict(row) for row in (await connection.execute(query)).mappings()]
