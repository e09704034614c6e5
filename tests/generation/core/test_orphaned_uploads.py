"""What boxes leave behind in storage is deleted, and never what was delivered or may still come."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from generation import leftovers, tables
from generation.dispatch import UPLOAD_MARGIN, Assignment
from generation.errors import ObjectMissing, StaleLease
from generation.images import RESULT_BYTES_MAX
from generation.job import JobState
from generation.leftovers import image_keys, upload_key
from generation.storage import DiskStore, LinkSigner, ObjectStore
from ledger.clock import ManualClock
from ledger.identifiers import JobId
from ledger.log.reader import StreamState
from tests.generation.core.world import NOON, World, open_world, picture


@pytest.fixture(params=["disk", "bucket"])
async def world(request: pytest.FixtureRequest, empty_database: str, tmp_path: Path) -> AsyncIterator[World]:
    bucket: ObjectStore | None = request.getfixturevalue("bucket") if request.param == "bucket" else None
    async with open_world(empty_database, tmp_path, store=bucket) as opened:
        yield opened


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
        for kind, key in (("u", upload_key(job_id, epoch)), ("i", image_keys(job_id, epoch)[0])):
            try:
                await world.store.get(key, limit_bytes=RESULT_BYTES_MAX)
            except ObjectMissing:
                continue
            found.append(f"{kind}{epoch}")
    return found


async def put_late(world: World, job: Assignment) -> None:
    """A box that is believed dead finishes its upload by the link it has."""
    await world.store.put(upload_key(job.claim.job_id, job.claim.epoch), picture(3), "image/png")


def pass_all_links(world: World) -> None:
    world.pass_time(seconds=600 + leftovers.LINKS_OUTLIVE.total_seconds() + 1)


def test_no_link_to_upload_by_outlives_the_sweep() -> None:
    assert UPLOAD_MARGIN + timedelta(minutes=2) <= leftovers.LINKS_OUTLIVE


async def test_the_upload_of_a_dead_lease_goes_and_the_delivered_picture_stays(world: World) -> None:
    person, dead, alive = await world.person(), await world.box(), await world.box()
    job_id = await world.ask(person)
    lost = await dead.take()
    world.pass_time(seconds=31)
    await world.dispatch.sweep()
    assert await alive.deliver(await alive.take()) == "completed"
    await put_late(world, lost)
    with pytest.raises(StaleLease):
        await dead.deliver(lost)
    world.pass_time(minutes=20)
    assert await world.leftovers.sweep() == 0
    assert await there(world, job_id) == ["u1", "i2"]
    pass_all_links(world)
    assert await world.leftovers.sweep() == 1
    assert await there(world, job_id) == ["i2"]
    assert await world.leftovers.sweep() == 0
    assert await world.generations.image_url(person, job_id) is not None


async def test_a_rejected_upload_goes_when_its_job_has_ended(world: World) -> None:
    person = await world.person()
    job_id = await world.ask(person)
    for _ in range(3):
        box = await world.box()
        job = await box.take()
        await box.deliver(job, b"not an image")
        await put_late(world, job)
    assert await world.state(job_id) is JobState.FAILED
    assert await there(world, job_id) == ["u1", "u2", "u3"]
    pass_all_links(world)
    assert await world.leftovers.sweep() == 1
    assert await there(world, job_id) == []


async def test_a_superseded_frame_leaves_nothing(world: World) -> None:
    person, slow, fast = await world.person(), await world.box(), await world.box()
    first = await world.frame(person, 1)
    late = await slow.take()
    second = await world.frame(person, 2)
    await fast.paint()
    assert await slow.deliver(late) == "superseded"
    await put_late(world, late)
    for key in image_keys(first, 1):  # as of a gateway that died before it took them back
        await world.store.put(key, picture(), "image/png")
    pass_all_links(world)
    assert await world.leftovers.sweep() == 1
    assert (await there(world, first), await there(world, second)) == ([], ["i1"])


async def test_nothing_of_a_job_that_has_not_ended_is_touched(world: World) -> None:
    person, box = await world.person(), await world.box()
    job_id = await world.ask(person)
    report = await box.upload(job := await box.take())
    async with world.engine.begin() as connection:
        due = {"job_id": job_id, "due_at": world.clock()}
        await connection.execute(tables.job_leftovers.insert().values(due))
    assert await world.leftovers.sweep() == 0
    assert await there(world, job_id) == ["u1"]
    assert await world.dispatch.complete(box.worker, job.claim.job_id, report) == "completed"
    pass_all_links(world)
    assert await world.leftovers.sweep() == 1
    assert await there(world, job_id) == ["i1"]


async def test_what_storage_would_not_delete_is_tried_again(empty_database: str, tmp_path: Path) -> None:
    clock = ManualClock(NOON)
    store = StubbornStore(tmp_path, LinkSigner(b"s" * 32, clock), "http://127.0.0.1")
    async with open_world(empty_database, tmp_path, clock=clock, store=store) as world:
        job_id = await world.ask(await world.person())
        job = await (box := await world.box()).take()
        await box.fail(job, "input", "node_refused")
        await put_late(world, job)
        pass_all_links(world)
        store.stubborn = True
        assert await world.leftovers.sweep() == 0
        store.stubborn = False
        assert await world.leftovers.sweep() == 0
        world.pass_time(minutes=16)
        assert await world.leftovers.sweep() == 1
        assert await there(world, job_id) == []


async def test_a_job_that_cannot_be_read_holds_up_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    box, jobs = await world.box(), []
    for _ in range(2):
        await world.ask(await world.person())
        jobs.append(await box.take())
        await box.fail(jobs[-1], "input", "node_refused")
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
        assert await world.leftovers.sweep() == 1
    assert (await there(world, first), await there(world, second)) == (["u1"], [])
    pass_all_links(world)
    assert await world.leftovers.sweep() == 1
    assert await there(world, first) == []


async def test_a_report_sent_again_clears_up_after_a_gateway_that_died(world: World) -> None:
    person, box = await world.person(), await world.box()
    job_id = await world.ask(person)
    job = await box.take()
    assert await box.deliver(job) == "completed"
    report = await box.upload(job)
    assert await world.dispatch.complete(box.worker, job_id, report) == "completed"
    assert await there(world, job_id) == ["i1"]


async def test_a_job_that_was_never_leased_leaves_no_note(world: World) -> None:
    person = await world.person()
    await world.generations.cancel(person, await world.ask(person))
    assert await world.rows(tables.job_leftovers) == []
