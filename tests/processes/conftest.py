"""A ledger on PostgreSQL with guests, people, and a log that fails when it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from psycopg_pool import AsyncConnectionPool
from sqlalchemy.ext.asyncio import create_async_engine

from ledger.clock import ManualClock
from ledger.domain.account import ACCOUNTS
from ledger.log.categories import Categories
from ledger.log.postgres_reader import PostgresLogReader
from ledger.log.recorder import LogRecorder, open_datastore
from ledger.log.sequencer import Sequencer
from rails.domain.state import PAYMENTS
from tests.ledger.world import NOON
from tests.processes.merging_house import House


@pytest.fixture
async def merging(rails_template: str, make_database: Callable[..., str]) -> AsyncIterator[House]:
    async with house_on(make_database(rails_template), ManualClock(NOON)) as house:
        yield house


@pytest.fixture
async def another(merging: House) -> AsyncIterator[House]:
    """Another process on the same database."""
    async with house_on(merging.url, merging.clock) as house:
        yield house


@asynccontextmanager
async def house_on(url: str, clock: ManualClock) -> AsyncIterator[House]:
    """A process of the platform, as far as guests are concerned."""
    categories = Categories([ACCOUNTS, PAYMENTS])
    engine = create_async_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))
    with open_datastore(url) as datastore:
        sequencer = Sequencer(LogRecorder(datastore), categories, clock)
        sequencer.start()
        pool: AsyncConnectionPool[Any] = AsyncConnectionPool(url, min_size=1, max_size=4, open=False)
        async with pool:
            reader = PostgresLogReader(pool, categories)
            yield House(url=url, engine=engine, clock=clock, sequencer=sequencer, reader=reader)
        await asyncio.to_thread(sequencer.stop)
    await engine.dispose()
