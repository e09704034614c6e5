"""A job from request to end: every end settles its hold, exactly once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from generation.delivery.dispatch import LEASE
from generation.domain.deciding import ATTEMPTS_MAX
from generation.domain.errors import JobAlreadyEnded, JobNotFound, NoWorkerCanServe, QueueFull, StaleLease
from generation.domain.requests import Limits
from generation.domain.rows import JobProgress
from generation.domain.states import JobState
from generation.images.checking import ResultRejected
from generation.images.moderation import TermModeration, Verdict
from generation.images.object_store import StoredObject
from generation.jobs.orphaned_uploads import image_keys
from generation.store.tables import job_queue, job_results, worker_failures
from ledger.clock import ManualClock
from ledger.domain.refusals import InsufficientCredits
from ledger.identifiers import CommandKey, HoldId, JobId
from tests.generation.core.world import NOON, FakeWorker, World, open_world, picture

HOLD_ENDS = {"hold_captured", "hold_released", "hold_expired"}
JOB_ENDS = {
    "job_completed", "job_failed", "job_cancelled", "job_superseded", "job_expired", "job_blocked",
}  # fmt: skip


async def one_end(world: World, job_id: JobId) -> tuple[str, str]:
    """(how the job ended, how its hold ended); both happened once."""
    job = await world.job(job_id)
    of_job = [name for name in await world.names(job_id) if name in JOB_ENDS]
    of_hold = [
        envelope.name.split(".")[1]
        for envelope in await world.reader.events(job.account_id)
        if getattr(envelope.event, "job_id", None) == job_id and envelope.name.split(".")[1] in HOLD_ENDS
    ]
    assert len(of_job) == 1
    assert len(of_hold) == 1
    assert job_id not in {row["job_id"] for row in await world.rows(job_queue)}
    return of_job[0], of_hold[0]


async def test_a_delivered_image_costs_its_price_once(world: World) -> None:
    person, worker = await world.person(), await world.worker()
    job_id = await world.ask(person)
    assert (await world.state(job_id), await world.held(person)) == (JobState.QUEUED, 1)
    assert await worker.paint() == job_id
    assert await one_end(world, job_id) == ("job_completed", "hold_captured")
    assert (await world.available(person), await world.held(person)) == (19, 0)
    (result,) = await world.rows(job_results)
    assert await world.store.get(result["image_key"], limit_bytes=10**6)
    assert (result["width"], result["gpu_milliseconds"]) == (32, 1500)


async def test_the_same_request_twice_is_one_job(world: World) -> None:
    request = world.request(await world.person())
    answers = await asyncio.gather(*(world.generations.request(request) for _ in range(8)))
    assert {(answer.job_id, answer.state) for answer in answers} == {(request.job_id, "queued")}
    assert await world.held(request.account_id) == 1


async def test_without_credits_there_is_no_job(world: World) -> None:
    person = await world.person()
    for _ in range(20):
        await world.ask(person)
    request = world.request(person)
    with pytest.raises(InsufficientCredits):
        await world.generations.request(request)
    assert await world.state(request.job_id) is JobState.UNKNOWN
    assert len(await world.rows(job_queue)) == 20


async def test_a_waiting_job_is_cancelled_at_once(world: World) -> None:
    person = await world.person()
    job_id = await world.ask(person)
    assert (await world.generations.cancel(person, job_id)).state is JobState.CANCELLED
    assert (await world.generations.cancel(person, job_id)).state is JobState.CANCELLED
    assert await one_end(world, job_id) == ("job_cancelled", "hold_released")
    assert await (await world.worker()).claim() is None


async def test_a_running_job_is_cancelled_through_its_heartbeat(world: World) -> None:
    person, worker = await world.person(), await world.worker()
    job_id = await world.ask(person)
    job = await worker.take()
    await world.generations.cancel(person, job_id)
    word, _ = await world.dispatch.heartbeat(worker.worker, job_id, job.claim.epoch, JobProgress(1, 4), None)
    assert word == "cancel"
    assert await world.dispatch.give_back(worker.worker, job_id, job.claim.epoch) == "cancelled"
    assert await one_end(world, job_id) == ("job_cancelled", "hold_released")


async def test_a_verified_upload_wins_over_a_cancel(world: World) -> None:
    person, worker = await world.person(), await world.worker()
    job_id = await world.ask(person)
    job = await worker.take()
    await world.generations.cancel(person, job_id)
    assert await worker.deliver(job) == "completed"
    with pytest.raises(JobAlreadyEnded):
        await world.generations.cancel(person, job_id)


async def test_nobody_cancels_the_job_of_another(world: World) -> None:
    job_id = await world.ask(await world.person())
    with pytest.raises(JobNotFound):
        await world.generations.cancel(await world.person(), job_id)


async def test_a_broken_sketch_ends_the_job_without_another_try(world: World) -> None:
    worker = await world.worker()
    job_id = await world.ask(await world.person())
    assert await worker.fail(await worker.take(), "input", "blank_sketch") == "failed"
    assert (await world.job(job_id)).reason == "blank_sketch"
    assert await one_end(world, job_id) == ("job_failed", "hold_released")


async def test_a_failing_worker_is_not_asked_again_and_three_are_enough(world: World) -> None:
    workers = [await world.worker() for _ in range(ATTEMPTS_MAX)]
    job_id = await world.ask(await world.person())
    for number, worker in enumerate(workers, 1):
        state = await worker.fail(await worker.take(), code=f"out_of_memory_{number}")
        assert await worker.claim() is None
        assert state == ("failed" if number == ATTEMPTS_MAX else "queued")
    assert await one_end(world, job_id) == ("job_failed", "hold_released")


async def test_the_same_node_failing_on_two_workers_is_the_jobs_own_fault(world: World) -> None:
    first, second = await world.worker(), await world.worker()
    job_id = await world.ask(await world.person())
    await first.fail(await first.take(), code="out_of_memory", node="KSampler")
    assert await second.fail(await second.take(), code="out_of_memory", node="KSampler") == "failed"
    event = (await world.reader.events(job_id))[-1].event
    assert getattr(event, "failure", None) == "poison"
    assert await world.rows(worker_failures) == []


async def test_work_given_back_costs_no_attempt(world: World) -> None:
    worker = await world.worker()
    job_id = await world.ask(await world.person())
    for _ in range(ATTEMPTS_MAX + 1):
        job = await worker.take()
        assert await world.dispatch.give_back(worker.worker, job_id, job.claim.epoch) == "queued"
    assert await worker.paint() == job_id


async def test_a_failure_of_ours_is_tried_again_and_blames_no_worker(world: World) -> None:
    worker, account_id = await world.worker(), await world.person()
    for _ in range(2):
        job_id = await world.ask(account_id)
        ends = [await worker.fail(await worker.take(), "service", "storage_failed") for _ in range(3)]
        assert ends == ["queued", "queued", "failed"]
        assert (await world.job(job_id)).reason == "storage_failed"
    assert (await worker.known()).state == "active"


async def test_a_worker_gets_no_job_of_a_graph_that_it_withdrew(world: World) -> None:
    worker, other, account_id = await world.worker(), await world.worker(), await world.person()
    job_id = await world.ask(account_id)
    await worker.fail(await worker.take(), code="graph_refused", node="UNETLoader#70")
    await world.registry.offer(worker.worker.worker_id, ["invert@1"])
    assert (await worker.known()).graphs == ("invert@1",)
    assert (await other.take()).claim.job_id == job_id
    await world.ask(account_id)
    assert await worker.claim() is None
    await world.registry.offer(worker.worker.worker_id, ["sketch@1"])
    assert await worker.claim() is not None


async def test_a_delivered_image_clears_a_workers_record(world: World) -> None:
    worker, other = await world.worker(), await world.worker()
    for _ in range(4):
        await world.ask(await world.person())
        await worker.fail(await worker.take(), code="cuda_error")
        await other.paint()
        await world.ask(await world.person())
        await worker.paint()
    assert (await worker.known()).state == "active"


async def test_a_silent_worker_loses_its_job_to_another(world: World) -> None:
    silent, other = await world.worker(), await world.worker()
    job_id = await world.ask(await world.person())
    lost = await silent.take()
    assert await world.dispatch.sweep() == 0
    world.pass_time(seconds=LEASE.total_seconds() + 1)
    assert await world.dispatch.sweep() == 1
    assert (await other.known()).state == "active"  # it is heard of: it waits for work
    assert await silent.claim() is None
    job = await other.take()
    assert job.claim.epoch == lost.claim.epoch + 1
    with pytest.raises(StaleLease):
        await silent.deliver(lost)
    assert await other.deliver(job) == "completed"
    assert await one_end(world, job_id) == ("job_completed", "hold_captured")


async def test_a_job_returns_to_the_worker_that_failed_on_it_only_if_there_is_no_other(world: World) -> None:
    lone = await world.worker()
    job_id = await world.ask(await world.person())
    await lone.fail(await lone.take())
    other = await world.worker()
    assert await lone.claim() is None
    await world.registry.drain(other.worker.worker_id)
    assert await lone.paint() == job_id
    assert await one_end(world, job_id) == ("job_completed", "hold_captured")


async def test_a_worker_that_starts_again_gives_up_at_once_what_it_held(world: World) -> None:
    worker = await world.worker()
    job_id = await world.ask(await world.person())
    lost = await worker.take()
    await world.dispatch.resume(worker.worker)
    assert await world.state(job_id) is JobState.QUEUED
    with pytest.raises(StaleLease):
        await worker.deliver(lost)
    assert await worker.paint() == job_id
    await world.dispatch.resume(worker.worker)
    assert await one_end(world, job_id) == ("job_completed", "hold_captured")


async def test_only_progress_extends_a_lease(world: World) -> None:
    worker = await world.worker()
    job_id = await world.ask(await world.person())
    epoch = (await worker.take()).claim.epoch
    world.pass_time(seconds=20)
    assert (await world.dispatch.heartbeat(worker.worker, job_id, epoch, JobProgress(1, 4), None))[
        0
    ] == "continue"
    world.pass_time(seconds=20)
    assert await world.dispatch.sweep() == 0
    await world.dispatch.heartbeat(worker.worker, job_id, epoch, JobProgress(1, 4), None)
    world.pass_time(seconds=11)
    assert await world.dispatch.sweep() == 1
    assert (await world.dispatch.heartbeat(worker.worker, job_id, epoch, JobProgress(2, 4), None))[
        0
    ] == "lost"


async def test_whatever_moves_extends_a_lease_and_a_new_lease_counts_anew(world: World) -> None:
    worker = await world.worker()
    job_id = await world.ask(await world.person())

    async def beats(epoch: int, *moved: int) -> list[str]:
        """One each twenty seconds."""
        answers = []
        for count in moved:
            world.pass_time(seconds=20)
            assert await world.dispatch.sweep() == 0
            report = JobProgress(moved=count)
            answers.append((await world.dispatch.heartbeat(worker.worker, job_id, epoch, report, None))[0])
        return answers

    # Nodes that begin, models that are loaded, bytes that are sent: no step yet.
    first = (await worker.take()).claim.epoch
    assert await beats(first, 1, 2, 5) == ["continue"] * 3
    await worker.world.dispatch.give_back(worker.worker, job_id, first)
    second = (await worker.take()).claim.epoch
    assert await beats(second, 1, 1) == ["continue"] * 2
    world.pass_time(seconds=11)
    assert await world.dispatch.sweep() == 1, "what does not grow does not move"


async def test_a_job_and_its_hold_expire_together(world: World) -> None:
    person = await world.person()
    job_id = await world.ask(person)
    world.pass_time(seconds=601)
    assert await world.dispatch.sweep() == 1
    assert await one_end(world, job_id) == ("job_expired", "hold_expired")
    assert await world.available(person) == 20


async def test_an_image_that_comes_too_late_is_not_charged(world: World) -> None:
    worker = await world.worker()
    job_id = await world.ask(await world.person())
    job = await worker.take()
    world.pass_time(seconds=601)
    assert await worker.deliver(job) == "expired"
    assert await one_end(world, job_id) == ("job_expired", "hold_expired")
    assert await world.dispatch.sweep() == 0


async def test_a_job_ends_even_if_somebody_closed_its_hold(world: World) -> None:
    person, worker = await world.person(), await world.worker()
    job_id = await world.ask(person)
    running = await world.ask(person)
    job = await worker.take()
    assert job.claim.job_id == job_id
    for hold in (job_id, running):
        await world.ledger.release(person, HoldId("hold_" + hold.removeprefix("job_")))
    assert await worker.deliver(job) == "failed"
    world.pass_time(seconds=601)
    await world.dispatch.sweep()
    assert (await world.job(job_id)).reason == "hold_closed"
    assert await world.state(running) is JobState.EXPIRED
    assert await world.available(person) == 20


async def test_what_is_no_image_is_never_charged(world: World) -> None:
    person = await world.person()
    job_id = await world.ask(person)
    for number in range(ATTEMPTS_MAX):
        worker = await world.worker()
        state = await worker.deliver(await worker.take(), b"not an image" * number)
    assert state == "failed"
    assert (await world.job(job_id)).reason == "bad_result"
    assert await world.available(person) == 20


async def test_another_file_than_the_reported_one_is_not_delivered(world: World) -> None:
    worker = await world.worker()
    job_id = await world.ask(await world.person())
    job = await worker.take()
    report = await worker.upload(job)
    await worker.upload(job, picture(99))
    assert await world.dispatch.complete(worker.worker, job_id, report) == "queued"


class NoImages(TermModeration):
    async def check_image(self, read: Callable[[], Awaitable[bytes]]) -> Verdict:
        assert (await read()).startswith(b"\x89PNG")
        return Verdict(allowed=False, category="violence")


async def test_blocked_prompts_and_images_have_their_own_end_and_cost_nothing(
    empty_database: str, tmp_path: Path
) -> None:
    async with open_world(empty_database, tmp_path, moderation=NoImages()) as world:
        person, worker = await world.person(), await world.worker()
        at_once = await world.ask(person, prompt="hentai")
        assert await world.state(at_once) is JobState.BLOCKED
        assert await world.rows(job_queue) == []
        later = await world.ask(person)
        assert await worker.deliver(await worker.take()) == "blocked"
        assert await one_end(world, later) == ("job_blocked", "hold_released")
        assert await world.rows(job_results) == []


async def test_reports_may_be_repeated_and_get_the_same_answer(world: World) -> None:
    worker = await world.worker()
    job_id = await world.ask(await world.person())
    job = await worker.take()
    report = await worker.upload(job)
    answers = await asyncio.gather(
        *(world.dispatch.complete(worker.worker, job_id, report) for _ in range(5))
    )
    assert set(answers) == {"completed"}
    assert await world.dispatch.complete(worker.worker, job_id, report) == "completed"
    failing = await world.ask(await world.person())
    job = await worker.take()
    assert await worker.fail(job) == "queued"
    assert await worker.fail(job) == "queued"
    assert (await world.names(failing)).count("job_requeued") == 1
    assert [row["job_id"] for row in await world.rows(worker_failures)] == [failing]


async def test_forged_reports_are_refused_and_do_not_get_in_the_way(world: World) -> None:
    holder, thief = await world.worker(), await world.worker()
    job_id = await world.ask(await world.person())
    job = await holder.take()
    forged = FakeWorker(world, thief.worker, thief.token)
    for attempt in (forged.fail(job), forged.deliver(job)):
        with pytest.raises(StaleLease):
            await attempt
    with pytest.raises(StaleLease):
        await world.dispatch.fail(holder.worker, job_id, 7, failure="infrastructure", code="x")
    assert (await world.dispatch.heartbeat(thief.worker, job_id, 1, JobProgress(1, 2), None))[0] == "lost"
    with pytest.raises(JobNotFound):
        await world.dispatch.give_back(thief.worker, world.ids.job(), 1)
    assert await holder.deliver(job) == "completed"
    refused = world.dispatch.metrics.refused
    assert {sample.labels["report"] for metric in refused.collect() for sample in metric.samples} == {
        "complete", "end", "heartbeat",
    }  # fmt: skip


async def test_two_workers_and_the_sweeper_at_once_end_a_job_once(world: World) -> None:
    workers = [await world.worker() for _ in range(3)]
    job_id = await world.ask(await world.person())
    job = await workers[0].take()
    world.pass_time(seconds=31)

    async def attempt(work: object) -> None:
        with contextlib.suppress(StaleLease, ResultRejected):
            await work  # type: ignore[misc]

    await asyncio.gather(
        attempt(workers[0].deliver(job)),
        attempt(world.dispatch.sweep()),
        attempt(workers[0].fail(job)),
        attempt(world.dispatch.sweep()),
    )
    if await world.state(job_id) is JobState.QUEUED:
        await workers[1].paint()
    assert (await one_end(world, job_id))[0] == "job_completed"


async def test_a_graph_that_no_known_worker_has_is_refused_at_once(world: World) -> None:
    person = await world.person()
    await world.ask(person)  # no worker is known: one may be on its way
    other = await world.worker("upscale@1")
    world.pass_time(seconds=1)  # a worker is seen within a moment
    with pytest.raises(NoWorkerCanServe):
        await world.ask(person)
    assert await other.claim() is None
    able = await world.worker()
    await world.registry.drain(able.worker.worker_id)
    await world.ask(person)
    assert await able.claim() is None
    assert await (await world.worker()).claim() is not None


async def test_the_queue_is_bounded(empty_database: str, tmp_path: Path) -> None:
    async with open_world(empty_database, tmp_path, limits=Limits(queue_max=3)) as world:
        for _ in range(3):
            await world.ask(await world.person())
        with pytest.raises(QueueFull):
            await world.ask(await world.person())


async def test_a_sweep_is_bounded(world: World) -> None:
    person = await world.person(1000)
    requests = [
        world.request(person, tier=world.request(person).tier._replace(in_flight_max=500)) for _ in range(130)
    ]
    await asyncio.gather(*map(world.generations.request, requests))
    world.pass_time(seconds=601)
    assert [await world.dispatch.sweep() for _ in range(3)] == [100, 30, 0]
    assert await world.held(person) == 0


async def test_a_restart_at_any_point_goes_on_where_it_was(empty_database: str, tmp_path: Path) -> None:
    clock = ManualClock(NOON)
    async with open_world(empty_database, tmp_path, clock=clock) as before:
        person = await before.person()
        waiting, running = await before.ask(person), await before.ask(person)
        old = await before.worker()
        job = await old.take()
        # Leased, and the process died before the job's stream was told.
        await before.dispatch._claims.claim((await before.worker()).worker.worker_id, ["sketch@1"])
    async with open_world(empty_database, tmp_path, clock=clock) as after:
        report = await FakeWorker(after, old.worker, old.token).upload(job)
        assert await after.dispatch.complete(old.worker, job.claim.job_id, report) == "completed"
        fresh = await after.worker()
        assert await fresh.claim() is None
        clock.advance(LEASE)
        clock.advance(LEASE)
        await fresh.paint()
        assert {await after.state(waiting), await after.state(running)} == {JobState.COMPLETED}
        assert (await after.held(person), await after.available(person)) == (0, 18)


async def test_a_job_is_never_requested_twice_whatever_the_command_key(world: World) -> None:
    person = await world.person(5)
    request = world.request(person)
    await world.generations.request(request)
    again = await world.generations.request(replace(request, key=CommandKey("another")))
    assert again.state == "queued"
    assert await world.held(person) == 1
    assert await world.names(request.job_id) == ["job_requested"]


async def test_a_second_picture_under_the_same_lease_does_not_overwrite_the_first(world: World) -> None:
    """Two reports at once, of two uploads: the one that stores first is the one that can be delivered."""
    person, worker = await world.person(), await world.worker()
    await world.ask(person)
    job = await worker.take()
    key, _ = image_keys(job.claim.job_id, job.claim.epoch, "image/png")
    await world.store.put_new([StoredObject(key, b"what the other report stored", "image/png")])
    with pytest.raises(StaleLease):
        await worker.deliver(job)
    assert await world.store.get(key, limit_bytes=100) == b"what the other report stored"
    assert await world.state(job.claim.job_id) is JobState.RUNNING


async def test_cancelling_what_has_ended_is_refused_and_records_nothing(world: World) -> None:
    person, worker = await world.person(), await world.worker()
    job_id = await world.ask(person)
    await worker.paint()
    head = await world.reader.head()
    for _ in range(2):
        with pytest.raises(JobAlreadyEnded):
            await world.generations.cancel(person, job_id)
    assert await world.reader.head() == head
