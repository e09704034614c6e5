"""A job that a payment made for it alone pays: three ends, whatever goes wrong on the way."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from itertools import cycle
from pathlib import Path

import pytest
import sqlalchemy as sa

from generation.domain.errors import ObjectMissing, QueueFull, TooManyInFlight
from generation.domain.fairness import FREE
from generation.domain.requests import Accepted, Limits
from generation.domain.states import JobState
from generation.jobs.admission import sketch_key
from generation.store.tables import job_funding, job_queue, job_results, jobs_paid_apart
from ledger.clock import ManualClock
from ledger.domain.refusals import InsufficientCredits
from tests.generation.core.funding_fake import FakeFunding
from tests.generation.core.paying import Paying, ask, nothing_is_left, tend
from tests.generation.core.world import NOON, open_world


async def test_an_image_is_paid_painted_settled_and_shown(paying: Paying) -> None:
    world, money = paying
    worker = await world.worker()
    person, job_id, reference = await ask(world)
    await tend(world)
    assert await worker.claim() is None
    money.pay(reference)
    await tend(world)
    assert await world.state(job_id) is JobState.QUEUED
    assert await worker.paint() == job_id
    assert await world.names(job_id) == [
        "job_requested", "job_funded", "job_started", "job_settling", "job_completed",
    ]  # fmt: skip
    assert len(await world.rows(job_results)) == 1
    # The payment's credit was captured; today's free images are untouched.
    assert await world.available(person) == 20
    await nothing_is_left(world, person)


async def test_settlement_credit_capture_and_completion_are_one_batch(paying: Paying) -> None:
    world, money = paying
    worker = await world.worker()
    person, job_id, reference = await ask(world)
    money.pay(reference)
    await tend(world)
    await worker.paint()
    batches = {
        envelope.name.split(".")[1]: envelope.batch
        for stream in (person, job_id)
        for envelope in await world.reader.events(stream)
    }
    assert len({batches[name] for name in ("credits_granted", "hold_captured", "job_completed")}) == 1


async def test_nobody_pays_and_the_job_ends_without_charge(paying: Paying) -> None:
    world, money = paying
    person, job_id, reference = await ask(world)
    await tend(world, 601)
    assert await world.state(job_id) is JobState.EXPIRED
    await tend(world)
    assert money.payments[reference].state == "failed"
    await nothing_is_left(world, person)


async def test_whoever_pays_in_the_last_second_still_has_the_time_of_any_other_job(paying: Paying) -> None:
    world, money = paying
    _, job_id, reference = await ask(world)
    await tend(world, 595)
    money.pay(reference)
    await tend(world, 2)
    funded = world.clock()
    await tend(world, 590)
    assert await world.state(job_id) is JobState.QUEUED
    assert (await world.job(job_id)).deadline == funded + timedelta(seconds=Limits().job_seconds)
    await tend(world, 15)
    assert await world.state(job_id) is JobState.EXPIRED
    await tend(world)
    assert money.payments[reference].state == "failed"


async def test_a_job_ends_before_the_money_held_for_it_goes_back_by_itself(paying: Paying) -> None:
    world, money = paying
    _, job_id, reference = await ask(world)
    money.pay(reference)
    money.payments[reference].held_until = until = world.clock() + timedelta(seconds=90)
    await tend(world)
    assert (await world.job(job_id)).deadline == until
    await tend(world, 85)
    assert await world.state(job_id) is JobState.EXPIRED
    await tend(world)
    assert money.payments[reference].state == "failed"


async def test_images_under_way_are_found_again_with_their_payments(paying: Paying) -> None:
    world, money = paying
    person, job_id, reference = await ask(world)
    other = (await world.accepted(person)).job_id
    found = dict(await world.generations.in_flight(person))
    assert set(found) == {job_id, other}
    assert await world.generations.payment_of(job_id, found[job_id]) == reference
    assert await world.generations.payment_of(other, found[other]) is None
    money.pay(reference)
    await tend(world)
    await (await world.worker()).paint()
    assert await world.generations.payment_of(job_id, await world.job(job_id)) == reference
    assert await world.generations.in_flight(await world.person()) == []


async def test_a_payment_request_that_closes_ends_the_job(paying: Paying) -> None:
    world, money = paying
    person, job_id, reference = await ask(world)
    await money.release(reference)
    await tend(world)
    assert (await world.job(job_id)).reason == "not_paid"
    await tend(world)
    await nothing_is_left(world, person)


async def test_money_of_a_failed_job_goes_back(paying: Paying) -> None:
    world, money = paying
    worker = await world.worker()
    person, _job_id, reference = await ask(world)
    money.pay(reference)
    await tend(world)
    assert await worker.fail(await worker.take(), "input", "blank_sketch") == "failed"
    money.answers_to_lose = 1
    await tend(world)
    assert len(await world.rows(job_funding)) == 1
    await tend(world)
    assert (money.payments[reference].state, money.settled_times) == ("failed", 0)
    await nothing_is_left(world, person)


async def test_a_paid_job_can_be_cancelled_while_it_waits(paying: Paying) -> None:
    world, money = paying
    person, job_id, reference = await ask(world)
    money.pay(reference)
    await tend(world)
    await world.generations.cancel(person, job_id)
    await tend(world)
    assert money.payments[reference].state == "failed"
    await nothing_is_left(world, person)


async def test_money_that_went_back_before_it_was_settled_shows_no_image(paying: Paying) -> None:
    world, money = paying
    worker = await world.worker()
    person, job_id, reference = await ask(world)
    money.pay(reference)
    await tend(world)
    job = await worker.take()
    await money.release(reference)
    assert await worker.deliver(job) == "failed"
    assert (await world.job(job_id)).reason == "payment_failed"
    assert await world.generations.image_url(person, job_id) is None
    await tend(world)
    await nothing_is_left(world, person)


async def test_money_settled_for_a_job_that_is_over_stays_as_a_credit(paying: Paying) -> None:
    world, money = paying
    person, job_id, reference = await ask(world)
    await money.pay_for_good(reference)
    world.pass_time(seconds=601)
    await world.dispatch.sweep()
    assert await world.state(job_id) is JobState.EXPIRED
    await tend(world)
    assert await world.available(person) == 21
    await nothing_is_left(world, person)


async def test_money_that_cannot_be_held_pays_through_a_hold_on_its_credit(paying: Paying) -> None:
    world, money = paying
    worker = await world.worker()
    person, job_id, reference = await ask(world)
    await money.pay_for_good(reference)
    await tend(world)
    assert await world.open_holds(person) == {job_id}
    await worker.paint()
    assert await world.available(person) == 20
    await nothing_is_left(world, person)


async def test_a_payment_that_is_refused_ends_the_job_and_leaves_no_sketch_behind(
    paying: Paying,
) -> None:
    world, money = paying
    money.refusal = InsufficientCredits(wanted=1, available=0)
    person = await world.person()
    request = world.request(person, funding="lightning")
    with pytest.raises(InsufficientCredits):
        await world.generations.request(request)
    assert await world.state(request.job_id) is JobState.FAILED
    with pytest.raises(ObjectMissing):
        await world.store.get(sketch_key(request), limit_bytes=1_000_000)


async def test_unpaid_jobs_count_as_in_flight(paying: Paying) -> None:
    world, _ = paying
    person = await world.person()
    tier = FREE._replace(in_flight_max=2)
    for _ in range(2):
        await world.accepted(person, tier, funding="lightning")
    with pytest.raises(TooManyInFlight):
        await world.accepted(person, tier, funding="lightning")


async def test_unpaid_jobs_of_many_people_at_two_processes_are_bounded(
    empty_database: str, tmp_path: Path
) -> None:
    clock, limits = ManualClock(NOON), Limits(queue_max=7)
    opened = partial(open_world, empty_database, tmp_path, clock=clock, limits=limits, funding=FakeFunding)
    async with opened() as one, opened() as two:
        people = [await one.person() for _ in range(30)]
        asked = [
            world.accepted(person, funding="lightning")
            for person, world in zip(people, cycle((one, two)), strict=False)
        ]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        accepted = [answer for answer in answers if isinstance(answer, Accepted)]
        assert len(accepted) == limits.queue_max
        assert {type(answer) for answer in answers} == {Accepted, QueueFull}
        await one.ask(people[0])  # whoever is paid otherwise has other places
        one.pass_time(seconds=limits.job_seconds + 60)
        await two.ask(people[0], funding="lightning")  # also before the old ones are swept away


async def test_a_job_that_is_paid_for_good_leaves_those_that_are_paid_apart(paying: Paying) -> None:
    world, money = paying
    person, _, reference = await ask(world)
    assert await world.counted_apart() == {person: 1, "all": 1}
    await money.pay_for_good(reference)
    await tend(world)
    assert await world.held(person) == 1
    assert await world.counted_apart() == {}


async def test_counts_of_jobs_that_are_long_over_are_forgotten(paying: Paying) -> None:
    world, _ = paying
    await ask(world)
    async with world.engine.begin() as connection:  # as a process of an earlier version leaves them
        await connection.execute(sa.delete(job_queue))
    world.pass_time(seconds=Limits().job_seconds + 60)
    assert await world.queue.prune(world.clock()) == 2
    assert await world.rows(jobs_paid_apart) == []
