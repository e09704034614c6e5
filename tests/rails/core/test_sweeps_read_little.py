"""A sweep reads the few payments that it is about, and not the many that are done with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from rails.contract import Notification
from rails.store.port import RetryTask
from rails.store.sql import SqlRailStore
from rails.store.tables import METADATA
from tests.plans import plans_of, rows_touched
from tests.rails.core.platform import START

PAYMENTS, PAGE = 200_000, 50
ROWS_MAX = 600
"""What a query may touch: all that are waiting, four hundred of each kind, and a page of others."""

FILL = (
    f"""
    INSERT INTO rail_payments
    SELECT 'pay_' || to_char(n, 'FM000000'), 'acct_' || n % 40000, 'fake', 'pay_' || to_char(n, 'FM000000'),
           'paid', n % 500 = 7, n % 500 = 8, n % 500 = 9, CASE WHEN n % 500 IN (7, 8) THEN :now + interval '1 hour' END,
           :now + (n % 1000 - 510) * interval '1 minute', :now, '{{}}'
    FROM generate_series(1, {PAYMENTS}) n
    """,
    f"""
    INSERT INTO rail_notifications (rail, notification_id, reference, state, due_at, received_at)
    SELECT 'fake', 'n' || n, 'r' || n, CASE WHEN n % 500 = 7 THEN 'waiting' ELSE 'done' END, :now,
           :now - n * interval '1 second'
    FROM generate_series(1, {PAYMENTS}) n
    """,
    f"""
    INSERT INTO rail_openings
    SELECT 'acct_' || n, '{{}}' FROM generate_series(1, {PAYMENTS}) n
    """,
    f"""
    INSERT INTO rail_references
    SELECT 'pay_' || to_char(n, 'FM000000'), 'fake', n, 'r' || n FROM generate_series(1, {PAYMENTS}) n
    """,
    f"""
    INSERT INTO rail_retries (payment_id, task, rail, due_at)
    SELECT 'pay_' || to_char(n * 500 + 7, 'FM000000'), 'expire', 'fake', :now FROM generate_series(1, {PAGE}) n
    """,
)


@pytest.fixture(scope="module")
def full(make_database: Callable[..., str]) -> Iterator[str]:
    """A database with many payments, nearly all of them done with."""
    url = make_database().replace("postgresql://", "postgresql+psycopg://", 1)
    engine = sa.create_engine(url)
    METADATA.create_all(engine)
    with engine.begin() as connection:
        for statement in FILL:
            connection.execute(sa.text(statement), {"now": START})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("VACUUM ANALYZE"))
    yield url
    engine.dispose()


@pytest.fixture
async def engine(full: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(full)
    yield engine
    await engine.dispose()


QUERIES: dict[str, Callable[[SqlRailStore], Awaitable[Any]]] = {
    "overdue": lambda store: store.overdue("fake", START, "", PAGE),
    "overdue, none": lambda store: store.overdue("fake", START - timedelta(days=9), "", PAGE),
    "overdue, further on": lambda store: store.overdue("fake", START, "pay_150000", PAGE),
    "watched": lambda store: store.watched("fake", START, "", PAGE),
    "watched, further on": lambda store: store.watched("fake", START, "pay_150000", PAGE),
    "unpriced": lambda store: store.unpriced("fake", START, "", PAGE),
    "unpriced, further on": lambda store: store.unpriced("fake", START, "pay_150000", PAGE),
    "openings of an account": lambda store: store.openings("acct_7", START),
    "postponed": lambda store: store.postponed(RetryTask.EXPIRE, [f"pay_{n:06}" for n in range(PAGE)]),
    "retries that ended": lambda store: store.forget_retries(START, PAGE),
    "notifications that are due": lambda store: store.due_notifications("fake", START, PAGE),
    "the next notification": lambda store: store.next_due_at("fake"),
    "room for a notification": lambda store: store.store_notification(
        "fake", Notification(reference=None), START, waiting_max=ROWS_MAX
    ),
    "old notifications, none": lambda store: store.forget_notifications(START - timedelta(days=30), PAGE),
    "old notifications": lambda store: store.forget_notifications(START - timedelta(days=2), PAGE),
}


@pytest.mark.parametrize("name", QUERIES)
async def test_a_query_of_the_sweeps_touches_few_rows_of_a_large_table(
    engine: AsyncEngine, name: str
) -> None:
    plans = await plans_of(engine, QUERIES[name](SqlRailStore(engine)))
    assert plans
    for plan in plans:
        assert rows_touched(plan) <= ROWS_MAX, plan


async def test_overdue_payments_are_found_by_their_own_index(engine: AsyncEngine) -> None:
    (plan,) = await plans_of(engine, SqlRailStore(engine).overdue("fake", START, "", PAGE))
    assert "rail_payments_unpaid" in str(plan)
