"""Whose something is: what a guest made belongs to whoever the guest was merged into.

Streams and rows keep the account that made them, for ever. Reads ask here which accounts a person stands
for; merges go in chains (a guest into a guest, that one into a person), and so do these answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ledger.identifiers import AccountId
from ledger.log.tables import account_merges, merged_accounts

ACCOUNTS_MAX = 1_000
"""How many accounts are followed for one question, the nearest first."""


_account = sa.bindparam("account_id", type_=sa.Text())
# Built once: SQLAlchemy then finds the compiled form of each by its object.


def _all_of() -> sa.Select[Any]:
    theirs = sa.select(_account.label("account_id")).cte("theirs", recursive=True)
    theirs = theirs.union(
        sa.select(merged_accounts.c.account_id).where(merged_accounts.c.into_account == theirs.c.account_id)
    )
    return sa.select(theirs.c.account_id).limit(ACCOUNTS_MAX)


def _guests_of() -> sa.Select[Any]:
    """Of merges that are recorded, and of those that are asked for only: where one stands in both, it counts once."""
    recorded = sa.select(merged_accounts.c.account_id, merged_accounts.c.into_account)
    asked_for = sa.select(account_merges.c.account_id, account_merges.c.into_account)
    merges = recorded.union_all(asked_for).subquery()
    theirs = sa.select(_account.label("account_id")).cte("theirs", recursive=True)
    theirs = theirs.union(sa.select(merges.c.account_id).where(merges.c.into_account == theirs.c.account_id))
    return sa.select(theirs.c.account_id).limit(ACCOUNTS_MAX)


def _last_of() -> sa.Select[Any]:
    later = sa.select(_account.label("account_id"), sa.literal(0).label("merges")).cte(
        "later", recursive=True
    )
    later = later.union_all(
        sa.select(merged_accounts.c.into_account, later.c.merges + 1)
        .where(merged_accounts.c.account_id == later.c.account_id)
        .where(later.c.merges < ACCOUNTS_MAX)
    )
    return sa.select(later.c.account_id).order_by(later.c.merges.desc()).limit(1)


_ALL, _GUESTS, _LAST = _all_of(), _guests_of(), _last_of()


async def accounts_of(connection: AsyncConnection, account_id: str) -> Sequence[str]:
    """The account, then every account that was merged into it, also through others. At most `ACCOUNTS_MAX`."""
    found = await connection.execute(_ALL, {"account_id": account_id})
    return [str(account) for account in found.scalars()]


class Ownership:
    """Questions to the merges, in connections of their own."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def accounts_of(self, account_id: str) -> Sequence[str]:
        """See `accounts_of`."""
        async with self._engine.connect() as connection:
            return await accounts_of(connection, account_id)

    async def guests_of(self, account_id: str) -> Sequence[str]:
        """The guests of this account: who were merged into it, and who are to be as soon as the log answers.

        For what a guest has begun and the person goes on with; what a guest owns is the person's once it is recorded.
        """
        async with self._engine.connect() as connection:
            found = await connection.execute(_GUESTS, {"account_id": account_id})
            return [str(account) for account in found.scalars() if account != account_id]

    async def owner_of(self, account_id: AccountId) -> AccountId:
        """Whose what this account made is now: its own, or the account's at the end of its merges."""
        async with self._engine.connect() as connection:
            found = await connection.execute(_LAST, {"account_id": account_id})
            return AccountId(found.scalar_one())

    async def merges_into(self, accounts: Sequence[str]) -> Mapping[str, int]:
        """How many accounts were merged into each of these itself; those without any are left out."""
        into = merged_accounts.c.into_account
        theirs = into == sa.any_(sa.bindparam("accounts", type_=ARRAY(sa.Text())))
        query = sa.select(into, sa.func.count()).where(theirs).group_by(into)
        async with self._engine.connect() as connection:
            found = await connection.execute(query, {"accounts": list(accounts)})
            return {str(account): int(count) for account, count in found}

    async def owns(self, account_id: str, owner: str) -> bool:
        """Whether what `owner` made belongs to this account: it is the same, or was merged into it."""
        if account_id == owner:
            return True
        start = sa.select(merged_accounts.c.into_account).where(merged_accounts.c.account_id == owner)
        later = start.cte("later", recursive=True)
        later = later.union(
            sa.select(merged_accounts.c.into_account).where(
                merged_accounts.c.account_id == later.c.into_account
            )
        )
        followed = sa.select(later.c.into_account).limit(ACCOUNTS_MAX).subquery()
        query = sa.select(sa.literal(1)).where(followed.c.into_account == account_id)
        async with self._engine.connect() as connection:
            return (await connection.execute(query.limit(1))).first() is not None
