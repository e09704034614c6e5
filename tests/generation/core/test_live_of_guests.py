"""A live session that a guest began goes on as the person's: no frame of it is painted beside a newer one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from generation.domain.errors import OutOfOrder
from generation.domain.job import JOBS
from generation.domain.requests import session_key
from generation.domain.sessions import SessionChange
from generation.domain.states import JobState
from generation.jobs.reconciliation import Reconciled, Reconciler
from generation.store import tables
from ledger.domain.account import ACCOUNTS
from ledger.identifiers import AccountId, JobId
from ledger.log.categories import Categories
from ledger.log.verify import verify
from ledger.verification import AccountAudit
from tests.generation.core.test_quotas import at_home, used
from tests.generation.core.world import World, open_world


async def merge(world: World, guest: AccountId, person: AccountId) -> None:
    await world.ledger.merge(guest, person, actor=person)


async def come_along(world: World, guest: AccountId, person: AccountId) -> None:
    """What every use of a session does first, once the merge is recorded."""
    earlier = [session_key(guest, "s1")]
    await world.generations.sessions.bring_along(world.ids.command(), person, "s1", earlier)


async def next_frame(world: World, guest: AccountId, person: AccountId, seq: int) -> JobId:
    await come_along(world, guest, person)
    return await world.frame(person, seq)


async def pause(world: World, guest: AccountId, person: AccountId) -> None:
    await come_along(world, guest, person)
    await world.generations.sessions.change(world.ids.command(), person, "s1", SessionChange(paused=True))


async def spent(world: World, person: AccountId) -> int:
    while await world.generations.returns.sweep():
        pass
    return (await world.generations.sessions.look(person, "s1")).spent_credits


@pytest.fixture
async def signed_in(world: World) -> tuple[AccountId, AccountId, JobId]:
    """A guest whose frame waits, and the person whom the guest became."""
    guest, person = await world.person(), await world.person()
    frame = await world.frame(guest, 1)
    await merge(world, guest, person)
    return guest, person, frame


async def test_the_persons_next_frame_replaces_the_guests(
    world: World, signed_in: tuple[AccountId, AccountId, JobId]
) -> None:
    guest, person, first = signed_in
    others = await world.ask(await world.person())
    second = await next_frame(world, guest, person, 2)
    assert await world.state(first) is JobState.SUPERSEDED
    assert (await world.held(guest), await world.open_holds(person)) == (0, {second})
    worker = await world.worker()
    assert {await worker.paint(), await worker.paint()} == {second, others}
    assert await worker.claim() is None
    assert (await world.available(person), await spent(world, person)) == (19, 1)


async def test_at_its_limit_the_session_goes_on_by_replacing_the_guests_frame(world: World) -> None:
    guest, person = await world.person(), await world.person()
    first = await world.frame(guest, 1, session_cap=1)
    await merge(world, guest, person)
    await next_frame(world, guest, person, 2)
    assert await world.state(first) is JobState.SUPERSEDED
    assert await spent(world, person) == 1


async def test_the_persons_pause_stops_all_that_the_guest_has_waiting(
    world: World, signed_in: tuple[AccountId, AccountId, JobId]
) -> None:
    guest, person, frame = signed_in
    await pause(world, guest, person)
    assert await world.state(frame) is JobState.CANCELLED
    assert (await world.held(guest), await spent(world, person)) == (0, 0)
    assert await (await world.worker()).claim() is None


async def test_a_variation_of_the_guests_is_painted_beside_the_persons_frames_and_paused_with_them(
    world: World,
) -> None:
    guest, person, worker = await world.person(), await world.person(), await world.worker()
    beside = [await world.ask(guest, session_id="s1", variation=True) for _ in range(2)]
    await merge(world, guest, person)
    frame = await next_frame(world, guest, person, 1)
    assert await worker.paint() in {frame, *beside}
    await pause(world, guest, person)
    assert await worker.claim() is None
    assert (await world.held(guest), await world.held(person)) == (0, 0)
    assert await spent(world, person) == 1


async def test_the_guests_running_frame_is_finished_unless_a_newer_one_came_first(world: World) -> None:
    for newer_first in (False, True):
        guest, person = await world.person(), await world.person()
        slow, fast = await world.worker(), await world.worker()
        first = await world.frame(guest, 1)
        running = await slow.take()
        await merge(world, guest, person)
        second = await next_frame(world, guest, person, 2)
        assert await world.state(first) is JobState.RUNNING
        if newer_first:
            assert await fast.paint() == second
        assert await slow.deliver(running) == ("superseded" if newer_first else "completed")
        if not newer_first:
            assert await fast.paint() == second
        assert await world.held(guest) == 0
        assert await spent(world, person) == (1 if newer_first else 2)


async def test_a_frame_of_the_guests_that_comes_back_to_a_session_paused_since_is_stopped(
    world: World,
) -> None:
    guest, person, worker = await world.person(), await world.person(), await world.worker()
    await world.frame(guest, 1)
    running = await worker.take()
    await merge(world, guest, person)
    await pause(world, guest, person)
    assert await worker.fail(running) == "queued"
    assert await (await world.worker()).claim() is None
    assert await world.generations.sessions.sweep() == 1
    assert (await world.held(guest), await spent(world, person)) == (0, 0)


async def test_where_the_merge_is_recorded_after_the_persons_frame_the_guests_gives_way_with_the_next(
    world: World,
) -> None:
    guest, person, worker = await world.person(), await world.person(), await world.worker()
    first = await world.frame(guest, 1)
    await world.frame(person, 2)
    await merge(world, guest, person)
    third = await next_frame(world, guest, person, 3)
    assert await world.state(first) is JobState.SUPERSEDED
    assert await worker.paint() == third
    assert await worker.claim() is None
    assert (await world.held(guest), await spent(world, person)) == (0, 1)


async def test_a_limit_set_before_the_merge_is_recorded_leaves_the_guests_frame_to_the_next(
    world: World,
) -> None:
    guest, person = await world.person(), await world.person()
    first = await world.frame(guest, 1)
    await world.generations.sessions.change(world.ids.command(), person, "s1", SessionChange(cap_credits=2))
    await merge(world, guest, person)
    with pytest.raises(OutOfOrder):
        await next_frame(world, guest, person, 1)
    assert (await world.state(first), await spent(world, person)) == (JobState.QUEUED, 1)
    await world.frame(person, 2)
    assert (await world.state(first), await spent(world, person)) == (JobState.SUPERSEDED, 1)


async def test_a_refused_frame_leaves_the_guests_to_be_painted(
    world: World, signed_in: tuple[AccountId, AccountId, JobId]
) -> None:
    guest, person, first = signed_in
    with pytest.raises(OutOfOrder):
        await next_frame(world, guest, person, 1)
    assert await (await world.worker()).paint() == first
    assert (await world.held(guest), await spent(world, person)) == (0, 1)


async def test_who_dies_between_taking_over_and_the_frame_has_lost_and_charged_nothing(
    world: World, signed_in: tuple[AccountId, AccountId, JobId]
) -> None:
    guest, person, first = signed_in
    await come_along(world, guest, person)
    await come_along(world, guest, person)
    assert (await world.state(first), await spent(world, person)) == (JobState.QUEUED, 1)
    second = await next_frame(world, guest, person, 2)
    assert await (await world.worker()).paint() == second
    assert (await world.state(first), await world.held(guest)) == (JobState.SUPERSEDED, 0)


async def test_looking_at_a_session_changes_nothing(
    world: World, signed_in: tuple[AccountId, AccountId, JobId]
) -> None:
    guest, person, _ = signed_in
    before = [await world.rows(table) for table in (tables.live_sessions, tables.job_queue)]
    view = await world.generations.sessions.look(person, "s1", [session_key(guest, "s1")])
    assert view.spent_credits == 1
    assert before == [await world.rows(table) for table in (tables.live_sessions, tables.job_queue)]


async def test_the_free_image_of_a_replaced_guests_frame_is_counted_back_at_its_network(world: World) -> None:
    guest, person = await world.person(), await world.person()
    await world.frame(guest, 1, networks=at_home)
    await merge(world, guest, person)
    await come_along(world, guest, person)
    await world.frame(person, 2, networks=at_home)
    assert await spent(world, person) == 1
    assert await used(world) == [1, 1]


@contextlib.asynccontextmanager
async def two_processes(url: str, folder: Path) -> AsyncIterator[tuple[World, World]]:
    async with open_world(url, folder) as here, open_world(url, folder, clock=here.clock) as there:
        yield here, there


async def test_two_processes_that_go_on_at_once_leave_one_frame_and_one_hold(
    empty_database: str, tmp_path: Path
) -> None:
    async with two_processes(empty_database, tmp_path) as (here, there):
        worker = await here.worker()
        for _ in range(5):
            guest, person = await here.person(), await here.person()
            first = await here.frame(guest, 1)
            await asyncio.gather(
                merge(here, guest, person),
                worker.claim(),
                *(
                    next_frame(world, guest, person, seq)
                    for seq, world in enumerate((here, there, here, there), start=2)
                ),
                return_exceptions=True,
            )
            last = await next_frame(there, guest, person, 9)
            started = await here.state(first) is JobState.RUNNING
            assert await here.open_holds(guest) == ({first} if started else set())
            waiting = [row for row in await here.rows(tables.job_queue) if row["worker_id"] is None]
            assert [row["job_id"] for row in waiting] == [last]
            await pause(here, guest, person)
            await pause(there, guest, person)
        report = verify(empty_database, Categories([ACCOUNTS, JOBS]), audits={"acct": AccountAudit()})
        assert report.ok, report.findings
        reconciler = Reconciler(
            log=here.sequencer,
            reader=here.reader,
            queue=here.queue,
            clock=here.clock,
            identifiers=here.ids,
            metrics=here.dispatch.metrics,
        )
        found = await reconciler.run()
        assert found == Reconciled(jobs=found.jobs, holds=found.holds)
