"""Live sketching: the newest frame wins, the running one is left alone, old pictures cost nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from generation.domain.errors import (
    OutOfOrder,
    QueueFull,
    SessionPaused,
    SessionSpendCapReached,
    TooManyVariations,
)
from generation.domain.events import JobSuperseded
from generation.domain.fairness import PRIORITY
from generation.domain.requests import Limits, session_key
from generation.domain.sessions import LiveSession, SessionChange, SessionMoved, SessionView
from generation.domain.states import JobState
from generation.jobs.admission import sketch_key
from generation.jobs.live import LiveSessions
from generation.queueing.queue import JobQueue
from generation.store import tables
from ledger.identifiers import AccountId
from ledger.log.model import Receipt, Transaction
from tests.generation.core.world import World, open_world


async def test_the_newest_frame_takes_over_hold_and_place_of_the_waiting_one(world: World) -> None:
    person = await world.person()
    first = await world.frame(person, 1)
    others = await world.ask(await world.person())
    second = await world.frame(person, 2)
    assert await world.state(first) is JobState.SUPERSEDED
    assert await world.held(person) == 1
    assert await world.open_holds(person) == {second}
    worker = await world.worker()
    assert [await worker.paint(), await worker.paint()] == [second, others]
    assert await world.available(person) == 19


async def test_the_running_frame_is_never_interrupted(world: World) -> None:
    person, worker = await world.person(), await world.worker()
    first = await world.frame(person, 1)
    job = await worker.take()
    second = await world.frame(person, 2)
    assert await world.state(first) is JobState.RUNNING
    assert await world.held(person) == 2
    assert await worker.deliver(job) == "completed"
    assert await worker.paint() == second
    assert await world.available(person) == 18


async def test_a_frame_older_than_the_newest_delivered_costs_nothing(world: World) -> None:
    person, slow, fast = await world.person(), await world.worker(), await world.worker()
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
    person, worker = await world.person(), await world.worker()
    first = await world.frame(person, 1)
    await world.generations.cancel(person, first)
    second = await world.frame(person, 2)
    assert await worker.paint() == second


async def test_sessions_of_different_people_do_not_meet(world: World) -> None:
    one, two = await world.person(), await world.person()
    await world.frame(one, 7)
    job_id = await world.frame(two, 1)
    assert await world.state(job_id) is JobState.QUEUED


async def test_a_session_spends_no_more_than_its_limit(world: World) -> None:
    person, worker = await world.person(100), await world.worker()
    for seq in range(3):
        await world.frame(person, seq, session_cap=3)
        await world.frame(person, 100 * (seq + 1), session_cap=3, session_id="s2")
        await worker.paint()
        await worker.paint()
    with pytest.raises(SessionSpendCapReached):
        await world.frame(person, 3, session_cap=3)
    await change(world, person, cap_credits=4)
    await world.frame(person, 3, session_cap=4)


async def test_replacing_a_waiting_frame_spends_nothing_more(world: World) -> None:
    person = await world.person(100)
    for seq in range(10):
        await world.frame(person, seq, session_cap=1)
    assert await world.held(person) == 1


async def test_variations_are_counted_and_stand_behind_frames(empty_database: str, tmp_path: Path) -> None:
    async with open_world(empty_database, tmp_path, limits=Limits(variations_max=2)) as world:
        person, worker = await world.person(100), await world.worker()
        beside = [await world.ask(person, PRIORITY, session_id="s1", variation=True) for _ in range(2)]
        with pytest.raises(TooManyVariations):
            await world.ask(person, PRIORITY, session_id="s1", variation=True)
        frame = await world.frame(person, 1, tier=PRIORITY)
        plain = await world.ask(await world.person(), PRIORITY)
        assert [await worker.paint() for _ in range(4)] == [plain, frame, *beside]


async def test_a_superseded_picture_names_the_newer_one(world: World) -> None:
    person, slow, fast = await world.person(), await world.worker(), await world.worker()
    first = await world.frame(person, 1)
    late = await slow.take()
    second = await world.frame(person, 2)
    assert await fast.paint() == second
    assert await slow.deliver(late) == "superseded"
    event = (await world.reader.events(first))[-1].event
    assert isinstance(event, JobSuperseded)
    assert event.by_job == second


# --- pausing, and limits ---


async def change(world: World, person: AccountId, **wanted: Any) -> SessionView:
    return await world.generations.sessions.change(world.ids.command(), person, "s1", SessionChange(**wanted))


async def test_a_paused_session_takes_nothing_and_holds_nothing(world: World) -> None:
    person, worker = await world.person(), await world.worker()
    frame = await world.frame(person, 1)
    beside = await world.ask(person, session_id="s1", variation=True)
    alone = await world.ask(person)
    view = await change(world, person, paused=True)
    assert (view.paused_by, view.spent_credits) == ("person", 0)
    assert {await world.state(job_id) for job_id in (frame, beside)} == {JobState.CANCELLED}
    assert (await world.job(frame)).reason == "session_paused"
    assert await world.open_holds(person) == {alone}
    with pytest.raises(SessionPaused):
        await world.frame(person, 2)
    with pytest.raises(SessionPaused):
        await world.ask(person, session_id="s1", variation=True)
    assert await worker.paint() == alone
    assert await worker.claim() is None


async def test_a_pause_counts_back_also_what_a_sweeper_has_just_taken_up(world: World) -> None:
    person = await world.person()
    frame = await world.frame(person, 1)
    await world.generations.cancel(person, frame)
    notes = tables.job_usage_reversals
    async with world.engine.begin() as connection:
        await connection.execute(sa.update(notes).values(due_at=world.clock() + timedelta(minutes=1)))
    assert len(await world.rows(notes)) == 1
    assert (await change(world, person, paused=True)).spent_credits == 0
    assert await world.rows(notes) == []


async def test_a_resumed_session_goes_on_where_it_stopped(world: World) -> None:
    person, worker = await world.person(), await world.worker()
    await world.frame(person, 5)
    await change(world, person, paused=True)
    assert (await change(world, person, paused=True)).paused_by == "person"
    assert (await change(world, person, paused=False)).paused_by is None
    with pytest.raises(OutOfOrder):
        await world.frame(person, 5)
    newest = await world.frame(person, 6)
    assert await worker.paint() == newest
    assert await world.available(person) == 19


async def test_the_running_frame_of_a_paused_session_is_finished_and_charged(world: World) -> None:
    person, worker = await world.person(), await world.worker()
    await world.frame(person, 1)
    job = await worker.take()
    await change(world, person, paused=True)
    assert await world.held(person) == 1
    assert await worker.deliver(job) == "completed"
    assert (await world.available(person), await world.held(person)) == (19, 0)


async def test_a_frame_that_comes_back_to_a_paused_session_is_stopped(world: World) -> None:
    person, worker, other = await world.person(), await world.worker(), await world.worker()
    frame = await world.frame(person, 1)
    job = await worker.take()
    await change(world, person, paused=True)
    assert await worker.fail(job) == "queued"
    assert await other.claim() is None
    assert await world.generations.sessions.sweep() == 1
    assert await world.generations.sessions.sweep() == 0
    assert await world.state(frame) is JobState.CANCELLED
    assert await world.held(person) == 0


async def test_a_frame_that_cannot_be_stopped_holds_up_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = [await world.person() for _ in range(3)]
    frames = [await world.frame(person, 1) for person in people]
    async with world.engine.begin() as connection:  # as if they had come back from dead workers
        await connection.execute(sa.update(tables.live_sessions).values(paused=True))
    submit = world.sequencer.submit

    async def broken(transaction: Transaction) -> Receipt:
        if frames[0] in transaction.streams:
            raise RuntimeError("this stream cannot be read")
        return await submit(transaction)

    with monkeypatch.context() as patched:
        patched.setattr(world.sequencer, "submit", broken)
        assert await world.generations.sessions.sweep() == 2
        assert [await world.held(person) for person in people] == [1, 0, 0]
        with pytest.raises(RuntimeError):  # who pauses is not told that all is well
            await change(world, people[0], paused=True)
    assert await world.generations.sessions.sweep() == 1


async def test_pausing_among_frames_leaves_nothing_waiting(world: World) -> None:
    person = await world.person()
    await asyncio.gather(
        *(world.frame(person, seq) for seq in range(1, 9)),
        change(world, person, paused=True),
        *(world.frame(person, seq) for seq in range(9, 17)),
        return_exceptions=True,
    )
    assert (await world.generations.sessions.look(person, "s1")).paused_by == "person"
    assert await world.held(person) == 0
    assert await world.rows(tables.job_queue) == []


async def test_pausing_one_session_leaves_the_others_alone(world: World) -> None:
    person, worker = await world.person(), await world.worker()
    await change(world, person, paused=True)
    frame = await world.frame(person, 1, session_id="s2")
    somebody = await world.frame(await world.person(), 1)
    assert {await worker.paint(), await worker.paint()} == {frame, somebody}


async def test_a_session_that_has_spent_its_limit_pauses_until_the_limit_is_raised(world: World) -> None:
    person, worker = await world.person(100), await world.worker()
    await change(world, person, cap_credits=2)
    for seq in (1, 2):
        await world.frame(person, seq)
        await worker.paint()
    view = await world.generations.sessions.look(person, "s1")
    assert (view.paused_by, view.limit_credits, view.spent_credits) == ("spend_cap", 2, 2)
    with pytest.raises(SessionSpendCapReached) as refused:
        await world.frame(person, 3)
    assert refused.value.details == {"limit": 2, "spent": 2, "paused_by": "spend_cap"}
    with pytest.raises(SessionSpendCapReached):
        await change(world, person, paused=False)
    assert (await change(world, person, cap_credits=3)).paused_by is None
    await world.frame(person, 3)
    assert (await change(world, person, uncap=True)).limit_credits == Limits().session_credits_max


async def test_the_limit_given_with_a_frame_stays_with_the_session(world: World) -> None:
    person, worker = await world.person(100), await world.worker()
    await world.frame(person, 1, session_cap=1)
    await worker.paint()
    with pytest.raises(SessionSpendCapReached):
        await world.frame(person, 2)


async def test_a_frame_lowers_the_limit_of_its_session_and_never_raises_it(world: World) -> None:
    person = await world.person(100)
    limits = []
    for seq, cap in enumerate((100, 20, 100)):
        await world.frame(person, seq, session_cap=cap)
        limits.append((await world.generations.sessions.look(person, "s1")).cap_credits)
    await change(world, person, cap_credits=10)
    await world.frame(person, 3, session_cap=100)
    limits.append((await world.generations.sessions.look(person, "s1")).cap_credits)
    assert limits == [100, 20, 20, 10]
    assert (await change(world, person, cap_credits=50)).cap_credits == 50


async def test_what_was_not_delivered_is_not_spent(world: World) -> None:
    person, worker = await world.person(100), await world.worker()
    for seq, end in enumerate(("failed", "cancelled", "expired")):
        job_id = await world.frame(person, seq, session_cap=1)
        if end == "failed":
            await worker.fail(await worker.take(), "input", "node_refused")
        elif end == "cancelled":
            await world.generations.cancel(person, job_id)
        else:
            world.pass_time(minutes=11)
            await world.dispatch.sweep()
        assert (await world.state(job_id)).value == end
        assert await world.generations.returns.sweep() == 1
        assert await world.generations.returns.sweep() == 0
        assert (await world.generations.sessions.look(person, "s1")).spent_credits == 0


class Overtaken:
    """A log in which the live session has always changed meanwhile."""

    async def submit(self, transaction: Transaction) -> Receipt:
        raise SessionMoved


async def test_a_request_that_is_overtaken_too_often_leaves_the_sketch_to_whoever_accepts_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = world.request(await world.person(), live=True, session_id="s1", seq=1)
    accepted = await world.generations.request(request)
    monkeypatch.setattr(world.generations, "_log", Overtaken())
    with pytest.raises(QueueFull):
        await world.generations.request(request)
    assert await world.state(accepted.job_id) is JobState.QUEUED
    assert await world.store.get(sketch_key(request), limit_bytes=1_000_000) == request.sketch.data


async def test_what_a_guest_changes_in_a_session_while_it_is_brought_along_comes_along(world: World) -> None:
    guest, person = await world.person(), await world.person()
    await world.frame(guest, 1)

    class Meanwhile(JobQueue):
        """The guest limits the session at another process, after it was read here."""

        async def newest_session(self, session_keys: Sequence[str]) -> LiveSession | None:
            found = await super().newest_session(session_keys)
            await change(world, guest, cap_credits=7, paused=True)
            return found

    here = LiveSessions(
        log=world.sequencer,
        queue=Meanwhile(world.engine, world.pool),
        returns=world.generations.returns,
        limits=Limits().of_session,
        metrics=world.dispatch.metrics,
    )
    await here.bring_along(world.ids.command(), person, "s1", [session_key(guest, "s1")])
    view = await here.look(person, "s1")
    assert (view.cap_credits, view.paused_by) == (7, "person")
