"""What one process remembers of the queue is never far from what the queue says, and refuses nobody by itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from generation.domain.errors import QueueFull
from generation.domain.fairness import PRIORITY
from generation.domain.requests import SKETCH_GRAPH, Accepted, Limits
from generation.queueing.pace import PaceWatch
from generation.queueing.queue import JobQueue
from generation.queueing.watch import FRESH_FOR, QueueSnapshot, QueueWatch
from generation.store.autocommit import Autocommit
from generation.store.tables import queue_clock
from tests.generation.core.world import World, open_world


async def accepted(world: World, **more: object) -> Accepted:
    return await world.generations.request(world.request(await world.person(), **more))  # type: ignore[arg-type]


async def test_a_fresh_place_is_the_one_that_the_queue_gives(world: World) -> None:
    await world.worker()
    for number in range(12):
        one = await accepted(world, tier=PRIORITY) if number % 3 == 0 else await accepted(world)
        exact = await world.generations.estimate(one.job_id)
        assert await world.generations.estimate_accepted(one, SKETCH_GRAPH) == exact


async def test_a_claim_of_this_process_is_seen_at_once(world: World) -> None:
    worker = await world.worker()
    await accepted(world)
    await accepted(world)
    assert (await world.queue.watch.snapshot(world.clock())).queued == 2
    await worker.take()
    found = await world.queue.watch.snapshot(world.clock())
    assert (found.queued, found.running) == (1, 1)


async def test_what_another_process_does_is_seen_within_a_moment(world: World) -> None:
    other = JobQueue(world.engine, world.pool)
    assert (await other.watch.snapshot(world.clock())).queued == 0
    await accepted(world)
    assert (await other.watch.snapshot(world.clock())).queued == 0
    world.pass_time(milliseconds=FRESH_FOR // timedelta(milliseconds=1))
    assert (await other.watch.snapshot(world.clock())).queued == 1


async def test_a_process_that_has_just_started_knows_what_is_there(world: World) -> None:
    first = await accepted(world)
    started = JobQueue(world.engine, world.pool)
    assert (await started.watch.snapshot(world.clock())).ranks == [first.rank]


async def test_a_full_queue_is_looked_at_anew_before_anybody_is_refused(
    empty_database: str, tmp_path: Path
) -> None:
    async with open_world(empty_database, tmp_path, limits=Limits(queue_max=2)) as world:
        waiting = [await accepted(world) for _ in range(2)]
        with pytest.raises(QueueFull):
            await accepted(world)
        # As another process would: nobody here is told.
        other = JobQueue(world.engine, world.pool)
        async with other.engine.begin() as connection:
            gone = {"job": waiting[0].job_id}
            await connection.exec_driver_sql("DELETE FROM job_queue WHERE job_id = %(job)s", gone)
        assert (await accepted(world)).state == "queued"


async def test_the_clock_of_the_queue_is_no_further_behind_than_a_moment(world: World) -> None:
    await accepted(world)
    async with world.engine.begin() as connection:
        await connection.execute(queue_clock.update().values(virtual_time=77_000_000))
    world.pass_time(seconds=1)
    assert (await accepted(world)).rank == 77_000_000


class Slow(Autocommit):
    """Connections whose answers come late, and are as of when they were asked for."""

    def __init__(self, engine: AsyncEngine) -> None:
        super().__init__(engine)
        self.asked = 0
        self.answered, self.let = asyncio.Event(), asyncio.Event()

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncConnection]:
        self.asked += 1
        async with super().connect() as connection:
            yield connection
        self.answered.set()
        await self.let.wait()


async def test_who_comes_while_the_queue_is_read_is_counted_once_and_nobody_asks_again(world: World) -> None:
    reading = Slow(world.engine)
    watch = QueueWatch(reading, PaceWatch())
    places = [(await accepted(world)).rank, await world.reader.head()]
    looking = asyncio.create_task(watch.snapshot(world.clock()))
    await reading.answered.wait()
    watch.entered(places[0] or 0, places[1] or 0)  # told late: it is in what was read
    later = (await accepted(world)).rank
    watch.entered(later or 0, await world.reader.head())
    reading.let.set()
    assert (await looking).queued == 2
    again = await watch.snapshot(world.clock())
    assert (again.queued, sorted(again.ranks), reading.asked) == (2, sorted([places[0], later]), 1)
    watch.entered(places[0] or 0, places[1] or 0)
    assert (await watch.snapshot(world.clock())).queued == 2


def test_a_place_beyond_those_that_are_known_is_not_guessed(world: World) -> None:
    snapshot = QueueSnapshot(
        taken_at=world.clock(),
        virtual_time=0,
        queued=5,
        ranks=[1, 2],
        running=0,
        workers={},
        graphs=None,
        recent_milliseconds=(),
    )
    assert snapshot.position(1) == 1
    assert snapshot.position(2) is None
    snapshot.enter(9, 1)
    assert (snapshot.queued, snapshot.ranks) == (6, [1, 2])
    snapshot.enter(1, 2)
    assert (snapshot.queued, snapshot.ranks, snapshot.position(1)) == (7, [1, 1, 2], 2)
