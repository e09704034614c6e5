"""Payments for one image while nobody answers, answers are lost, and processes die on the way."""

from __future__ import annotations

import asyncio

import pytest

from generation.domain.states import JobState
from generation.jobs.funding import FUNDINGS
from generation.store.tables import job_funding
from ledger.followups.figures import figures_of, figures_query
from ledger.identifiers import AccountId, JobId
from processes.followups import KINDS
from tests.generation.core.funding_fake import FakeFunding, Retracted
from tests.generation.core.paying import PROBLEM, Paying, ask, failing, nothing_is_left, tend
from tests.generation.core.world import World


async def test_a_payment_with_an_unforeseen_fault_holds_up_no_other(paying: Paying) -> None:
    world, money = paying
    _, poisoned, lost = await ask(world)
    _, other, reference = await ask(world)
    gone = money.payments.pop(lost)
    money.pay(reference)
    await tend(world)
    assert await world.state(other) is JobState.QUEUED
    assert await world.state(poisoned) is JobState.AWAITING_PAYMENT
    money.payments[lost] = gone
    money.pay(lost)
    await tend(world)
    assert await world.state(poisoned) is JobState.QUEUED


async def test_a_payment_about_which_nobody_answers_is_asked_less_and_less_often(paying: Paying) -> None:
    world, money = paying
    _, job_id, reference = await ask(world)
    money.down = True
    for attempts, seconds in enumerate((10, 4, 8, 16), start=1):
        await tend(world, seconds)
        await tend(world, 0)
        assert await failing(world) == (attempts, PROBLEM)
    money.down = False
    money.pay(reference)
    await tend(world, 32)
    assert await failing(world) == (0, None)
    assert await world.state(job_id) is JobState.QUEUED


async def test_operators_see_money_that_does_not_go_back(paying: Paying) -> None:
    world, money = paying
    _, job_id, _ = await ask(world)
    await world.generations.cancel((await world.job(job_id)).account_id, job_id)
    money.answers_to_lose = 1
    await tend(world)
    assert FUNDINGS in KINDS
    async with world.engine.connect() as connection:
        query = figures_query([FUNDINGS], world.clock())
        (shown,) = figures_of((await connection.execute(query)).mappings().all())
    assert (shown.failing, shown.attempts, shown.problem) == (1, 1, PROBLEM)
    await tend(world)
    assert await world.rows(job_funding) == []


async def test_two_processes_see_to_a_payment_once(paying: Paying) -> None:
    world, money = paying
    worker = await world.worker()
    _, job_id, reference = await ask(world)
    money.pay(reference)
    await tend(world)
    money.answers_to_lose = 1
    assert await worker.deliver(await worker.take()) == "settling"
    world.pass_time(seconds=10)
    assert world.funding_process is not None
    await asyncio.gather(*(world.funding_process.sweeper.sweep() for _ in range(4)))
    assert await world.state(job_id) is JobState.COMPLETED
    assert money.settled_times == 1


async def test_while_nobody_knows_the_image_is_withheld(paying: Paying) -> None:
    world, money = paying
    worker = await world.worker()
    person, job_id, reference = await ask(world)
    money.pay(reference)
    await tend(world)
    job = await worker.take()
    money.answers_to_lose = 1
    assert await worker.deliver(job) == "settling"
    assert await world.generations.image_url(person, job_id) is None
    assert (await world.generations.cancel(person, job_id)).state is JobState.SETTLING
    money.down = True
    await tend(world, 700)  # past its deadline: what is being settled does not expire
    assert await world.state(job_id) is JobState.SETTLING
    money.down = False
    await tend(world)
    assert await world.state(job_id) is JobState.COMPLETED
    assert await world.generations.image_url(person, job_id) is not None
    assert await worker.deliver(job) == "completed"
    assert money.settled_times == 1
    await nothing_is_left(world, person)


async def test_an_image_whose_payment_is_settled_later_is_counted_once_and_then(paying: Paying) -> None:
    world, money = paying
    worker, metrics = await world.worker(), world.dispatch.metrics
    _, _, reference = await ask(world)
    money.pay(reference)
    await tend(world)
    money.answers_to_lose = 1
    assert await worker.deliver(await worker.take()) == "settling"
    assert world.counted_ends() == {}
    for _ in range(3):
        await tend(world)
        assert world.counted_ends() == {"completed": 1}
    value = metrics.registry.get_sample_value
    assert value("llamasketch_credits_captured_total") == 1
    assert value("llamasketch_gpu_seconds_total") == 1.5
    assert value("llamasketch_job_paint_seconds_count") == 1


async def test_a_payment_request_that_does_not_open_at_once_is_opened_later(paying: Paying) -> None:
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


async def opened_and_then_crashed(world: World, money: FakeFunding) -> tuple[AccountId, JobId, str]:
    """A payment is open, and whoever opened it died before its reference was noted with the job."""
    money.answers_to_lose = 1
    person, job_id, reference = await ask(world)
    assert reference == ""
    (opened,) = money.payments
    return person, job_id, opened


async def test_money_that_arrives_after_its_image_ended_goes_back_although_a_crash_lost_the_reference(
    paying: Paying,
) -> None:
    world, money = paying
    person, job_id, reference = await opened_and_then_crashed(world, money)
    await world.generations.cancel(person, job_id)
    money.pay(reference)
    await tend(world)
    assert money.payments[reference].state == "failed"
    await nothing_is_left(world, person)


async def test_what_a_crash_left_open_is_closed_when_its_image_expires_and_its_rail_is_away_at_first(
    paying: Paying,
) -> None:
    world, money = paying
    person, job_id, reference = await opened_and_then_crashed(world, money)
    money.down = True
    await tend(world, 601)
    await tend(world, 0)
    assert await world.state(job_id) is JobState.EXPIRED
    assert await failing(world) == (1, PROBLEM)
    money.down = False
    money.answers_to_lose = 1
    await tend(world, 60)
    await tend(world, 60)
    assert money.payments[reference].state == "failed"
    await nothing_is_left(world, person)


async def test_for_an_image_that_ended_before_its_payment_was_opened_none_is_opened_later(
    paying: Paying,
) -> None:
    world, money = paying
    money.down = True
    person = await world.person()
    request = world.request(person, funding="lightning")
    await world.generations.request(request)
    await world.generations.cancel(person, request.job_id)
    money.down = False
    await tend(world)
    assert world.funding_process is not None
    with pytest.raises(Retracted):  # whoever was asked to open it is slow, and comes now
        await world.funding_process.open(request.order())
    assert money.payments == {}
    assert await world.state(request.job_id) is JobState.CANCELLED
    await nothing_is_left(world, person)
