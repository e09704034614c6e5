"""Rows that wait for work: which are due, who has claimed them, and how their last attempt ended.

A table of follow-ups has `due_at` and the columns of `retry_columns`; one that a sweeper works off has a
single primary key column.
A row is written in the transaction of the event that causes it, and stays until its work is done. A
claim only moves `due_at` past a lease: if the process dies, the row is due again when the lease ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from ledger.errors import OwnError

PROBLEM_CHARACTERS_MAX = 200

UNEXPECTED = "unexpected"
"""The code of a failure that is not one of ours."""


def retry_columns() -> tuple[sa.Column[Any], ...]:
    """What a table of follow-ups has beside its key and `due_at`. Fresh columns for each table."""
    return (
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0", comment="failures in a row"),
        sa.Column("last_problem", sa.Text, comment="what the newest failure was; no personal data"),
    )


def failing_index(table: str) -> sa.Index:
    """By which operators' figures find the few rows that fail."""
    return sa.Index(f"{table}_failing", "attempts", postgresql_where=sa.text("attempts > 0"))


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowUps:
    """One kind of follow-up, and the table in which its rows wait."""

    kind: str
    """Its name for operators, for example `guest_merge`."""
    table: sa.Table
    waiting: sa.ColumnElement[bool] | None = None
    """Which rows of the table wait; None if all do."""

    @property
    def key(self) -> sa.Column[Any]:
        """The primary key column."""
        found: sa.Column[Any] = next(iter(self.table.primary_key.columns))
        return found

    @property
    def waits(self) -> sa.ColumnElement[bool]:
        """The condition that a row waits."""
        return sa.true() if self.waiting is None else self.waiting


class Claimed(NamedTuple):
    """A row that this process works on, as it was claimed."""

    row: Mapping[str, Any]
    version: str
    """PostgreSQL's own mark of who wrote the row last: another one shows that something new came."""

    @property
    def attempts(self) -> int:
        """Failures in a row so far."""
        return int(self.row["attempts"])


def claimed(row: sa.RowMapping) -> Claimed:
    """A row that was returned together with `version_of_row`."""
    columns = dict(row)
    return Claimed(columns, str(columns.pop("row_version")))


def version_of_row() -> sa.Label[str]:
    """The column that `claimed` wants."""
    return sa.literal_column("xmin::text", sa.Text).label("row_version")


def _claiming(followups: FollowUps) -> sa.Executable:
    """Claims rows that are due at `now` until `until`, at `most` so many."""
    table, key = followups.table, followups.key
    due = (
        sa.select(key)
        .where(table.c.due_at <= sa.bindparam("now", type_=table.c.due_at.type), followups.waits)
        .order_by(table.c.due_at)
        .limit(sa.bindparam("most", type_=sa.Integer()))
        .with_for_update(skip_locked=True)
        # A common table expression with a lock runs once, so that never more than that are locked.
        .cte("due")
    )
    return (
        sa.update(table)
        .where(key.in_(sa.select(due.c[key.name])))
        .values(due_at=sa.bindparam("until", type_=table.c.due_at.type))
        .returning(*table.c, version_of_row())
    )


class DueRows:
    """The rows of one kind in PostgreSQL. Any number of processes may claim from them."""

    def __init__(self, engine: AsyncEngine, followups: FollowUps) -> None:
        self._engine = engine
        self._followups = followups
        self._table = followups.table
        # Each process asks once a second for every kind: building this statement would be most of what that costs.
        self._claim = _claiming(followups)

    async def claim(self, now: datetime, until: datetime, limit: int) -> Sequence[Claimed]:
        """Claim the rows that are due longest, for as long as `until`; what others have is passed over."""
        known = {"now": now, "until": until, "most": limit}
        async with self._engine.begin() as connection:
            return [claimed(row) for row in (await connection.execute(self._claim, known)).mappings()]

    async def done(self, claim: Claimed) -> None:
        """The work is done and the row may go, unless something new came meanwhile."""
        await self._write(sa.delete(self._table).where(*self._unchanged(claim)))

    async def again(self, claim: Claimed, due_at: datetime) -> None:
        """The work went well and is due again then, or earlier if something new came meanwhile."""
        await self._set(claim, due_at=due_at, attempts=0, last_problem=None)

    async def failed(self, claim: Claimed, due_at: datetime, problem: str) -> None:
        """The work failed and is to be tried again then, or earlier if something new came meanwhile."""
        await self._set(claim, due_at=due_at, attempts=claim.attempts + 1, last_problem=problem)

    async def _set(self, claim: Claimed, **values: Any) -> None:
        await self._write(sa.update(self._table).where(*self._unchanged(claim)).values(**values))

    def _unchanged(self, claim: Claimed) -> tuple[sa.ColumnElement[bool], ...]:
        key = self._followups.key
        return key == claim.row[key.name], sa.literal_column("xmin::text", sa.Text) == claim.version

    async def _write(self, statement: sa.Executable) -> None:
        async with self._engine.begin() as connection:
            await connection.execute(statement)


def problem_of(error: BaseException) -> str:
    """A failure in a few words that may be kept and shown: code and message of what is ours.

    Texts of foreign errors may quote what belongs to people, so only their kind is kept, for who repairs it.
    """
    if isinstance(error, OwnError):
        words = f"{error.code}: {error.message}"
    else:
        state = getattr(error, "sqlstate", None) or getattr(getattr(error, "orig", None), "sqlstate", None)
        words = f"{UNEXPECTED}: {type(error).__name__}" + (f" ({state})" if state else "")
    return words[:PROBLEM_CHARACTERS_MAX]
