"""Whoever gives up on a question at any moment takes no connection along, and leaves none switched."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator

import psycopg.waiting
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from generation.store.autocommit import Autocommit


@pytest.fixture
async def engine(empty_database: str) -> AsyncIterator[AsyncEngine]:
    url = empty_database.replace("postgresql://", "postgresql+psycopg://", 1)
    engine = create_async_engine(url, pool_size=1, max_overflow=0)
    yield engine
    await engine.dispose()


async def ask(engine: AsyncEngine) -> int:
    async with Autocommit(engine).connect() as connection:
        return int((await connection.execute(sa.text("SELECT 1"))).scalar_one())


async def is_switched(engine: AsyncEngine) -> bool:
    async with engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        return bool(driver.autocommit)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("steps", range(1, 9))
async def test_a_question_that_is_cancelled_leaves_its_connection_in_order(
    engine: AsyncEngine, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await ask(engine) == 1
    # As on a busy loop: psycopg gives way to other tasks also where it has nothing to wait for.
    monkeypatch.setattr(psycopg.waiting, "MAX_BUSY_TIME", 0.0)
    asking = asyncio.create_task(ask(engine))
    for _ in range(steps):
        await asyncio.sleep(0)
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    del asking
    gc.collect(1)
    assert not await is_switched(engine)
    assert await ask(engine) == 1
