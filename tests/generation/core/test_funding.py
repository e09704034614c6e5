"""A job that a payment made for it alone pays: three ends, whatever goes wrong on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from itertools import cycle, pairwise
from pathlib import Path

import pytest
import sqlalchemy as sa

from generation.domain.errors import ObjectMissing, QueueFull, TooManyInFlight
from generation.domain.fairness import FREE
from generation.domain.requests import Accepted, Limits
from generation.domain.states import JobState
from generation.jobs.admission import sketch_key
from generation.jobs.funding import FUNDINGS
from generation.store.tables import job_funding, job_queue, job_results, jobs_paid_apart
from ledger.clock import ManualClock
from ledger.domain.refusals import InsufficientCredits
from ledger.followups.figures import figures_of, figures_query
from ledger.identifiers import AccountId, Identifiers, JobId
from ledger.log.model import LogWriter
from processes.followups import KINDS
from tests.generation.core.funding_fake import FakeFunding, Retracted
from tests.generation.core.world import NOON, World, open_world
from tests.ledger.world import HOUR

Paying = tuple[World, FakeFunding]
PROBLEM = "funding_unavailable: Whether the payment is good cannot be known right now."


@pytest.fixture
async def paying(empty_database: str, tmp_path: Path) -> AsyncIterator[Paying]:
    made: list[FakeFunding] = []

    def make(log: LogWriter, ids: Identifiers) -> FakeFunding:
        made.append(FakeFunding(log, ids))
        return made[0]

    async with open_world(empty_database, tmp_path, funding=make) as world:
        yield world, made[0]
        assert world.counted_ends() == await world.ends()
        assert await world.counted_apart() == await world.queued_apart()


async def ask(world: World) -> tuple[AccountId, JobId, str]:
    """Somebody without an account asks, and is told how to pay: (account, job, reference)."""
    person = await world.person()
    accepted = await world.accepted(person, funding="lightning")
    assert accepted.state == "awaiting_payment"
    return person, accepted.job_id, accepted.opened.reference if accepted.opened else ""


async def tend(world: World, seconds: int = 10) -> None:
    world.pass_time(seconds=seconds)
    assert world.funding_process is not None
    await world.funding_process.sweeper.sweep()
    await world.dispatch.sweep()


async def nothing_is_left(world: World, person: AccountId) -> None:
    assert await world.rows(job_funding) == []
    assert await world.rows(job_queue) == []
    assert await world.held(person) == 0


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


async def failing(world: World) -> tuple[int, str | None]:
    """(failures in a row, the newest problem) of the only payment."""
    (row,) = await world.rows(job_funding)
    return row["attempts"], row["last_problem"]


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


PLACES = ("before_the_money", "before_the_queue", "while_it_waits", "while_it_is_painted", "while_it_settles")


@pytest.mark.parametrize("at_once", [False, True], ids=["promised", "paid for good"])
@pytest.mark.parametrize("merged", PLACES)
@pytest.mark.parametrize("chain", [1, 2])
async def test_an_image_that_a_guest_paid_for_is_painted_whenever_the_guest_signs_in(
    paying: Paying, merged: str, at_once: bool, chain: int
) -> None:
    world, money = paying
    worker = await world.worker()
    guest, job_id, reference = await ask(world)
    accounts = [guest, *[await world.person() for _ in range(chain)]]

    async def sign_in(place: str) -> None:
        if place == merged:
            for one, other in pairwise(accounts):
                await world.ledger.merge(one, other)

    await sign_in("before_the_money")
    if at_once:
        await money.pay_for_good(reference)
    else:
        money.pay(reference)
    await sign_in("before_the_queue")
    await tend(world)
    assert await world.state(job_id) is JobState.QUEUED
    await sign_in("while_it_waits")
    taken = await worker.take()
    await sign_in("while_it_is_painted")
    money.answers_to_lose = 1
    await worker.deliver(taken)
    await sign_in("while_it_settles")
    money.answers_to_lose = 0
    await tend(world)
    assert await world.state(job_id) is JobState.COMPLETED
    assert len(await world.rows(job_results)) == 1
    assert money.settled_times == 1
    for account in accounts:
        await nothing_is_left(world, account)
        # Nothing of the money is left with anybody, and the day's free images are untouched.
        assert await world.available(account) in (0, 20)


async def test_a_merge_between_the_look_and_the_decision_is_followed(paying: Paying) -> None:
    """As where another process merges the guest while the money is being taken."""
    world, money = paying
    worker = await world.worker()
    guest, job_id, reference = await ask(world)
    person = await world.person()
    money.pay(reference)
    await tend(world)

    async def sign_in() -> None:
        await world.ledger.merge(guest, person)

    money.before_settling = sign_in
    assert await worker.paint() == job_id
    assert await world.state(job_id) is JobState.COMPLETED
    assert money.settled_times == 1
    await nothing_is_left(world, person)


async def test_an_image_whose_credit_the_person_has_spent_otherwise_is_not_shown(paying: Paying) -> None:
    world, money = paying
    worker = await world.worker()
    guest, job_id, reference = await ask(world)
    person = await world.person()
    await money.pay_for_good(reference)
    await world.ledger.merge(guest, person)
    await tend(world)
    taken = await worker.take()
    for _ in range(21):  # the free ones first, then the one that was paid
        hold = await world.ledger.hold(person, 1, job_id=world.ids.job(), deadline=world.clock() + HOUR)
        await world.ledger.capture(person, hold)
    await worker.deliver(taken)
    assert (await world.job(job_id)).reason == "insufficient_credits"
    assert await world.rows(job_results) == []
    await nothing_is_left(world, person)


async def test_money_of_a_merged_guests_cancelled_image_stays_with_the_person(paying: Paying) -> None:
    world, money = paying
    guest, job_id, reference = await ask(world)
    person = await world.person()
    await money.pay_for_good(reference)
    await world.ledger.merge(guest, person)
    await tend(world)
    await world.generations.cancel(person, job_id)
    await tend(world)
    assert await world.state(job_id) is JobState.CANCELLED
    await nothing_is_left(world, guest)
    assert await world.available(person) == 21


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
