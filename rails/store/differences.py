"""What operators see of the differences between the rails' books and ours, read from PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from rails.store.movements import BOOK_ROWS, DIFFERENCE_ROWS, RECONCILIATION_ROWS

_D = DIFFERENCE_ROWS.c
MOST = 200
"""Rows of one answer."""
Row = Mapping[str, Any]


class OpenDifferences(NamedTuple):
    """How many differences of a rail stand, and since when the oldest."""

    rail: str
    stands: int
    oldest: datetime | None


class Differences:
    """Questions about both sides."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def listed(
        self, *, rail: str | None = None, closed: bool = False, before: int | None = None, limit: int = 50
    ) -> Sequence[Row]:
        """Those that stand, or those that were closed by agreement; newest first, before the row `before`."""
        query = sa.select(DIFFERENCE_ROWS).order_by(_D.id.desc()).limit(min(limit, MOST))
        query = query.where(_D.closed_at.is_not(None) if closed else _D.closed_at.is_(None))
        if rail is not None:
            query = query.where(_D.rail == rail)
        if before is not None:
            query = query.where(_D.id < before)
        return await self._many(query)

    async def runs(self) -> Sequence[Row]:
        """Each rail: up to when it was read and compared, when it is next, what kept it from it, what stands."""
        stands = sa.select(sa.func.count()).where(
            _D.rail == RECONCILIATION_ROWS.c.rail, _D.closed_at.is_(None)
        )
        query = (
            sa.select(
                RECONCILIATION_ROWS.c.rail,
                BOOK_ROWS.c.read_at,
                BOOK_ROWS.c.compared_at,
                RECONCILIATION_ROWS.c.due_at,
                RECONCILIATION_ROWS.c.attempts,
                RECONCILIATION_ROWS.c.last_problem,
                stands.scalar_subquery().label("open"),
            )
            .join(BOOK_ROWS, BOOK_ROWS.c.rail == RECONCILIATION_ROWS.c.rail, isouter=True)
            .order_by(RECONCILIATION_ROWS.c.rail)
        )
        return await self._many(query)

    async def figures(self) -> Sequence[OpenDifferences]:
        """How many stand, by rail; a rail that is compared and has none is there, too."""
        stands = sa.and_(_D.rail == RECONCILIATION_ROWS.c.rail, _D.closed_at.is_(None))
        query = (
            sa.select(RECONCILIATION_ROWS.c.rail, sa.func.count(_D.id), sa.func.min(_D.opened_at))
            .join(DIFFERENCE_ROWS, stands, isouter=True)
            .group_by(RECONCILIATION_ROWS.c.rail)
            .order_by(RECONCILIATION_ROWS.c.rail)
        )
        async with self._engine.connect() as connection:
            return [OpenDifferences(*row) for row in await connection.execute(query)]

    async def _many(self, query: sa.Select[Any]) -> list[dict[str, Any]]:
        async with self._engine.connect() as connection:
            return [dict(row) for row in (await connection.execute(query)).mappings()]
