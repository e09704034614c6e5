"""What speaks against a worker, what does not, and how it comes back."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from PIL import Image

from generation.delivery.dispatch import LEASE, UNWATCHED_SECONDS, Dispatch
from generation.fleet.quarantine import ACCOUNTS_MIN, FIRST_WAIT, LONGEST_WAIT, clear, wait_before
from generation.fleet.registry import WorkerRegistry
from generation.images.moderation import TermModeration
from generation.store.tables import worker_failures, workers
from ledger.identifiers import AccountId, JobId
from tests.generation.core.world import FakeWorker, World
from tests.waiting import until


async def break_a_job(
    world: World, bad: FakeWorker, account_id: AccountId, code: str = "node_failed"
) -> None:
    """One attempt fails on this worker; another one makes the image."""
    await world.ask(account_id)
    await bad.fail(await bad.take(), code=code)
    await (await world.worker()).paint()


async def quarantined(world: World) -> FakeWorker:
    bad = await world.worker()
    for _ in range(ACCOUNTS_MIN):
        await break_a_job(world, bad, await world.person())
    assert (await bad.known()).state == "quarantined"
    return bad


async def test_failed_jobs_of_different_people_put_a_worker_in_quarantine(world: World) -> None:
    bad = await quarantined(world)
    await world.ask(await world.person())
    assert await bad.claim() is None


async def test_one_person_can_quarantine_nobody(world: World) -> None:
    worker, stranger = await world.worker(), await world.person(100)
    for _ in range(2 * ACCOUNTS_MIN):
        await break_a_job(world, worker, stranger)
    assert (await worker.known()).state == "active"


async def test_one_job_can_quarantine_nobody(world: World) -> None:
    """Also if it fails in another way each time, so that nothing shows whose fault it is."""
    worker = await world.worker()
    await world.ask(await world.person())
    for code in ("node_failed", "run_hung", "server_died"):
        await worker.fail(await worker.take(), code=code)
    assert len(await world.rows(worker_failures)) == 1
    assert (await worker.known()).state == "active"


@pytest.mark.parametrize(
    ("failure", "code"), [("service", "storage_failed"), ("infrastructure", "blank_image")]
)
async def test_what_is_not_the_machines_fault_is_no_evidence(world: World, failure: str, code: str) -> None:
    worker = await world.worker()
    for _ in range(2 * ACCOUNTS_MIN):
        await world.ask(await world.person())
        await worker.fail(await worker.take(), failure, code)
        await (await world.worker()).paint()
    assert (await worker.known()).state == "active"


async def test_a_worker_that_passes_its_self_test_works_again(world: World) -> None:
    bad = await quarantined(world)
    tested = world.registry.quarantine.self_tested
    assert await tested(bad.worker.worker_id, passed=True) == "quarantined", "nobody asked it yet"
    world.clock.advance(FIRST_WAIT)
    assert await tested(bad.worker.worker_id, passed=True) == "active"
    job_id = await world.ask(await world.person())
    assert await bad.paint() == job_id
    await break_a_job(world, bad, await world.person())
    assert (await bad.known()).state == "active", "what was before its test counts no more"


async def test_a_worker_that_fails_its_self_test_is_asked_again_later_each_time(world: World) -> None:
    bad = await quarantined(world)
    name, waits = bad.worker.worker_id, []
    for _ in range(3):
        due = (await bad.known()).self_test_at
        assert due is not None
        waits.append(due - world.clock())
        world.clock.advance(waits[-1])
        assert await world.registry.quarantine.self_tested(name, passed=False) == "quarantined"
    assert waits == [FIRST_WAIT, 2 * FIRST_WAIT, 4 * FIRST_WAIT]
    assert wait_before(1_000) == LONGEST_WAIT


async def test_a_restart_does_not_lift_a_quarantine(world: World) -> None:
    bad = await quarantined(world)
    await world.registry.drain(bad.worker.worker_id)
    await world.dispatch.resume(await bad.known())
    assert (await bad.known()).state == "quarantined"


async def test_a_quarantined_worker_is_kept_waiting_as_long_as_it_asked_to(world: World) -> None:
    bad = await quarantined(world)
    began = asyncio.get_running_loop().time()
    assert await world.dispatch.claim(await bad.known(), wait_seconds=0.3) is None
    assert asyncio.get_running_loop().time() - began >= 0.3


async def test_workers_are_forgiven_for_a_job_whose_own_fault_it_was(world: World) -> None:
    first, second = await world.worker(), await world.worker()
    for _ in range(ACCOUNTS_MIN - 1):
        await break_a_job(world, first, await world.person())
    await world.ask(await world.person())
    await first.fail(await first.take(), code="out_of_memory", node="KSampler")
    assert (await first.known()).state == "quarantined"
    assert await second.fail(await second.take(), code="out_of_memory", node="KSampler") == "failed"
    assert (await first.known()).state == "active"


async def waits_or_ends(world: World, task: asyncio.Task[None]) -> None:
    """Return once a lock is waited for, or there was none to wait for."""
    locks = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")

    async def so_it_is() -> bool:
        async with world.engine.connect() as another:
            return task.done() or bool(await another.scalar(locks))

    await until(so_it_is, bool, "it neither waited nor ended")


async def test_what_is_forgiven_while_more_evidence_comes_is_decided_after_it(world: World) -> None:
    bad = await world.worker()
    for _ in range(ACCOUNTS_MIN - 1):
        await break_a_job(world, bad, await world.person())
    forgiven = JobId((await world.rows(worker_failures))[0]["job_id"])
    mine = workers.c.worker_id == bad.worker.worker_id
    async with world.engine.begin() as connection:  # as the failure of a third account does it
        await connection.execute(sa.select(workers).where(mine).with_for_update())
        third = {
            "worker_id": bad.worker.worker_id,
            "job_id": world.ids.job(),
            "account_id": world.ids.account(),
        }
        row = {**third, "code": "node_failed", "failed_at": world.clock()}
        await connection.execute(sa.insert(worker_failures).values(row))
        forgiving = asyncio.create_task(world.registry.quarantine.forgive(forgiven))
        await waits_or_ends(world, forgiving)
        quarantined = {"state": "quarantined", "self_test_at": world.clock()}
        await connection.execute(sa.update(workers).where(mine).values(**quarantined))
    await forgiving
    assert len(await world.rows(worker_failures)) == ACCOUNTS_MIN - 1
    assert (await bad.known()).state == "active"


async def test_what_is_noted_while_a_failure_is_noted_comes_after_it(world: World) -> None:
    worker = await world.worker()
    name = worker.worker.worker_id

    async def delivered() -> None:
        async with world.engine.begin() as connection:
            await clear(connection, [name])

    async with world.engine.begin() as connection:  # as the failure of an account does it
        await connection.execute(sa.select(workers).where(workers.c.worker_id == name).with_for_update())
        failure = {"worker_id": name, "job_id": world.ids.job(), "account_id": world.ids.account()}
        row = {**failure, "code": "node_failed", "failed_at": world.clock()}
        await connection.execute(sa.insert(worker_failures).values(row))
        noting = asyncio.create_task(delivered())
        await waits_or_ends(world, noting)
    await noting
    assert await world.rows(worker_failures) == [], "what spoke against it before it delivered is left"


async def test_two_processes_note_what_the_same_workers_delivered_and_neither_is_undone(world: World) -> None:
    one, other = await world.worker(), await world.worker()
    names = [one.worker.worker_id, other.worker.worker_id]
    second = WorkerRegistry(world.engine, world.clock, world.ids, registration_secret=b"r" * 32)
    for _ in range(20):
        for registry, order in ((world.registry, names), (second, names[::-1])):
            for name in order:
                registry.note_success(name, 10)
        await asyncio.gather(
            world.registry.flush(),
            second.flush(),
            world.registry.note_waiting(names[0]),
            world.registry.quarantine.forgive(world.ids.job()),
        )
    assert {row["jobs_done"] for row in await world.rows(workers)} == {40}


async def test_an_image_on_which_only_we_see_nothing_is_no_evidence(world: World) -> None:
    """The worker found it good enough: its bound is another one."""
    worker = await world.worker()
    nearly_grey = Image.new("RGB", (64, 64), "#808080")
    nearly_grey.paste("#838383", (0, 0, 32, 32))
    output = io.BytesIO()
    nearly_grey.save(output, "PNG")
    job_id = await world.ask(await world.person())
    assert await worker.deliver(await worker.take(), output.getvalue()) == "queued"
    assert await world.rows(worker_failures) == []
    assert (await world.job(job_id)).failures[0].code == "blank_image"


async def lost(world: World, dispatch: Dispatch) -> None:
    """The lease of the job that is being painted lapses, a sweep finds it, and another worker paints."""
    world.pass_time(seconds=LEASE.total_seconds() + 1)
    await dispatch.sweep()
    await (await world.worker()).paint()


def watching(world: World, monotonic: Callable[[], float] = time.monotonic) -> Dispatch:
    """Dispatch in a process that starts now."""
    return Dispatch(
        log=world.sequencer,
        reader=world.reader,
        queue=world.queue,
        store=world.store,
        signals=world.signals,
        moderation=TermModeration(),
        registry=world.registry,
        clock=world.clock,
        monotonic=monotonic,
    )


async def test_silence_while_we_were_away_blames_nobody_however_often(world: World) -> None:
    """A worker that cannot tell a gateway that is down that it lives has done nothing wrong."""
    worker = await world.worker()
    for _ in range(ACCOUNTS_MIN):
        await world.ask(await world.person())
        await worker.take()
        world.pass_time(seconds=1)
        await lost(world, watching(world))
    assert (await worker.known()).state == "active"
    assert await world.rows(worker_failures) == []


async def test_silence_while_the_database_was_away_blames_nobody(world: World) -> None:
    seconds = iter((0.0, UNWATCHED_SECONDS + 1, UNWATCHED_SECONDS + 2))
    dispatch, worker = watching(world, lambda: next(seconds)), await world.worker()
    await dispatch.sweep()
    await world.ask(await world.person())
    await worker.take()
    await lost(world, dispatch)
    assert await world.rows(worker_failures) == []
    await world.ask(await world.person())
    await worker.take()
    await lost(world, dispatch)
    assert len(await world.rows(worker_failures)) == 1, "now somebody was there to hear it"
