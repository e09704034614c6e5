"""Tells people ahead that a plan renews by itself: what only time causes has no event to be written with.

A look at the rows of subscriptions, again and again; a letter's key is the subscription and the period's end, so that
looking twice, or at several processes, tells nobody twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from ledger.clock import Clock
from ledger.plans import Plan, label_of
from mail.domain.letters import RenewalAhead
from mail.outbox import mail_row
from mail.tables import OUTBOX_ROWS
from rails.recurring import SubscriptionStatus
from rails.store.tables import SUBSCRIPTION_ROWS

AHEAD: Mapping[str, timedelta] = {"month": timedelta(days=3), "year": timedelta(days=14)}
"""How long before it is charged again somebody is told, by what is paid for."""
PAGE = 500
"""Letters of one look; there is another one soon."""
_RENEWS = (SubscriptionStatus.ACTIVE.value, SubscriptionStatus.TRIALING.value)


class Renewals:
    """Puts letters into the outbox."""

    def __init__(self, engine: AsyncEngine, clock: Clock, plans: Mapping[str, Plan]) -> None:
        self._engine = engine
        self._clock = clock
        self._plans = plans

    async def sweep(self) -> int:
        """One look; returns how many letters were put in."""
        now = self._clock()
        async with self._engine.begin() as connection:
            found = (await connection.execute(_renewing(now))).mappings().all()
            rows = [
                mail_row(self._letter(row), account_id=row["account_id"], cause=_cause(row), now=now)
                for row in found
            ]
            for row in rows:
                await connection.execute(insert(OUTBOX_ROWS).values(**row).on_conflict_do_nothing())
        return len(rows)

    def _letter(self, row: sa.RowMapping) -> RenewalAhead:
        name = row["next_plan"] or row["plan"]
        return RenewalAhead(
            subscription_id=row["subscription_id"],
            plan_label=label_of(name, self._plans),
            length=row["next_length"] or row["length"],
            renews_at=row["period_end"],
        )


def _cause(row: sa.RowMapping) -> str:
    """Begins with what `_renewing` looks for: the period's end in UTC."""
    return f"{row['subscription_id']}:{row['period_end'].astimezone(UTC).isoformat()}"


def _renewing(now: datetime) -> sa.Select[tuple[object, ...]]:
    """Subscriptions that are charged again soon, and of which nobody was told."""
    rows = SUBSCRIPTION_ROWS.c
    soon = sa.or_(
        *(
            sa.and_(rows.length == length, rows.period_end > now, rows.period_end <= now + ahead)
            for length, ahead in AHEAD.items()
        )
    )
    ends = sa.func.to_char(sa.func.timezone("UTC", rows.period_end), sa.literal('YYYY-MM-DD"T"HH24:MI:SS'))
    key = sa.literal("renewal_ahead:") + rows.subscription_id + sa.literal(":") + ends
    known = sa.select(sa.literal(1)).where(OUTBOX_ROWS.c.mail_id.startswith(key))
    return (
        sa.select(
            rows.subscription_id,
            rows.account_id,
            rows.plan,
            rows.next_plan,
            rows.length,
            rows.next_length,
            rows.period_end,
        )
        .where(rows.status.in_(_RENEWS), ~rows.cancels, soon, ~known.exists())
        .order_by(rows.period_end)
        .limit(PAGE)
    )
