"""Payments for single images: the sweep looks at those that are due, however many are held for their jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from generation.jobs.funding import FUNDINGS
from generation.store.tables import metadata
from ledger.followups.figures import figures_query
from ledger.followups.rows import DueRows
from tests.plans import plans_of, rows_touched

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
ROWS, DUE, LIMIT = 200_000, 400, 50
FILL = f"""
    INSERT INTO job_funding (job_id, account_id, method, state, price_credits, due_at, attempts)
    SELECT 'job_' || n, 'acct_' || n % 40000, 'lightning', CASE WHEN n % 250 = 7 THEN 'waiting' ELSE 'held' END, 1,
           :now + (n % 2 * 10 - 5) * interval '1 second', CASE WHEN n % 1000 = 7 THEN 3 ELSE 0 END
    FROM generate_series(1, {ROWS}) n
"""


@pytest.fixture
async def engine(make_database: Callable[..., str]) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(make_database().replace("postgresql://", "postgresql+psycopg://", 1))
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
        await connection.execute(sa.text(FILL), {"now": NOW})
    async with engine.connect() as connection:
        autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await autocommit.execute(sa.text("VACUUM ANALYZE job_funding"))
    yield engine
    await engine.dispose()


async def test_a_claim_and_the_figures_touch_what_waits_and_no_more(engine: AsyncEngine) -> None:
    async def figures() -> None:
        async with engine.connect() as connection:
            await connection.execute(figures_query([FUNDINGS], NOW))

    rows = DueRows(engine, FUNDINGS)
    claim, shown = [
        *await plans_of(engine, rows.claim(NOW + timedelta(seconds=9), NOW + timedelta(minutes=2), LIMIT)),
        *await plans_of(engine, figures()),
    ]
    assert rows_touched(claim) <= 10 * LIMIT
    assert rows_touched(shown) <= 4 * DUE * 2
