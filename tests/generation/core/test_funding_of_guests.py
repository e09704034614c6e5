"""An image that a guest paid for, and the guest signs in: at each moment, once or twice over."""

from __future__ import annotations

from itertools import pairwise

import pytest

from generation.domain.states import JobState
from generation.store.tables import job_results
from tests.generation.core.paying import Paying, ask, nothing_is_left, tend
from tests.ledger.world import HOUR

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
