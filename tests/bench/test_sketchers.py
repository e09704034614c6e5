"""The simulated sketchers ask the real queue: their shortcuts give its answers, and a short run adds up."""

from __future__ import annotations

import random
from collections import Counter

import pytest

import generation.store.tables
from bench.sketchers import hour
from bench.sketchers_figures import Figures, Returned, judged_of, table
from bench.sketchers_people import FREE
from bench.sketchers_world import SKETCH, SketchWorld, open_sketch_world
from generation.domain.requests import GenerationRequest
from generation.queueing.queue import JobQueue
from ledger.identifiers import AccountId, CommandKey, HoldId
from tests.conftest import MakeDatabase
from tests.tables import create_tables


@pytest.fixture
def database(make_database: MakeDatabase) -> str:
    return make_database()


def request(world: SketchWorld, account_id: AccountId, seq: int | None = None) -> GenerationRequest:
    job_id = world.ids.job()
    return GenerationRequest(
        key=CommandKey(f"{job_id}:request"),
        job_id=job_id,
        hold_id=HoldId("hold_" + job_id.removeprefix("job_")),
        account_id=account_id,
        tier=FREE,
        prompt="a llama",
        sketch=SKETCH,
        seed=1,
        strength_permille=600,
        live=seq is not None,
        session_id=None if seq is None else "s1",
        seq=seq,
    )


async def test_what_is_read_for_all_at_once_is_what_the_queue_says_to_each(database: str) -> None:
    create_tables(database, generation.store.tables.metadata)
    async with open_sketch_world(database, random.Random(1)) as world:
        people = [await world.person(50) for _ in range(4)]
        workers = [await world.worker(f"b{number}") for number in range(2)]
        jobs = [request(world, person) for person in people for _ in range(3)]
        jobs += [request(world, person, seq=1) for person in people]
        for job in jobs:
            await world.generations.request(job)
        first, second = [await world.dispatch.claim(worker, wait_seconds=0) for worker in workers]
        assert first is not None
        assert second is not None
        await world.deliver(workers[0], first, 2.0)
        real, now = JobQueue(world.engine, world.pool), world.clock()
        for person in people:
            key = f"{person}/s1"
            mine, theirs = await world.queue.session(key), await real.session(key)
            assert mine is not None
            assert mine == theirs
        for job in jobs:
            assert await world.queue.place(job.job_id, now) == await real.place(job.job_id, now)
        assert await world.queue.session("nobody/s1") is None
        assert list(await world.queue.recent_milliseconds()) == list(await real.recent_milliseconds())


async def test_a_minute_of_sketching_adds_up_and_leaves_no_worker_idle(database: str) -> None:
    result = await hour(database, people=30, workers=2, seconds=60, drawing=0.5, seed=3)
    assert result["adds_up"]
    assert result["delivered"] > 20
    assert result["replaced_while_waiting"] > 0
    assert result["gpu_idle_while_anybody_waits_percent"] == 0
    assert result["credits_captured"] == result["delivered"]
    assert result["holds_open"] == 0
    assert "It adds up." in table(result)


def test_a_range_that_did_not_hold_counts_on_its_side() -> None:
    judged = judged_of([Returned(2, 4, wait, "free") for wait in (3.0, 1.0, 9.0, 4.0)])
    assert (judged["held_percent"], judged["too_soon_percent"], judged["too_late_percent"]) == (50, 25, 25)


def test_figures_that_are_not_what_the_log_says_do_not_add_up() -> None:
    figures = Figures(workers=1, seconds=60)
    figures.reported["completed"] = 2
    reported = Counter(completed=2, captured=2, held=2)
    assert figures.summary(reported)["adds_up"]
    assert not figures.summary(reported | Counter(captured=3))["adds_up"]
    assert not figures.summary(Counter(completed=1, captured=1, held=1))["adds_up"]
