"""Both logs, behind one face."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from ledger.clock import ManualClock
from ledger.log.categories import Categories
from ledger.log.model import LogWriter, Receipt, Transaction
from ledger.log.postgres_reader import PostgresLogReader
from ledger.log.reader import LogReader
from ledger.log.recorder import LOG_LOCK, LogRecorder, open_datastore
from ledger.log.sequencer import Sequencer
from ledger.testing.memory_log import MemoryLog
from tests.log.faulty import FaultyRecorder, Watch
from tests.log.purse import NOTES, PURSES, Purse, metadata
from tests.tables import create_tables, database_name


@dataclass
class LogUnderTest:
    writer: LogWriter
    reader: LogReader
    clock: ManualClock
    note: Callable[[str], Awaitable[dict[str, Any] | None]]
    url: str | None = None


CATEGORIES = Categories([PURSES])
StartSequencer = Callable[..., Sequencer]
START = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
async def memory_log(clock: ManualClock) -> LogUnderTest:
    log = MemoryLog([PURSES], clock)

    async def note(key: str) -> dict[str, Any] | None:
        return log.tables.get((NOTES.table.name, key))

    return LogUnderTest(log, log, clock, note)


@pytest.fixture
async def postgres_log(clock: ManualClock, log_database: str) -> AsyncIterator[LogUnderTest]:
    categories = Categories([PURSES])
    datastore = open_datastore(log_database)
    sequencer = Sequencer(LogRecorder(datastore), categories, clock)
    sequencer.start()

    async def note(key: str) -> dict[str, Any] | None:
        async with await psycopg.AsyncConnection.connect(log_database, row_factory=dict_row) as connection:
            cursor = await connection.execute("SELECT * FROM test_notes WHERE id = %s", (key,))
            return await cursor.fetchone()

    async with AsyncConnectionPool(log_database, min_size=1, max_size=2, open=False) as pool:
        yield LogUnderTest(sequencer, PostgresLogReader(pool, categories), clock, note, log_database)
    sequencer.stop()
    datastore.close()


@pytest.fixture(scope="session")
def log_template(make_database: Callable[..., str]) -> str:
    """A database with the log's tables, to be copied."""
    url = make_database()
    create_tables(url, metadata)
    return database_name(url)


@pytest.fixture
def log_database(make_database: Callable[..., str], log_template: str) -> str:
    return make_database(template=log_template)


@pytest.fixture(params=["memory", "postgres"])
def log(request: pytest.FixtureRequest) -> LogUnderTest:
    """The log in memory and the log in PostgreSQL give the same answers."""
    chosen: LogUnderTest = request.getfixturevalue(f"{request.param}_log")
    return chosen


@pytest.fixture
def start(log_database: str) -> Iterator[StartSequencer]:
    """Start sequencers on one database, each with connections of its own, as processes have."""
    started: list[tuple[Sequencer, FaultyRecorder]] = []

    def begin(watch: Watch | None = None, **options: int) -> Sequencer:
        recorder = FaultyRecorder(log_database, watch or Watch())
        sequencer = Sequencer(recorder, CATEGORIES, ManualClock(START), **options)
        sequencer.start()
        started.append((sequencer, recorder))
        return sequencer

    yield begin
    for sequencer, recorder in started:
        sequencer.stop()
        recorder.datastore.close()


@pytest.fixture
async def coins(log_database: str) -> AsyncIterator[Callable[[str], Awaitable[int]]]:
    async with AsyncConnectionPool(log_database, min_size=1, max_size=2, open=False) as pool:
        reader = PostgresLogReader(pool, CATEGORIES)

        async def read(purse: str) -> int:
            state = (await reader.state(purse)).state
            assert isinstance(state, Purse)
            return state.coins

        yield read


async def answers_to(sequencer: Sequencer, commands: list[Transaction]) -> list[Receipt | BaseException]:
    return await asyncio.gather(*(sequencer.submit(c) for c in commands), return_exceptions=True)


@contextmanager
def log_held(url: str) -> Iterator[None]:
    """Hold the log's lock, so that nobody can commit."""
    with psycopg.connect(url) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOG_LOCK,))
        yield
