"""Holds and jobs are compared both ways, and what came apart is put right, once."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from generation.domain.states import JobState
from generation.jobs.reconciliation import Reconciled, Reconciler
from generation.store.tables import job_queue
from ledger.domain.commands import HoldCredits
from tests.generation.core.world import World


@pytest.fixture
def reconciler(world: World) -> Reconciler:
    return Reconciler(
        log=world.sequencer,
        reader=world.reader,
        queue=world.queue,
        clock=world.clock,
        identifiers=world.ids,
        metrics=world.dispatch.metrics,
    )


async def lose_rows(world: World) -> None:
    async with world.engine.begin() as connection:
        await connection.execute(sa.delete(job_queue))


async def test_where_all_is_well_it_only_counts(world: World, reconciler: Reconciler) -> None:
    person, worker = await world.person(), await world.worker()
    for _ in range(3):
        await world.ask(person)
    await worker.paint()
    await worker.take()
    assert await reconciler.run() == Reconciled(jobs=2, holds=2)
    assert await world.held(person) == 2


async def test_a_job_whose_row_was_lost_is_painted_all_the_same(world: World, reconciler: Reconciler) -> None:
    person, worker, other = await world.person(), await world.worker(), await world.worker()
    running, waiting = await world.ask(person), await world.ask(person)
    await worker.take()
    await lose_rows(world)
    found = await reconciler.run()
    assert (found.rows_restored, found.clean) == (2, False)
    assert (await reconciler.run()).clean
    assert await other.paint() == waiting
    world.pass_time(seconds=1)
    await world.dispatch.sweep()
    assert await other.paint() == running
    assert (await world.available(person), await world.held(person)) == (18, 0)


async def test_a_lost_row_past_its_deadline_ends_its_job(world: World, reconciler: Reconciler) -> None:
    person = await world.person()
    job_id = await world.ask(person)
    await lose_rows(world)
    world.pass_time(seconds=700)
    assert (await reconciler.run()).jobs_ended == 1
    assert await world.state(job_id) is JobState.EXPIRED
    assert await world.held(person) == 0


async def test_a_row_without_a_living_job_is_taken_away(world: World, reconciler: Reconciler) -> None:
    person, worker = await world.person(), await world.worker()
    job_id = await world.ask(person)
    (row,) = await world.rows(job_queue)
    await worker.paint()
    async with world.engine.begin() as connection:
        await connection.execute(sa.insert(job_queue).values(**row))
    assert (await reconciler.run()).rows_without_job == 1
    assert await world.rows(job_queue) == []
    assert await world.state(job_id) is JobState.COMPLETED


async def test_a_hold_whose_job_has_ended_is_let_go(world: World, reconciler: Reconciler) -> None:
    person, worker = await world.person(), await world.worker()
    await world.ask(person)
    job_id = await worker.paint()
    stray = HoldCredits(
        hold_id=world.ids.hold(), job_id=job_id, credits=3, deadline=world.clock().replace(year=2030)
    )
    await world.ledger.act(person, stray)
    assert await world.held(person) == 3
    assert (await reconciler.run()).holds_released == 1
    assert (await reconciler.run()).clean
    assert (await world.available(person), await world.held(person)) == (19, 0)
