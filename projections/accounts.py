"""Balances and statements of credit accounts, as a projection and as questions to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import RowMapping
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ledger.domain.movements import movement
from ledger.log.model import Envelope
from ledger.ownership import accounts_of
from projections.statement import describe
from projections.tables import balances, statement_entries

PAGE_MAX = 200


class AccountProjection:
    """Keeps `balances` and `statement_entries`."""

    name = "accounts"

    async def apply(self, connection: AsyncConnection, entries: Sequence[Envelope]) -> None:
        """See `Projection.apply`. An event already counted is passed over."""
        mine = [entry for entry in entries if entry.stream.startswith("acct_")]
        if not mine:
            return
        known = await self._balances(connection, {entry.stream for entry in mine})
        rows = [row for entry in mine if (row := self._entry(known, entry)) is not None]
        if not rows:
            return
        await connection.execute(sa.insert(statement_entries), rows)
        statement = insert(balances)
        changes = {name: statement.excluded[name] for name in ("posted", "held", "debt", "position")}
        await connection.execute(
            statement.on_conflict_do_update(index_elements=["account_id"], set_=changes),
            [known[stream] for stream in sorted({row["account_id"] for row in rows})],
        )

    async def _balances(self, connection: AsyncConnection, accounts: set[str]) -> dict[str, dict[str, Any]]:
        query = sa.select(balances).where(balances.c.account_id.in_(sorted(accounts)))
        found = {row["account_id"]: dict(row) for row in (await connection.execute(query)).mappings()}
        empty = {"posted": 0, "held": 0, "debt": 0, "position": 0}
        return {account: found.get(account, {"account_id": account, **empty}) for account in accounts}

    def _entry(self, known: dict[str, dict[str, Any]], entry: Envelope) -> dict[str, Any] | None:
        balance = known[entry.stream]
        if entry.position <= balance["position"]:
            return None
        change = movement(entry.event)
        if change is None:
            # The position stays: else it would depend on what else is in the page.
            return None
        balance["position"] = entry.position
        balance["posted"] += change.posted
        balance["held"] += change.held
        balance["debt"] += change.debt
        return {
            "account_id": entry.stream,
            "position": entry.position,
            "recorded_at": entry.recorded_at,
            "kind": change.kind,
            "credits": change.posted or -change.held,
            "posted_after": balance["posted"],
            "held_after": balance["held"],
            "debt_after": balance["debt"],
            "reference_type": change.reference_type,
            "reference_id": change.reference_id,
            "description": describe(entry.event, change),
        }


class Statements:
    """Questions to the statement."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def page(
        self,
        account_id: str,
        *,
        before: int | None,
        limit: int,
        reference_type: str | None = None,
        kind: str | None = None,
        reference_id: str | None = None,
    ) -> Sequence[RowMapping]:
        """Entries of an account and of guests merged into it, newest first, older than position `before`.

        Filters narrow it together. What is left after an entry is of the account that it names.
        """
        table = statement_entries
        query = sa.select(table)
        if before is not None:
            query = query.where(table.c.position < before)
        wanted = {"reference_type": reference_type, "kind": kind, "reference_id": reference_id}
        for name, value in wanted.items():
            if value is not None:
                query = query.where(table.c[name] == value)
        query = query.order_by(table.c.position.desc()).limit(min(limit, PAGE_MAX))
        async with self._engine.connect() as connection:
            theirs = table.c.account_id.in_(await accounts_of(connection, account_id))
            return list((await connection.execute(query.where(theirs))).mappings())

    async def after(self, account_id: str, position: int, limit: int) -> Sequence[RowMapping]:
        """Entries of an account past a position, oldest first."""
        table = statement_entries
        query = (
            sa.select(table)
            .where(table.c.account_id == account_id, table.c.position > position)
            .order_by(table.c.position)
            .limit(limit)
        )
        async with self._engine.connect() as connection:
            return list((await connection.execute(query)).mappings())

    async def balance(self, account_id: str) -> RowMapping | None:
        """The balance as of the projection's position."""
        query = sa.select(balances).where(balances.c.account_id == account_id)
        async with self._engine.connect() as connection:
            return (await connection.execute(query)).mappings().one_or_none()
