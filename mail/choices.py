"""Which letters people want: what is optional can be turned off, and on again."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from ledger.clock import Clock
from mail.tables import CHOICE_ROWS


class Choices:
    """What each account chose. Without a choice everything is sent."""

    def __init__(self, engine: AsyncEngine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    async def wants_optional(self, account_id: str) -> bool:
        """Whether letters that can be turned off are wanted."""
        query = sa.select(CHOICE_ROWS.c.optional).where(CHOICE_ROWS.c.account_id == account_id)
        async with self._engine.connect() as connection:
            found = (await connection.execute(query)).scalar_one_or_none()
        return found is None or bool(found)

    async def choose(self, account_id: str, *, optional: bool) -> None:
        """Turn optional letters on or off."""
        values = {"optional": optional, "changed_at": self._clock()}
        statement = insert(CHOICE_ROWS).values(account_id=account_id, **values)
        statement = statement.on_conflict_do_update(index_elements=[CHOICE_ROWS.c.account_id], set_=values)
        async with self._engine.begin() as connection:
            await connection.execute(statement)
