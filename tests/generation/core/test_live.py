"""Live sketching: the newest frame wins, the running one is left alone, old pictures cost nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from generation.errors import OutOfOrder, SessionSpendCapReached, TooManyVariations
from generation.job import JobState
from generation.queue import PRIORITY
from generation.service import Limits
from tests.generation.core.world import World, open_world


async def test_the_newest_frame_takes_over_hold_and_place_of_the_waiting_one(world: World) -> None:
    person = await world.person()
    first = await world.frame(person, 1)
    others = await world.ask(await world.person())
    second = await world.frame(person, 2)
    assert await world.state(first) is JobState.SUPERSEDED
    assert await world.held(person) == 1
    assert await world.open_holds(person) == {second}
    box = await world.box()
    assert [await box.paint(), await box.paint()] == [second, others]
    assert await world.available(person) == 19


async def test_the_running_frame_is_never_interrupted(world: World) -> None:
    person, box = await world.person(), await world.box()
    first = await world.frame(person, 1)
    job = await box.take()
    second = await world.frame(person, 2)
    assert await world.state(first) is JobState.RUNNING
    assert await world.held(person) == 2
    assert await box.deliver(job) == "completed"
    assert await box.paint() == second
    assert await world.available(person) == 18


async def test_a_frame_older_than_the_newest_delivered_costs_nothing(world: World) -> None:
    person, slow, fast = await world.person(), await world.box(), await world.box()
    first = await world.frame(person, 1)
    late = await slow.take()
    await world.frame(person, 2)
    await fast.paint()
    assert await slow.deliver(late) == "superseded"
    assert await slow.deliver(late) == "superseded"
    assert await world.state(first) is JobState.SUPERSEDED
    assert (await world.available(person), await world.held(person)) == (19, 0)


async def test_frames_come_in_order_or_not_at_all(world: World) -> None:
    person = await world.person()
    await world.frame(person, 5)
    for seq in (5, 4):
        with pytest.raises(OutOfOrder):
            await world.frame(person, seq)
    await world.frame(person, 6)


async def test_frames_sent_all_at_once_leave_one_job_and_one_hold(world: World) -> None:
    person = await world.person()
    answers = await asyncio.gather(*(world.frame(person, seq) for seq in range(1, 9)), return_exceptions=True)
    accepted = [answer for answer in answers if isinstance(answer, str)]
    states = [await world.state(job_id) for job_id in accepted]
    assert states.count(JobState.QUEUED) == 1
    assert await world.held(person) == 1


async def test_a_cancelled_frame_makes_room_for_the_next(world: World) -> None:
    person, box = await world.person(), await world.box()
    first = await world.frame(person, 1)
    await world.generations.cancel(person, first)
    second = await world.frame(person, 2)
    assert await box.paint() == second


async def test_sessions_of_different_people_do_not_meet(world: World) -> None:
    one, two = await world.person(), await world.person()
    await world.frame(one, 7)
    job_id = await world.frame(two, 1)
    assert await world.state(job_id) is JobState.QUEUED


async def test_a_session_spends_no_more_than_its_limit(world: World) -> None:
    person, box = await world.person(100), await world.box()
    for seq in range(3):
        await world.frame(person, seq, session_cap=3)
        await world.frame(person, 100 * (seq + 1), session_cap=3, session_id="s2")
        await box.paint()
        await box.paint()
    with pytest.raises(SessionSpendCapReached):
        await world.frame(person, 3, session_cap=3)
    await world.frame(person, 3, session_cap=4)


async def test_replacing_a_waiting_frame_spends_nothing_more(world: World) -> None:
    person = await world.person(100)
    for seq in range(10):
        await world.frame(person, seq, session_cap=1)
    assert await world.held(person) == 1


async def test_variations_are_counted_and_stand_behind_frames(empty_database: str, tmp_path: Path) -> None:
    async with open_world(empty_database, tmp_path, limits=Limits(variations_max=2)) as world:
        person, box = await world.person(100), await world.box()
        beside = [await world.ask(person, PRIORITY, session_id="s1", variation=True) for _ in range(2)]
        with pytest.raises(TooManyVariations):
            await world.ask(person, PRIORITY, session_id="s1", variation=True)
        frame = await world.frame(person, 1, tier=PRIORITY)
        plain = await world.ask(await world.person(), PRIORITY)
        assert [await box.paint() for _ in range(4)] == [plain, frame, *beside]
