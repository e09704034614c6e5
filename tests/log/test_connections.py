"""Who gets no connection hears why: all are in use, or the database is away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from psycopg_pool import PoolTimeout

from ledger.errors import LogUnavailable, TooBusy
from ledger.log.categories import Categories
from ledger.log.connections import ReadingPool
from ledger.log.postgres_reader import PostgresLogReader
from sandbox.embedded.ports import free_port
from tests.log.purse import PURSES
from tests.waiting import eventually

NOT_LONG_SECONDS = 0.05


@pytest.fixture
async def pool(log_database: str) -> AsyncIterator[ReadingPool]:
    pool = ReadingPool(log_database, min_size=2, max_size=2, open=False)
    async with pool:
        await pool.wait()
        yield pool


@pytest.fixture
def reader(pool: ReadingPool) -> PostgresLogReader:
    return PostgresLogReader(pool, Categories([PURSES]))


async def test_who_waits_for_a_connection_while_others_use_all_of_them_hears_that_it_is_busy(
    pool: ReadingPool, reader: PostgresLogReader
) -> None:
    async with AsyncExitStack() as others:
        for _ in range(pool.max_size):
            await others.enter_async_context(pool.connection())
        pool.timeout = NOT_LONG_SECONDS
        with pytest.raises(TooBusy):
            await reader.head()
        with pytest.raises(TooBusy):
            await reader.state("purse_ada")
    pool.timeout = 30
    assert await reader.head() == 0


async def test_a_pool_whose_connections_were_all_in_use_and_came_back_is_not_busy(pool: ReadingPool) -> None:
    for _ in range(3):
        async with pool.connection(), pool.connection():
            pass
    with pytest.raises(ZeroDivisionError):
        async with pool.connection():
            raise ZeroDivisionError
    async with pool.connection():
        with pytest.raises(TooBusy):
            async with pool.connection(), pool.connection(NOT_LONG_SECONDS):
                pass


async def test_a_connection_more_that_is_only_being_opened_is_of_use_to_nobody(log_database: str) -> None:
    pool = ReadingPool(log_database, min_size=1, max_size=2, open=False)
    async with pool:
        await pool.wait()
        async with pool.connection():
            pool.conninfo = f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"
            with pytest.raises(TooBusy):
                async with pool.connection(NOT_LONG_SECONDS):
                    pass


async def test_a_database_that_is_away_is_not_called_busy() -> None:
    nowhere = ReadingPool(f"postgresql://nobody@127.0.0.1:{free_port()}/nothing", min_size=1, open=False)
    nowhere.timeout = NOT_LONG_SECONDS
    async with nowhere:
        with pytest.raises(PoolTimeout):
            async with nowhere.connection():
                pass
        with pytest.raises(LogUnavailable):
            await PostgresLogReader(nowhere, Categories([PURSES])).head()


async def test_connections_that_broke_in_use_and_cannot_be_opened_again_are_away_and_not_busy(
    pool: ReadingPool, reader: PostgresLogReader
) -> None:
    pool.conninfo = f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"
    async with pool.connection() as one, pool.connection() as other:
        await one.close()
        await other.close()
    await eventually(lambda: pool.get_stats().get("connections_errors", 0) > 0, "opening one was tried")
    pool.timeout = NOT_LONG_SECONDS
    with pytest.raises(LogUnavailable):
        await reader.head()
