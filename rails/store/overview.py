"""What operators look for among all payments, read from PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from rails.store.tables import MONEY_ROWS, NOTIFICATION_ROWS, PAYMENT_ROWS, REFERENCE_ROWS, REFUND_ROWS

_P = PAYMENT_ROWS.c
MOST = 200
"""Rows of one answer."""
Row = Mapping[str, Any]


class PaymentOverview:
    """Questions over all accounts. Rows are those of `rail_payments`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def search(
        self,
        text: str = "",
        *,
        accounts: Sequence[str] = (),
        rail: str | None = None,
        state: str | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> Sequence[Row]:
        """Payments, newest first, before the payment `before`: of these accounts; or which `text` names, by the id of
        the payment, of its account or of a refund, by the rail's reference or the money's name. Empty finds all.
        """
        wanted = sa.select(PAYMENT_ROWS).order_by(_P.payment_id.desc()).limit(min(limit, MOST))
        if accounts:
            wanted = wanted.where(_P.account_id.in_(accounts))
        elif text:
            wanted = wanted.where(_P.payment_id.in_(_named(text)))
        if rail is not None:
            wanted = wanted.where(_P.rail == rail)
        if state is not None:
            wanted = wanted.where(_P.state == state)
        if before is not None:
            wanted = wanted.where(_P.payment_id < before)
        return await self._many(wanted)

    async def attention(self) -> Sequence[Row]:
        """Payments with money in suspense, without a price, or disputed; oldest first."""
        waits = sa.or_(_P.suspended, _P.unpriced, _P.state == "disputed")
        return await self._many(sa.select(PAYMENT_ROWS).where(waits).order_by(_P.payment_id).limit(MOST))

    async def refunds(self) -> Sequence[Row]:
        """Refunds that have not ended, oldest first, with `account_id`, and `destination` where it is sent by hand."""
        mine = REFUND_ROWS.c
        query = (
            sa.select(
                mine.refund_id,
                mine.payment_id,
                _P.account_id,
                mine.rail,
                mine.by_hand,
                sa.case((mine.by_hand, mine.destination)).label("destination"),
                mine.attempts,
                mine.last_problem,
            )
            .join(PAYMENT_ROWS, _P.payment_id == mine.payment_id)
            .order_by(mine.refund_id)
            .limit(MOST)
        )
        return await self._many(query)

    async def unmatched(self) -> Sequence[Row]:
        """Notifications about payments of ours that could not be dealt with, oldest first."""
        mine = NOTIFICATION_ROWS.c
        query = (
            sa.select(mine.id, mine.rail, REFERENCE_ROWS.c.payment_id, mine.received_at, mine.last_problem)
            .join(
                REFERENCE_ROWS,
                sa.and_(REFERENCE_ROWS.c.rail == mine.rail, REFERENCE_ROWS.c.reference == mine.reference),
                isouter=True,
            )
            .where(mine.state == "unmatched")
            .order_by(mine.id)
            .limit(MOST)
        )
        return await self._many(query)

    async def _many(self, query: sa.Select[Any]) -> list[dict[str, Any]]:
        async with self._engine.connect() as connection:
            return [dict(row) for row in (await connection.execute(query)).mappings()]


def _named(text: str) -> sa.CompoundSelect[Any]:
    """Payments that a name leads to; each by an index."""
    return sa.union(
        sa.select(_P.payment_id).where(_P.payment_id == text),
        sa.select(_P.payment_id).where(_P.account_id == text),
        sa.select(REFERENCE_ROWS.c.payment_id).where(REFERENCE_ROWS.c.reference == text),
        sa.select(MONEY_ROWS.c.payment_id).where(MONEY_ROWS.c.money_ref == text),
        sa.select(REFUND_ROWS.c.payment_id).where(REFUND_ROWS.c.refund_id == text),
    )
