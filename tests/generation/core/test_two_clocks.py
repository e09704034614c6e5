"""Machines whose clocks differ by a minute go by one clock: that of their database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from generation.jobs.usage_reversal import REVERSALS
from generation.store.tables import job_usage_reversals
from ledger.clock import Clock, system_clock
from ledger.followups.rows import DueRows
from ledger.log.database_clock import DatabaseClock
from tests.generation.core.world import open_world

MINUTE = timedelta(minutes=1)


def off_by(span: timedelta) -> Clock:
    def clock() -> datetime:
        return system_clock() + span

    return clock


@pytest.fixture
async def engine(empty_database: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(empty_database.replace("postgresql://", "postgresql+psycopg://", 1))
    yield engine
    await engine.dispose()


async def followed(engine: AsyncEngine, local: Clock) -> Clock:
    """The clock of a process on a machine that has this one."""
    shared = DatabaseClock(engine, local)
    assert await shared.ask()
    return shared.clock


@pytest.mark.parametrize("off", [MINUTE, -MINUTE])
async def test_a_machine_with_a_wrong_clock_goes_by_the_database(engine: AsyncEngine, off: timedelta) -> None:
    clock = await followed(engine, off_by(off))
    assert abs(clock() - system_clock()) < timedelta(seconds=5), "here the database is on this machine"


async def test_the_lease_of_a_job_does_not_lapse_by_another_machines_clock(
    engine: AsyncEngine, empty_database: str, tmp_path: Path
) -> None:
    slow, fast = off_by(-MINUTE), off_by(MINUTE)
    async with open_world(empty_database, tmp_path, clock=await followed(engine, slow)) as world:
        worker = await world.worker()
        await world.ask(await world.person())
        await worker.take()
        assert await world.queue.lapsed(fast(), 9) != [], "by its own clock it would take the job away"
        assert await world.queue.lapsed((await followed(engine, fast))(), 9) == []


async def test_what_one_process_has_claimed_no_other_takes(engine: AsyncEngine) -> None:
    rows, one = DueRows(engine, REVERSALS), await followed(engine, off_by(-MINUTE))
    other = await followed(engine, off_by(MINUTE))
    note = {"job_id": "job_1", "credits": 1, "free_credits": 0, "networks": [], "due_at": one()}
    async with engine.begin() as connection:
        await connection.execute(job_usage_reversals.insert().values(note))
    lease = timedelta(seconds=50)
    assert len(await rows.claim(one() + timedelta(seconds=1), one() + lease, 9)) == 1
    assert await rows.claim(other(), other() + lease, 9) == []


async def test_an_unreachable_database_leaves_the_clock_as_it_is(engine: AsyncEngine) -> None:
    nowhere = create_async_engine("postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    shared = DatabaseClock(nowhere, system_clock)
    assert not await shared.ask()
    assert abs(shared.clock() - system_clock()) < timedelta(seconds=1)
    await nowhere.dispose()


async def test_an_answer_that_took_long_says_nothing(engine: AsyncEngine) -> None:
    readings = iter(system_clock() + timedelta(seconds=3 * n) for n in range(9))
    shared = DatabaseClock(engine, lambda: next(readings))
    assert not await shared.ask()
