"""Balances and statements of credit accounts, as a projection and as questions to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool
from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ledger.domain.movements import movement
from ledger.log.model import Envelope
from ledger.ownership import ACCOUNTS_MAX
from projections.statement import describe
from projections.tables import balances, statement_entries
from projections.writing import Driver, driver_of, found, inserting, put

PAGE_MAX = 200
_BALANCE = ("account_id", "posted", "held", "debt", "position")
_BALANCES = f"SELECT {', '.join(_BALANCE)} FROM balances WHERE account_id = ANY(%s)".encode()
_PUT_BALANCES = inserting(
    balances,
    on_conflict="ON CONFLICT (account_id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _BALANCE[1:]),
)
_PUT_ENTRIES = inserting(statement_entries)


class AccountProjection:
    """Keeps `balances` and `statement_entries`."""

    name = "accounts"

    async def apply(self, connection: AsyncConnection, entries: Sequence[Envelope]) -> None:
        """See `Projection.apply`. An event already counted is passed over."""
        mine = [entry for entry in entries if entry.stream.startswith("acct_")]
        if not mine:
            return
        driver = await driver_of(connection)
        known = await self._balances(driver, {entry.stream for entry in mine})
        rows = [row for entry in mine if (row := self._entry(known, entry)) is not None]
        if not rows:
            return
        await put(driver, _PUT_ENTRIES, rows)
        moved = sorted({row["account_id"] for row in rows})
        await put(driver, _PUT_BALANCES, [known[account] for account in moved])

    async def _balances(self, driver: Driver, accounts: set[str]) -> dict[str, dict[str, Any]]:
        rows = await found(driver, _BALANCES, sorted(accounts))
        kept = {row[0]: dict(zip(_BALANCE, row, strict=True)) for row in rows}
        empty = dict.fromkeys(_BALANCE, 0)
        return {account: kept.get(account, {**empty, "account_id": account}) for account in accounts}

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


_PAGE = b"""
WITH RECURSIVE followed AS (
    SELECT %(account)s::text AS account_id
    UNION SELECT m.account_id FROM merged_accounts m JOIN followed f ON m.into_account = f.account_id
), theirs AS (SELECT account_id FROM followed LIMIT %(most)s)
SELECT (SELECT coalesce(max(notification_id), 0) FROM stored_events) AS head,
       (SELECT position FROM projection_positions WHERE projection = %(projection)s) AS reached,
       entry.*
FROM (VALUES (1)) AS always LEFT JOIN (
    SELECT newest.* FROM theirs CROSS JOIN LATERAL (
        SELECT * FROM statement_entries e
        WHERE e.account_id = theirs.account_id AND e.position < %(before)s
          AND (%(reference_type)s::text IS NULL OR e.reference_type = %(reference_type)s)
          AND (%(kind)s::text IS NULL OR e.kind = %(kind)s)
          AND (%(reference_id)s::text IS NULL OR e.reference_id = %(reference_id)s)
        ORDER BY e.position DESC LIMIT %(limit)s
    ) AS newest ORDER BY newest.position DESC LIMIT %(limit)s
) AS entry ON TRUE
ORDER BY entry.position DESC
"""
"""Of each account no more than a page is looked at, however long its statement is."""
_LAST = 2**63 - 1


class StatementPage(NamedTuple):
    """Entries as rows of `statement_entries`, newest first, and what they are as of."""

    rows: Sequence[Mapping[str, Any]]
    head: int
    """The log's, when they were read."""
    is_current: bool
    """Whether everything up to the head is in them."""


class Statements:
    """Questions to the statement."""

    def __init__(self, engine: AsyncEngine, pool: AsyncConnectionPool[Any]) -> None:
        self._engine = engine
        self._pool = pool

    async def page(
        self,
        account_id: str,
        *,
        before: int | None,
        limit: int,
        reference_type: str | None = None,
        kind: str | None = None,
        reference_id: str | None = None,
    ) -> StatementPage:
        """Entries of an account and of guests merged into it, newest first, older than position `before`.

        Filters narrow it together. What is left after an entry is of the account that it names.
        """
        known = {
            "account": account_id,
            "most": ACCOUNTS_MAX,
            "projection": AccountProjection.name,
            "before": _LAST if before is None else before,
            "limit": min(limit, PAGE_MAX),
            "reference_type": reference_type,
            "kind": kind,
            "reference_id": reference_id,
        }
        async with (
            self._pool.connection() as connection,
            connection.cursor(row_factory=dict_row) as cursor,
        ):
            await cursor.execute(_PAGE, known, prepare=True)
            found = await cursor.fetchall()
        head, reached = found[0]["head"], found[0]["reached"] or 0
        rows = [row for row in found if row["position"] is not None]
        return StatementPage(rows, head, is_current=reached >= head)

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
