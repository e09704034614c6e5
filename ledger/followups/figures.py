"""What waits and what fails, by kind, for operators."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from ledger.followups.rows import FollowUps


class Figures(NamedTuple):
    """One kind of follow-up now."""

    kind: str
    waiting: int
    """Due now, or failing and to be tried again."""
    failing: int
    """Failed when they were last tried."""
    oldest: datetime | None
    """Since when the row due longest has been due."""
    attempts: int
    """Of the row that failed most often in a row."""
    problem: str | None
    """Its newest problem."""


def figures_query(kinds: Sequence[FollowUps], now: datetime) -> sa.CompoundSelect[Any]:
    """One row of `Figures` for each kind, in their order."""
    return sa.union_all(*(_figures(place, followups, now) for place, followups in enumerate(kinds))).order_by(
        sa.literal_column("place")
    )


def _figures(place: int, followups: FollowUps, now: datetime) -> sa.Select[Any]:
    table = followups.table
    due, failing = table.c.due_at <= now, table.c.attempts > 0
    worst = (
        sa.select(table.c.last_problem)
        .where(followups.waits, failing)
        .order_by(table.c.attempts.desc())
        .limit(1)
    )
    return sa.select(
        sa.literal(place).label("place"),
        sa.literal(followups.kind).label("kind"),
        sa.func.count().label("waiting"),
        sa.func.count().filter(failing).label("failing"),
        sa.func.min(table.c.due_at).filter(due).label("oldest"),
        sa.func.coalesce(sa.func.max(table.c.attempts), 0).label("attempts"),
        worst.scalar_subquery().label("problem"),
    ).where(followups.waits, sa.or_(due, failing))


def figures_of(rows: Sequence[sa.RowMapping]) -> list[Figures]:
    """The answer to `figures_query`."""
    return [Figures(*(row[name] for name in Figures._fields)) for row in rows]
