"""What was used beyond plans: what its rail is to learn, and whether that has counted the same."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple, Protocol

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from ledger.followups.rows import FollowUps, failing_index, retry_columns
from ledger.instants import instant
from ledger.log.model import SideTable
from rails.store.tables import METADATA

WAITING, REPORTED, WRITTEN_OFF = "waiting", "reported", "written_off"

USE_ROWS = sa.Table(
    "rail_uses",
    METADATA,
    sa.Column("use_id", sa.Text, primary_key=True, comment="the hold that was captured"),
    sa.Column("account_id", sa.Text, nullable=False, comment="who used it"),
    sa.Column("subscription_id", sa.Text, nullable=False, comment="which bills it"),
    sa.Column("credits", sa.BigInteger, nullable=False),
    instant("used_at"),
    sa.Column(
        "state", sa.Text, nullable=False, server_default=WAITING, comment="waiting, reported or written_off"
    ),
    instant("first_tried_at", nullable=True, comment="when it was reported first"),
    instant("due_at"),
    *retry_columns(),
    sa.Index("rail_uses_subscription", "subscription_id", "state"),
    sa.Index("rail_uses_due", "due_at", postgresql_where=sa.text("state = 'waiting'")),
    failing_index("rail_uses"),
)
"""Credits that were used beyond a plan. Rows are kept: they are what the rail's own count is compared with."""

TOTAL_ROWS = sa.Table(
    "rail_use_totals",
    METADATA,
    sa.Column("subscription_id", sa.Text, primary_key=True),
    instant("due_at", comment="when both counts are compared"),
    *retry_columns(),
    sa.Index("rail_use_totals_due", "due_at"),
    failing_index("rail_use_totals"),
)
"""Subscriptions of which something was used beyond the plan since both counts were compared."""

USES = FollowUps(kind="rail_use", table=USE_ROWS, waiting=USE_ROWS.c.state == WAITING)
TOTALS = FollowUps(kind="rail_use_total", table=TOTAL_ROWS)
USE_TABLE = SideTable(USE_ROWS)
TOTAL_TABLE = SideTable(TOTAL_ROWS)
_U = USE_ROWS.c


class Counts(NamedTuple):
    """Credits of one subscription by what became of them."""

    reported: int
    open: int
    """Of which nobody knows yet whether they were counted: they were tried."""
    waiting: int
    """All that are not reported, those too."""


class UseStore(Protocol):
    """Rows of `rail_uses`. They are written first in the transaction of what they are about, through the log."""

    async def counts(self, subscription_id: str) -> Counts:
        """What is known of a subscription."""

    async def tried(self, use_id: str, now: datetime) -> None:
        """It is reported now; the first time counts."""

    async def reported(self, use_id: str) -> None:
        """Its rail has counted it."""


class SqlUseStore:
    """Implements `UseStore` on an async engine (`postgresql+psycopg://`)."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def counts(self, subscription_id: str) -> Counts:
        """See `UseStore`."""
        waiting = _U.state == WAITING
        query = sa.select(
            *(
                sa.func.coalesce(sa.func.sum(_U.credits).filter(which), 0)
                for which in (
                    _U.state == REPORTED,
                    sa.and_(waiting, _U.first_tried_at.is_not(None)),
                    waiting,
                )
            )
        ).where(_U.subscription_id == subscription_id)
        async with self._engine.connect() as connection:
            row = (await connection.execute(query)).one()
            return Counts(*(int(value) for value in row))

    async def tried(self, use_id: str, now: datetime) -> None:
        """See `UseStore`."""
        first = sa.update(USE_ROWS).where(_U.use_id == use_id, _U.first_tried_at.is_(None))
        async with self._engine.begin() as connection:
            await connection.execute(first.values(first_tried_at=now))

    async def reported(self, use_id: str) -> None:
        """See `UseStore`."""
        mine = sa.update(USE_ROWS).where(_U.use_id == use_id, _U.state == WAITING)
        async with self._engine.begin() as connection:
            await connection.execute(mine.values(state=REPORTED, attempts=0, last_problem=None))
