"""A job that a payment made for it alone pays: three ends, whatever goes wrong on the way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from generation.errors import TooManyInFlight
from generation.job import JobState
from generation.queue import FREE
from generation.tables import job_funding, job_queue, job_results
from ledger.identifiers import AccountId, Identifiers, JobId
from ledger.log.model import LogWriter
from tests.generation.core.funding_fake import FakeFunding
from tests.generation.core.world import World, open_world

Paying = tuple[World, FakeFunding]


@pytest.fixture
async def paying(empty_database: str, tmp_path: Path) -> AsyncIterator[Paying]:
    made: list[FakeFunding] = []

    def make(log: LogWriter, ids: Identifiers) -> FakeFunding:
        made.append(FakeFunding(log, ids))
        return made[0]

    async with open_world(empty_database, tmp_path, funding=make) as world:
        yield world, made[0]
        assert world.counted_ends() == await world.ends()


async def ask(world: World) -> tuple[AccountId, JobId, str]:
    """Somebody without an account asks, and is told how to pay: (account, job, reference)."""
    person = await world.person()
    accepted = await world.accepted(person, funding="lightning")
    assert accepted.state == "awaiting_payment"
    return person, accepted.job_id, accepted.opened.reference if accepted.opened else ""


async def tend(world: World, seconds: int = 10) -> None:
    world.pass_time(seconds=seconds)
    assert world.keeper is not None
    await world.keeper.sweep()
    await world.dispatch.sweep()


async def nothing_is_left(world: World, person: AccountId) -> None:
    assert await world.rows(job_funding) == []
    assert await world.rows(job_queue) == []
    assert await world.held(person) == 0


async def test_an_image_is_paid_painted_settled_and_shown(paying: Paying) -> None:
    world, money = paying
    box = await world.box()
    person, job_id, reference = await ask(world)
    await tend(world)
    assert await box.claim() is None
    money.pay(reference)
    await tend(world)
    assert await world.state(job_id) is JobState.QUEUED
    assert await box.paint() == job_id
    assert await world.names(job_id) == [
        "job_requested", "job_funded", "job_started", "job_settling", "job_completed",
    ]  # fmt: skip
    assert len(await world.rows(job_results)) == 1
    # The payment's credit was captured; today's free images are untouched.
    assert await world.available(person) == 20
    await nothing_is_left(world, person)


async def test_settlement_credit_capture_and_completion_are_one_batch(paying: Paying) -> None:
    world, money = paying
    box = await world.box()
    person, job_id, reference = await ask(world)
    money.pay(reference)
    await tend(world)
    await box.paint()
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


async def test_a_way_to_pay_that_closes_ends_the_job(paying: Paying) -> None:
    world, money = paying
    person, job_id, reference = await ask(world)
    await money.release(reference)
    await tend(world)
    assert (await world.job(job_id)).reason == "not_paid"
    await tend(world)
    await nothing_is_left(world, person)


async def test_money_of_a_failed_job_goes_back(paying: Paying) -> None:
    world, money = paying
    box = await world.box()
    person, _job_id, reference = await ask(world)
    money.pay(reference)
    await tend(world)
    assert await box.fail(await box.take(), "input", "blank_sketch") == "failed"
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


async def test_while_nobody_knows_the_image_is_withheld(paying: Paying) -> None:
    world, money = paying
    box = await world.box()
    person, job_id, reference = await ask(world)
    money.pay(reference)
    await tend(world)
    job = await box.take()
    money.answers_to_lose = 1
    assert await box.deliver(job) == "settling"
    assert await world.generations.image_url(person, job_id) is None
    assert (await world.generations.cancel(person, job_id)).state is JobState.SETTLING
    money.down = True
    await tend(world, 700)  # past its deadline: what is being settled does not expire
    assert await world.state(job_id) is JobState.SETTLING
    money.down = False
    await tend(world)
    assert await world.state(job_id) is JobState.COMPLETED
    assert await world.generations.image_url(person, job_id) is not None
    assert await box.deliver(job) == "completed"
    assert money.settled_times == 1
    await nothing_is_left(world, person)


async def test_an_image_whose_payment_is_settled_later_is_counted_once_and_then(paying: Paying) -> None:
    world, money = paying
    box, metrics = await world.box(), world.dispatch.metrics
    _, _, reference = await ask(world)
    money.pay(reference)
    await tend(world)
    money.answers_to_lose = 1
    assert await box.deliver(await box.take()) == "settling"
    assert world.counted_ends() == {}
    for _ in range(3):
        await tend(world)
        assert world.counted_ends() == {"completed": 1}
    value = metrics.registry.get_sample_value
    assert value("llamasketch_credits_captured_total") == 1
    assert value("llamasketch_gpu_seconds_total") == 1.5
    assert value("llamasketch_job_paint_seconds_count") == 1


async def test_money_that_went_back_before_it_was_settled_shows_no_image(paying: Paying) -> None:
    world, money = paying
    box = await world.box()
    person, job_id, reference = await ask(world)
    money.pay(reference)
    await tend(world)
    job = await box.take()
    await money.release(reference)
    assert await box.deliver(job) == "failed"
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
    box = await world.box()
    person, job_id, reference = await ask(world)
    await money.pay_for_good(reference)
    await tend(world)
    assert await world.open_holds(person) == {job_id}
    await box.paint()
    assert await world.available(person) == 20
    await nothing_is_left(world, person)


async def test_a_way_to_pay_that_does_not_open_at_once_is_opened_later(paying: Paying) -> None:
    world, money = paying
    money.down = True
    _person, job_id, reference = await ask(world)
    assert reference == ""
    await tend(world)
    money.down = False
    money.answers_to_lose = 1
    await tend(world)
    await tend(world)
    (row,) = await world.rows(job_funding)
    assert (row["state"], len(money.payments)) == ("waiting", 1)
    money.pay(row["reference"])
    await tend(world)
    assert await world.state(job_id) is JobState.QUEUED


async def test_unpaid_jobs_count_as_in_flight(paying: Paying) -> None:
    world, _ = paying
    person = await world.person()
    tier = FREE._replace(in_flight_max=2)
    for _ in range(2):
        await world.accepted(person, tier, funding="lightning")
    with pytest.raises(TooManyInFlight):
        await world.accepted(person, tier, funding="lightning")
