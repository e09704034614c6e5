"""A row and the position that it comes from are committed together, and told of only then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, MutableMapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from ledger.clock import ManualClock
from ledger.log.model import Envelope
from ledger.testing.memory_log import MemoryLog
from projections.runner import PAGE, PAGES_APART_SECONDS, Projection, ProjectionRunner
from projections.tables import positions
from tests.log.purse import PURSES, add
from tests.waiting import SECONDS_MAX, eventually

rows = sa.table(
    "rows_of_a_projection", sa.column("projection", sa.Text), sa.column("position", sa.BigInteger)
)
TABLES = """
DROP TABLE IF EXISTS rows_of_a_projection, allowed, projection_positions;
CREATE TABLE projection_positions (projection text PRIMARY KEY, position bigint NOT NULL);
CREATE TABLE allowed (position bigint PRIMARY KEY);
INSERT INTO allowed SELECT generate_series(1, 2000);
-- Looked at when the transaction commits, so that a test can let a commit fail.
CREATE TABLE rows_of_a_projection (
    projection text, position bigint REFERENCES allowed DEFERRABLE INITIALLY DEFERRED
);
"""


class Rows:
    """A projection that writes down every position it is given."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def apply(self, connection: AsyncConnection, entries: Sequence[Envelope]) -> None:
        await connection.execute(
            sa.insert(rows), [{"projection": self.name, "position": entry.position} for entry in entries]
        )


class Broken(Rows):
    """A projection that writes and then fails."""

    async def apply(self, connection: AsyncConnection, entries: Sequence[Envelope]) -> None:
        await super().apply(connection, entries)
        raise ZeroDivisionError


class Stuck(Rows):
    """A projection that writes and then never ends: the process can die in between."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.written = asyncio.Event()

    async def apply(self, connection: AsyncConnection, entries: Sequence[Envelope]) -> None:
        await super().apply(connection, entries)
        self.written.set()
        await asyncio.get_running_loop().create_future()


class World:
    """A log in memory and the read models of it in PostgreSQL."""

    def __init__(self, url: str, engine: AsyncEngine) -> None:
        self.url = url
        self.log = MemoryLog([PURSES], ManualClock(datetime(2026, 1, 1, tzinfo=UTC)))
        self.engine = engine
        self._keys = 0

    async def happens(self, times: int = 1) -> int:
        """So many events more; the position of the last."""
        for _ in range(times):
            self._keys += 1
            await self.log.submit(add(f"key-{self._keys}", "purse_a", 1))
        return await self.log.head()

    def runner(
        self, *projections: Projection, applied: Callable[[Sequence[Envelope]], None] = lambda _: None
    ) -> ProjectionRunner:
        return ProjectionRunner(
            engine=self.engine,
            database_url=self.url,
            reader=self.log,
            projections=projections,
            applied=applied,
        )

    def committed(self) -> tuple[list[tuple[str, int]], dict[str, int]]:
        """The rows in the order of their positions, and the positions, as everybody else sees them."""
        with psycopg.connect(self.url) as connection:
            found = connection.execute(
                "SELECT projection, position FROM rows_of_a_projection ORDER BY projection, position"
            ).fetchall()
            places = connection.execute("SELECT projection, position FROM projection_positions").fetchall()
        return [(name, place) for name, place in found], dict(places)


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(TABLES)
    engine = create_async_engine(database_url.replace("postgresql://", "postgresql+psycopg://", 1))
    yield World(database_url, engine)
    await engine.dispose()


@asynccontextmanager
async def running(runner: ProjectionRunner) -> AsyncIterator[None]:
    task = asyncio.create_task(runner.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=SECONDS_MAX)


def each(name: str, last: int) -> list[tuple[str, int]]:
    return [(name, place) for place in range(1, last + 1)]


def test_the_table_of_these_tests_is_the_table_of_the_runner() -> None:
    assert {column.name for column in positions.columns} == {"projection", "position"}


async def test_every_event_is_applied_once_however_often_the_runner_is_started(world: World) -> None:
    for times in (3, 2):
        last = await world.happens(times)
        runner = world.runner(Rows("a"), Rows("b"))
        async with running(runner):
            assert await runner.wait_for(last, SECONDS_MAX)
    assert world.committed() == (each("a", 5) + each("b", 5), {"a": 5, "b": 5})


def logged_by_projections(lines: Sequence[MutableMapping[str, Any]]) -> list[str]:
    """What projections logged: others may be at work in this process."""
    return [line["event"] for line in lines if line["event"].startswith("projection")]


async def test_a_runner_waits_for_a_connection_that_others_use_and_goes_on(world: World) -> None:
    last = await world.happens()
    url = world.url.replace("postgresql://", "postgresql+psycopg://", 1)
    crowded = World(world.url, create_async_engine(url, pool_size=1, max_overflow=0, pool_timeout=0.01))
    crowded.log = world.log
    runner = crowded.runner(Rows("a"))
    with structlog.testing.capture_logs() as lines:
        async with crowded.engine.connect(), running(runner):
            await eventually(lambda: len(logged_by_projections(lines)) > 1, "it tried, and tried again")
        assert set(logged_by_projections(lines)) == {"projections_wait_for_database"}
        assert runner.failed is None
        async with running(runner):
            assert await runner.wait_for(last, SECONDS_MAX)
    assert crowded.committed() == (each("a", 1), {"a": 1})
    await crowded.engine.dispose()


async def test_more_than_a_page_is_applied_page_by_page(world: World) -> None:
    last = await world.happens(PAGE + 1)
    pages: list[int] = []
    runner = world.runner(Rows("a"), applied=lambda entries: pages.append(len(entries)))
    async with running(runner):
        assert await runner.wait_for(last, SECONDS_MAX)
    assert pages == [PAGE, 1]
    assert world.committed() == (each("a", last), {"a": last})


class Asked(MemoryLog):
    """A log that notes when a page of it is read."""

    times: list[float]

    async def read(self, *, after: int, limit: int) -> Sequence[Envelope]:
        self.times.append(asyncio.get_running_loop().time())
        return await super().read(after=after, limit=limit)


async def test_pages_that_are_not_full_keep_a_distance_so_that_many_events_share_one(world: World) -> None:
    """There is something to read each time: every page that is applied brings the next event."""
    world.log = log = Asked([PURSES], ManualClock(datetime(2026, 1, 1, tzinfo=UTC)))
    log.times = []
    following: list[asyncio.Future[int]] = []
    await world.happens()
    runner = world.runner(
        Rows("a"), applied=lambda _: following.append(asyncio.ensure_future(world.happens()))
    )
    async with running(runner):
        await eventually(lambda: len(log.times) > 4, "pages were not read")
    assert log.times[4] - log.times[0] >= 3 * PAGES_APART_SECONDS
    await asyncio.gather(*following)


async def test_a_failure_stops_the_runner_and_leaves_neither_rows_nor_positions(world: World) -> None:
    await world.happens(2)
    returned: list[Sequence[Envelope]] = []
    runner = world.runner(Rows("a"), Broken("b"), applied=returned.append)
    with pytest.raises(ExceptionGroup) as stopped:
        await asyncio.wait_for(runner.run(), SECONDS_MAX)
    assert stopped.group_contains(ZeroDivisionError)
    assert runner.failed == "ZeroDivisionError()"
    assert (runner.position, returned) == (0, [])
    assert world.committed() == ([], {})


async def test_a_process_that_dies_between_row_and_position_leaves_neither(world: World) -> None:
    last = await world.happens(2)
    stuck = Stuck("b")
    async with running(world.runner(Rows("a"), stuck)):
        await asyncio.wait_for(stuck.written.wait(), SECONDS_MAX)
        assert world.committed() == ([], {}), "nobody sees a part of it"
    assert world.committed() == ([], {})
    again = world.runner(Rows("a"), Rows("b"))
    async with running(again):
        assert await again.wait_for(last, SECONDS_MAX)
    assert world.committed() == (each("a", 2) + each("b", 2), {"a": 2, "b": 2})


async def test_rows_whose_position_cannot_be_written_are_not_kept(world: World) -> None:
    last = await world.happens(2)
    with psycopg.connect(world.url, autocommit=True) as connection:
        connection.execute(f"ALTER TABLE projection_positions ADD CHECK (position < {last})")
    with pytest.raises(ExceptionGroup):
        await asyncio.wait_for(world.runner(Rows("a")).run(), SECONDS_MAX)
    assert world.committed() == ([], {})


async def test_nobody_is_told_of_what_could_not_be_committed(world: World) -> None:
    last = await world.happens(2)
    with psycopg.connect(world.url, autocommit=True) as connection:
        connection.execute("DELETE FROM allowed WHERE position = %s", (last,))
    returned: list[Sequence[Envelope]] = []
    runner = world.runner(Rows("a"), applied=returned.append)
    with pytest.raises(ExceptionGroup):
        await asyncio.wait_for(runner.run(), SECONDS_MAX)
    assert (runner.position, returned) == (0, [])
    assert world.committed() == ([], {})


async def test_whoever_is_told_finds_rows_and_position_committed(world: World) -> None:
    last = await world.happens(2)
    seen: list[object] = []
    runner = world.runner(Rows("a"), applied=lambda _: seen.append((world.committed(), runner.position)))
    async with running(runner):
        assert await runner.wait_for(last, SECONDS_MAX)
        assert world.committed() == (each("a", 2), {"a": 2})
    assert seen == [((each("a", 2), {"a": 2}), 2)]


async def test_a_new_projection_begins_at_the_first_event(world: World) -> None:
    last = await world.happens(2)
    first = world.runner(Rows("a"))
    async with running(first):
        assert await first.wait_for(last, SECONDS_MAX)
    second = world.runner(Rows("new"))
    async with running(second):
        assert await second.wait_for(last, SECONDS_MAX)
    assert world.committed()[0] == each("a", 2) + each("new", 2)


async def test_a_second_process_notes_how_far_the_first_is_and_takes_over_when_it_ends(world: World) -> None:
    leader, follower = world.runner(Rows("a")), world.runner(Rows("a"))
    async with running(leader):
        assert await leader.wait_for(await world.happens(), SECONDS_MAX)
        async with running(follower):
            assert await follower.wait_for(await world.happens(), SECONDS_MAX)
            assert world.committed() == (each("a", 2), {"a": 2})
    async with running(follower):
        assert await follower.wait_for(await world.happens(), SECONDS_MAX)
    assert world.committed() == (each("a", 3), {"a": 3})


async def test_waiting_for_what_does_not_come_ends_in_time(world: World) -> None:
    runner = world.runner(Rows("a"))
    async with running(runner):
        assert not await runner.wait_for(1, 0)


async def test_a_projection_that_is_ahead_of_a_new_one_is_never_said_to_be_behind(world: World) -> None:
    """Its rows are those of the further position all the time; `verify` may look at any moment."""
    last = await world.happens(2 * PAGE)
    async with running(runner := world.runner(Rows("a"))):
        assert await runner.wait_for(last, SECONDS_MAX)
    places: list[int] = []
    runner = world.runner(Rows("a"), Rows("b"), applied=lambda _: places.append(world.committed()[1]["a"]))
    async with running(runner):
        assert await runner.wait_for(last, SECONDS_MAX)
    assert places == [last, last]
