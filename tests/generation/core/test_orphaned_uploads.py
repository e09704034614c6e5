"""What workers leave behind in storage is deleted, and never what was delivered or may still come."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from generation.delivery.dispatch import UPLOAD_MARGIN, Assignment
from generation.domain.errors import ObjectMissing, StaleLease
from generation.domain.states import JobState
from generation.images.checking import RESULT_BYTES_MAX
from generation.images.object_store import DiskStore, LinkSigner, ObjectStore
from generation.jobs import orphaned_uploads, unreferenced_objects
from generation.jobs.orphaned_uploads import image_keys, upload_key
from generation.jobs.unreferenced_objects import Unreferenced, UnreferencedObjects
from generation.store import tables
from ledger.clock import ManualClock
from ledger.identifiers import JobId
from ledger.log.reader import StreamState
from tests.generation.core.world import NOON, World, open_world, picture


@pytest.fixture(params=["disk", "bucket"])
async def world(request: pytest.FixtureRequest, empty_database: str, tmp_path: Path) -> AsyncIterator[World]:
    bucket: ObjectStore | None = request.getfixturevalue("bucket") if request.param == "bucket" else None
    async with open_world(empty_database, tmp_path, store=bucket) as opened:
        for key in await stored(opened):  # the bucket outlives a test
            await opened.store.delete(key)
        yield opened


PNG, WEBP = "image/png", "image/webp"


async def stored(world: World) -> set[str]:
    """Every key that is there."""
    folders = ("sketches", "uploads", "images")
    return {found.key for folder in folders async for page in world.store.listed(folder) for found in page}


class StubbornStore(DiskStore):
    """It sometimes deletes nothing."""

    stubborn = False

    async def delete(self, key: str) -> None:
        if self.stubborn:
            raise OSError("the storage does not answer")
        await super().delete(key)


async def there(world: World, job_id: JobId, epochs: int = 4) -> list[str]:
    """What is stored for a job: `u1` is the upload of lease 1, `i2` the picture of lease 2."""
    found = []
    for epoch in range(1, epochs + 1):
        for kind, key in (("u", upload_key(job_id, epoch)), ("i", image_keys(job_id, epoch, PNG)[0])):
            try:
                await world.store.get(key, limit_bytes=RESULT_BYTES_MAX)
            except ObjectMissing:
                continue
            found.append(f"{kind}{epoch}")
    return found


async def put_late(world: World, job: Assignment) -> None:
    """A worker that is believed dead finishes its upload by the link it has."""
    await world.store.put(upload_key(job.claim.job_id, job.claim.epoch), picture(3), "image/png")


def pass_all_links(world: World) -> None:
    world.pass_time(seconds=600 + orphaned_uploads.LINKS_OUTLIVE.total_seconds() + 1)


def test_no_link_to_upload_by_outlives_the_sweep() -> None:
    assert UPLOAD_MARGIN + timedelta(minutes=2) <= orphaned_uploads.LINKS_OUTLIVE


async def test_the_upload_of_a_dead_lease_goes_and_the_delivered_picture_stays(world: World) -> None:
    person, dead, alive = await world.person(), await world.worker(), await world.worker()
    job_id = await world.ask(person)
    lost = await dead.take()
    world.pass_time(seconds=31)
    await world.dispatch.sweep()
    assert await alive.deliver(await alive.take()) == "completed"
    await put_late(world, lost)
    with pytest.raises(StaleLease):
        await dead.deliver(lost)
    world.pass_time(minutes=20)
    assert await world.orphaned_uploads.sweep() == 0
    assert await there(world, job_id) == ["u1", "i2"]
    pass_all_links(world)
    assert await world.orphaned_uploads.sweep() == 1
    assert await there(world, job_id) == ["i2"]
    assert await world.orphaned_uploads.sweep() == 0
    assert await world.generations.image_url(person, job_id) is not None


async def test_a_rejected_upload_goes_when_its_job_has_ended(world: World) -> None:
    person = await world.person()
    job_id = await world.ask(person)
    for _ in range(3):
        worker = await world.worker()
        job = await worker.take()
        await worker.deliver(job, b"not an image")
        await put_late(world, job)
    assert await world.state(job_id) is JobState.FAILED
    assert await there(world, job_id) == ["u1", "u2", "u3"]
    pass_all_links(world)
    assert await world.orphaned_uploads.sweep() == 1
    assert await there(world, job_id) == []


async def test_a_superseded_frame_leaves_nothing(world: World) -> None:
    person, slow, fast = await world.person(), await world.worker(), await world.worker()
    first = await world.frame(person, 1)
    late = await slow.take()
    second = await world.frame(person, 2)
    await fast.paint()
    assert await slow.deliver(late) == "superseded"
    await put_late(world, late)
    for key in (
        *image_keys(first, 1, PNG),
        *image_keys(first, 1, WEBP),
    ):  # as of a gateway that died before it took them back
        await world.store.put(key, picture(), "image/png")
    pass_all_links(world)
    assert await world.orphaned_uploads.sweep() == 1
    assert (await there(world, first), await there(world, second)) == ([], ["i1"])


async def test_nothing_of_a_job_that_has_not_ended_is_touched(world: World) -> None:
    person, worker = await world.person(), await world.worker()
    job_id = await world.ask(person)
    report = await worker.upload(job := await worker.take())
    async with world.engine.begin() as connection:
        due = {"job_id": job_id, "due_at": world.clock()}
        await connection.execute(tables.job_orphaned_uploads.insert().values(due))
    assert await world.orphaned_uploads.sweep() == 0
    assert await there(world, job_id) == ["u1"]
    assert await world.dispatch.complete(worker.worker, job.claim.job_id, report) == "completed"
    pass_all_links(world)
    assert await world.orphaned_uploads.sweep() == 1
    assert await there(world, job_id) == ["i1"]


async def test_what_storage_would_not_delete_is_tried_again(empty_database: str, tmp_path: Path) -> None:
    clock = ManualClock(NOON)
    store = StubbornStore(tmp_path, LinkSigner(b"s" * 32, clock), "http://127.0.0.1")
    async with open_world(empty_database, tmp_path, clock=clock, store=store) as world:
        job_id = await world.ask(await world.person())
        job = await (worker := await world.worker()).take()
        await worker.fail(job, "input", "node_refused")
        await put_late(world, job)
        pass_all_links(world)
        store.stubborn = True
        assert await world.orphaned_uploads.sweep() == 0
        store.stubborn = False
        assert await world.orphaned_uploads.sweep() == 0
        world.pass_time(minutes=16)
        assert await world.orphaned_uploads.sweep() == 1
        assert await there(world, job_id) == []


async def test_a_job_that_cannot_be_read_holds_up_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, jobs = await world.worker(), []
    for _ in range(2):
        await world.ask(await world.person())
        jobs.append(await worker.take())
        await worker.fail(jobs[-1], "input", "node_refused")
        await put_late(world, jobs[-1])
    first, second = (job.claim.job_id for job in jobs)
    pass_all_links(world)
    state = world.reader.state

    async def broken(stream: str) -> StreamState:
        if stream == first:
            raise RuntimeError("this stream cannot be read")
        return await state(stream)

    with monkeypatch.context() as patched:
        patched.setattr(world.reader, "state", broken)
        assert await world.orphaned_uploads.sweep() == 1
    assert (await there(world, first), await there(world, second)) == (["u1"], [])
    pass_all_links(world)
    assert await world.orphaned_uploads.sweep() == 1
    assert await there(world, first) == []


async def test_a_report_sent_again_clears_up_after_a_gateway_that_died(world: World) -> None:
    person, worker = await world.person(), await world.worker()
    job_id = await world.ask(person)
    job = await worker.take()
    assert await worker.deliver(job) == "completed"
    report = await worker.upload(job)
    assert await world.dispatch.complete(worker.worker, job_id, report) == "completed"
    assert await there(world, job_id) == ["i1"]


async def sketch_key_of(world: World, job_id: JobId) -> str:
    (row,) = [row for row in await world.rows(tables.job_inputs) if row["job_id"] == job_id]
    return str(row["sketch_key"])


async def is_stored(world: World, key: str) -> bool:
    try:
        await world.store.get(key, limit_bytes=RESULT_BYTES_MAX)
    except ObjectMissing:
        return False
    return True


async def cancelled(world: World) -> JobId:
    person = await world.person()
    job_id = await world.ask(person)
    await world.generations.cancel(person, job_id)
    return job_id


async def refused_by_the_worker(world: World) -> JobId:
    worker, job_id = await world.worker(), await world.ask(await world.person())
    await worker.fail(await worker.take(), "input", "node_refused")
    return job_id


async def expired(world: World) -> JobId:
    job_id = await world.ask(await world.person())
    world.pass_time(minutes=11)
    await world.dispatch.sweep()
    return job_id


async def superseded(world: World) -> JobId:
    person = await world.person()
    first = await world.frame(person, 1)
    await world.frame(person, 2)
    return first


@pytest.mark.parametrize("end", [cancelled, refused_by_the_worker, expired, superseded])
async def test_the_inputs_of_a_job_without_an_image_go_with_it(
    world: World, end: Callable[[World], Awaitable[JobId]]
) -> None:
    before = {row["job_id"] for row in await world.rows(tables.job_inputs)}
    job_id = await end(world)
    assert job_id not in before
    key = await sketch_key_of(world, job_id)
    assert await is_stored(world, key)
    await world.orphaned_uploads.sweep()
    assert not await is_stored(world, key)
    (row,) = [row for row in await world.rows(tables.job_inputs) if row["job_id"] == job_id]
    assert (row["prompt"], row["sketch_key"]) == ("", "")


async def test_asking_and_cancelling_for_ever_fills_no_disk(world: World) -> None:
    person = await world.person()
    for _ in range(10):
        await world.generations.cancel(person, await world.ask(person))
    await world.orphaned_uploads.sweep()
    assert await stored(world) == set()
    assert await world.orphaned_uploads.sweep() == 0


async def test_the_sketch_of_a_delivered_image_stays(world: World) -> None:
    worker, job_id = await world.worker(), await world.ask(await world.person())
    await worker.paint()
    pass_all_links(world)
    await world.orphaned_uploads.sweep()
    assert await is_stored(world, await sketch_key_of(world, job_id))


async def test_what_nothing_refers_to_is_found_by_looking(world: World) -> None:
    person, worker = await world.person(), await world.worker()
    painted = await world.ask(person)
    job = await worker.take()
    assert await worker.deliver(job) == "completed"
    await put_late(world, job)  # captured on its first lease: nobody left a note
    waiting = await world.ask(person)
    kept = {await sketch_key_of(world, job_id) for job_id in (painted, waiting)} | {
        *image_keys(painted, 1, PNG)
    }
    lost = {
        "sketches/of-a-request-that-was-never-recorded.png",
        upload_key(painted, 1),
        upload_key(JobId("job_unknown"), 1),
        *image_keys(painted, 2, PNG),
        *image_keys(painted, 2, WEBP),
    }
    for key in lost:
        await world.store.put(key, picture(), "image/png")
    tomorrow = ManualClock(datetime.now(UTC) + unreferenced_objects.YOUNG + timedelta(minutes=1))
    for clock, deleted in ((ManualClock(datetime.now(UTC)), 0), (tomorrow, len(lost))):
        looking = UnreferencedObjects(engine=world.engine, store=world.store, clock=clock)
        assert (await looking.sweep(delete=False)).unreferenced == deleted
        assert await looking.sweep() == Unreferenced(seen=len(lost | kept), unreferenced=deleted)
    assert await stored(world) == kept
