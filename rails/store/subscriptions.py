"""Rows of `rail_subscriptions`: the port to them, and PostgreSQL behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from ledger.ownership import Ownership
from rails.store.tables import PAYMENT_ROWS, SUBSCRIPTION_ROWS

_S, _P = SUBSCRIPTION_ROWS.c, PAYMENT_ROWS.c
_SHOWN_MAX = 20

Row = Mapping[str, Any]


class SubscriptionStore(Protocol):
    """Rows that belong to a transaction are written through the log, not here."""

    async def row(self, subscription_id: str) -> Row | None:
        """The row of a subscription."""

    async def of_account(self, account_id: str) -> Sequence[Row]:
        """The newest of the account and of guests merged into it, newest first."""

    async def known_payments(self, payment_ids: Sequence[str]) -> frozenset[str]:
        """Which of these payments have begun."""

    async def look_again(self, subscription_id: str, due_at: datetime) -> None:
        """Ask about it then, unless it is to be asked about before."""


class SqlSubscriptionStore:
    """Implements `SubscriptionStore` on an async engine (`postgresql+psycopg://`)."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._ownership = Ownership(engine)

    async def row(self, subscription_id: str) -> Row | None:
        """See `SubscriptionStore`."""
        return await self._one(sa.select(SUBSCRIPTION_ROWS).where(_S.subscription_id == subscription_id))

    async def of_account(self, account_id: str) -> Sequence[Row]:
        """See `SubscriptionStore`."""
        accounts = await self._ownership.accounts_of(account_id)
        theirs = sa.select(SUBSCRIPTION_ROWS).where(_S.account_id.in_(accounts))
        newest = theirs.order_by(_S.opened_at.desc(), _S.subscription_id.desc()).limit(_SHOWN_MAX)
        async with self._engine.connect() as connection:
            return [dict(row) for row in (await connection.execute(newest)).mappings()]

    async def known_payments(self, payment_ids: Sequence[str]) -> frozenset[str]:
        """See `SubscriptionStore`."""
        query = sa.select(_P.payment_id).where(_P.payment_id.in_(payment_ids))
        async with self._engine.connect() as connection:
            return frozenset((await connection.execute(query)).scalars())

    async def look_again(self, subscription_id: str, due_at: datetime) -> None:
        """See `SubscriptionStore`."""
        mine = sa.update(SUBSCRIPTION_ROWS).where(_S.subscription_id == subscription_id, _S.due_at > due_at)
        async with self._engine.begin() as connection:
            await connection.execute(mine.values(due_at=due_at))

    async def _one(self, query: sa.Select[Any]) -> Row | None:
        async with self._engine.connect() as connection:
            row = (await connection.execute(query)).mappings().first()
            return None if row is None else dict(row)
