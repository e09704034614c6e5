"""Who may act as an operator: people whom somebody at the command line let in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.auth.identity import Principal, Role
from gateway.database.tables import operators, people
from ledger.clock import Clock
from ledger.identifiers import AccountId


class Operators:
    """Looked up with each request: whoever is taken out may do nothing from then on."""

    def __init__(self, engine: AsyncEngine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    async def includes(self, principal: Principal) -> bool:
        """Whether it is one. Only people are: a visitor's token cannot be taken from them by their issuer."""
        if principal.role is not Role.PERSON:
            return False
        query = sa.select(sa.literal(1)).where(operators.c.account_id == principal.account_id)
        async with self._engine.connect() as connection:
            return (await connection.execute(query)).first() is not None

    async def add(self, account_id: str, added_by: str) -> None:
        """Let somebody in."""
        row = {"account_id": account_id, "added_by": added_by, "added_at": self._clock()}
        await self._write(insert(operators).values(row).on_conflict_do_nothing())

    async def remove(self, account_id: str) -> None:
        """Take somebody out."""
        await self._write(sa.delete(operators).where(operators.c.account_id == account_id))

    async def all(self) -> Sequence[dict[str, Any]]:
        """Everybody, with the e-mail address if it is known."""
        query = (
            sa.select(operators, people.c.email)
            .join(people, people.c.account_id == operators.c.account_id, isouter=True)
            .order_by(operators.c.added_at)
        )
        async with self._engine.connect() as connection:
            return [dict(row) for row in (await connection.execute(query)).mappings()]

    async def people_named(self, who: str) -> Sequence[AccountId]:
        """The accounts of people with this e-mail address, or this account if it is a person's."""
        named = sa.or_(people.c.account_id == who, sa.func.lower(people.c.email) == who.lower())
        async with self._engine.connect() as connection:
            found = await connection.execute(sa.select(people.c.account_id).where(named))
            return [AccountId(account) for account in found.scalars()]

    async def _write(self, statement: sa.Executable) -> None:
        async with self._engine.begin() as connection:
            await connection.execute(statement)


def actor_of(principal: Principal) -> str:
    """An operator in the log's words."""
    return f"operator:{principal.account_id}"
