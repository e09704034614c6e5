"""Fair among people, Pro before Free but not for ever, each job to one worker only."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

import pytest
import sqlalchemy as sa

from generation.delivery.dispatch import LEASE
from generation.domain.errors import TooManyInFlight
from generation.domain.fairness import FREE, PAID, PRIORITY, SLOT, Tier
from generation.domain.sessions import SessionChange
from generation.fleet.quarantine import ACCOUNTS_MIN
from generation.fleet.registry import SEEN_WITHIN
from generation.queueing.claiming import ClaimBatcher
from generation.store.tables import job_inputs, job_queue, live_sessions
from ledger.identifiers import AccountId, JobId
from tests.generation.core.world import World
from tests.waiting import SECONDS_MAX

HOG = Tier(weight=1, bonus_slots=0, in_flight_max=100_000)


async def fill(world: World, account_id: AccountId, count: int) -> None:
    """Put rows in the queue as a person's requests would, without their holds."""
    now = world.clock()
    async with world.engine.begin() as connection:
        await connection.execute(
            sa.insert(job_queue),
            [
                {
                    "job_id": f"job_{number:026d}",
                    "account_id": account_id,
                    "graph": "sketch@1",
                    "state": "queued",
                    "tag": number * SLOT,
                    "rank": number * SLOT,
                    "requested_at": now,
                    "deadline": now + timedelta(hours=5),
                    "refused_workers": [],
                }
                for number in range(count)
            ],
        )
        await connection.execute(
            sa.text("INSERT INTO fair_shares VALUES (:who, :finish)"),
            {"who": account_id, "finish": count * SLOT},
        )


def claims(world: World) -> ClaimBatcher:
    return ClaimBatcher(world.engine, world.clock, LEASE, lambda _: world.queue.watch.changed())


async def names_of_workers(world: World, count: int) -> list[str]:
    return [(await world.worker()).worker.worker_id for _ in range(count)]


async def claimed(world: World, count: int) -> list[AccountId]:
    """Whose jobs are leased next, in order."""
    one, owners = claims(world), []
    [name] = await names_of_workers(world, 1)
    for _ in range(count):
        claim = await one.claim(name, ["sketch@1"])
        owners += [] if claim is None else [claim.account_id]
    return owners


async def test_a_hog_with_ten_thousand_waiting_jobs_delays_nobody_by_a_job(world: World) -> None:
    hog, other = await world.person(), await world.person()
    await fill(world, hog, 10_000)
    assert await claimed(world, 5) == [hog] * 5
    await world.ask(other)
    assert (await claimed(world, 1)) == [other]
    # Nor do ten people one after the other: the hog gets its own turn now and then, no more.
    before = 0
    for _ in range(10):
        newcomer = await world.person()
        await world.ask(newcomer)
        order = await claimed(world, 2)
        before += order.index(newcomer)
    assert before <= 2


async def test_people_take_turns_however_much_each_asked_for(world: World) -> None:
    people = [await world.person(100) for _ in range(3)]
    for person, count in zip(people, (12, 6, 3), strict=True):
        for _ in range(count):
            await world.ask(person)
    first = Counter(await claimed(world, 9))
    assert set(first.values()) == {3}


async def test_a_paid_person_gets_twice_a_free_persons_share(world: World) -> None:
    free, paid = await world.person(100), await world.person(100)
    for _ in range(20):
        await world.ask(free)
        await world.ask(paid, PAID)
    shares = Counter(await claimed(world, 21))
    assert shares[paid] > shares[free] >= 5


async def test_pro_goes_first_and_a_free_person_still_gets_every_fourth_turn(world: World) -> None:
    free = await world.person()
    await world.ask(free)
    for _ in range(8):
        await world.ask(await world.person(), PRIORITY)
    order = await claimed(world, 9)
    assert order.index(free) == 3


@pytest.mark.parametrize(
    ("milliseconds", "turns_max"),
    [
        (2, 90),  # eight turns for each of five weights, for every job beyond the first
        (1_000, 200),  # and for the pro people whose turns the free one took
    ],
)
async def test_nobody_starves_under_an_endless_stream_of_pro_people(
    world: World, milliseconds: int, turns_max: int
) -> None:
    free = await world.person()
    waiting = {await world.ask(free) for _ in range(3)}
    one, [name] = claims(world), await names_of_workers(world, 1)
    turns = 0
    while waiting and turns < 300:
        turns += 1
        world.pass_time(milliseconds=milliseconds)
        await world.ask(await world.person(), PRIORITY)
        claim = await one.claim(name, ["sketch@1"])
        assert claim is not None
        waiting.discard(claim.job_id)
        async with world.engine.begin() as connection:  # painted
            await connection.execute(sa.delete(job_queue).where(job_queue.c.job_id == claim.job_id))
    assert turns <= turns_max


async def test_concurrent_claimers_of_many_processes_never_get_the_same_job(world: World) -> None:
    people = [await world.person(100) for _ in range(5)]
    await asyncio.gather(*(world.ask(person) for person in people for _ in range(16)))
    desks = [claims(world) for _ in range(4)]
    names = await names_of_workers(world, 16)

    async def drain(number: int) -> list[JobId]:
        mine: list[JobId] = []
        misses = 0
        while misses < 3:
            claim = await desks[number % 4].claim(names[number], ["sketch@1"])
            misses = misses + 1 if claim is None else 0
            mine += [] if claim is None else [claim.job_id]
        return mine

    found = [job for jobs in await asyncio.gather(*(drain(n) for n in range(16))) for job in jobs]
    assert len(found) == 80
    assert len(set(found)) == 80


async def test_workers_that_wait_together_are_served_by_rank_and_by_what_they_can(world: World) -> None:
    jobs = [await world.ask(await world.person()) for _ in range(3)]
    names = await names_of_workers(world, 3)
    async with world.engine.begin() as connection:
        update = sa.update(job_queue).where(job_queue.c.job_id == jobs[0])
        await connection.execute(update.values(refused_workers=names[:2]))
    one = claims(world)
    answers = await asyncio.gather(*(one.claim(name, ["sketch@1"]) for name in names))
    assert await one.claim("wrk_d", ["upscale@1"]) is None
    found = [claim.job_id if claim else None for claim in answers]
    assert found[2] == jobs[0]
    assert set(found[:2]) == set(jobs[1:])


async def test_a_lost_connection_is_said_to_everybody_who_waits(world: World) -> None:
    one, names = claims(world), await names_of_workers(world, 3)
    await world.ask(await world.person())
    async with world.engine.begin() as connection:
        await connection.execute(sa.text("ALTER TABLE job_queue RENAME TO job_queue_away"))
    try:
        answers = await asyncio.gather(
            *(one.claim(name, ["sketch@1"]) for name in names), return_exceptions=True
        )
    finally:
        async with world.engine.begin() as connection:
            await connection.execute(sa.text("ALTER TABLE job_queue_away RENAME TO job_queue"))
    assert all(isinstance(answer, sa.exc.SQLAlchemyError) for answer in answers)
    assert await one.claim(names[0], ["sketch@1"]) is not None


async def test_a_person_may_only_have_so_many_in_flight_even_all_at_once(world: World) -> None:
    person = await world.person(100)
    tier = FREE._replace(in_flight_max=5)
    answers = await asyncio.gather(*(world.ask(person, tier) for _ in range(12)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, TooManyInFlight)]
    assert len(refused) == 7
    assert await world.held(person) == 5


async def test_a_waiting_claim_is_woken_by_new_work(world: World) -> None:
    worker = await world.worker()
    waiting = asyncio.create_task(worker.claim(wait_seconds=20))
    job_id = await world.ask(await world.person())
    job = await asyncio.wait_for(waiting, SECONDS_MAX)
    assert job is not None
    assert job.claim.job_id == job_id


@pytest.mark.parametrize("how", ["quarantine", "drain"])
async def test_a_worker_that_is_taken_out_while_it_waits_gets_nothing(world: World, how: str) -> None:
    worker, other = await world.worker(), await world.worker()
    # Let in while it was active; its poll looks again at every wake-up.
    waiting = asyncio.create_task(world.dispatch.claim(await worker.known(), wait_seconds=1))
    if how == "drain":
        await world.registry.drain(worker.worker.worker_id)
    else:
        for _ in range(ACCOUNTS_MIN):
            whose = world.ids.job(), world.ids.account()
            await world.registry.note_failure(worker.worker.worker_id, *whose, "node_failed")
    job_id = await world.ask(await world.person())
    assert await waiting is None
    # Also beside one that does get a job, in one round.
    one = claims(world)
    out, active = await asyncio.gather(
        *(one.claim(each.worker.worker_id, ["sketch@1"]) for each in (worker, other))
    )
    assert out is None
    assert active is not None
    assert active.job_id == job_id


async def test_a_worker_that_asks_twice_at_once_gets_a_job_once(world: World) -> None:
    [name], one = await names_of_workers(world, 1), claims(world)
    for _ in range(2):
        await world.ask(await world.person())
    answers = await asyncio.gather(*(one.claim(name, ["sketch@1"]) for _ in range(3)))
    assert [claim is not None for claim in answers] == [True, False, False]


async def test_a_job_whose_sketch_was_erased_ends_without_charge(world: World) -> None:
    person, worker = await world.person(), await world.worker()
    job_id = await world.ask(person)
    async with world.engine.begin() as connection:
        await connection.execute(sa.delete(job_inputs))
    assert await worker.claim() is None
    assert (await world.job(job_id)).reason == "inputs_erased"
    assert await world.available(person) == 20


async def test_an_estimate_wants_evidence_and_counts_who_goes_first(world: World) -> None:
    person, worker = await world.person(), await world.worker()
    first = await world.ask(person)
    assert await world.generations.estimate(first) == (1, None, None, 1)
    job = await worker.take()
    world.pass_time(seconds=3)
    await worker.deliver(job)
    jobs = [await world.ask(await world.person()) for _ in range(4)]
    ranges = [await world.generations.estimate(job_id) for job_id in jobs]
    assert [found.position for found in ranges if found] == [1, 2, 3, 4]
    assert all(
        found and found.low_seconds and found.low_seconds < (found.high_seconds or 0) for found in ranges
    )
    assert await world.generations.estimate(first) is None


async def test_what_nobody_needs_any_more_is_forgotten(world: World) -> None:
    person, worker = await world.person(), await world.worker()
    await world.frame(person, 1)
    for _ in range(3):
        await world.ask(await world.person())
    for _ in range(4):
        await worker.take()
    await world.ask(await world.person())
    await worker.take()
    world.pass_time(hours=25)
    assert await world.queue.prune(world.clock()) >= 1
    assert await world.queue.session(f"{person}/s1") is None


async def test_what_a_person_said_about_a_session_outlives_a_day(world: World) -> None:
    person = await world.person()
    for name in ("paused", "capped", "plain"):
        await world.frame(person, 1, session_id=name)
    sessions = world.generations.sessions
    await sessions.change(world.ids.command(), person, "paused", SessionChange(paused=True))
    await sessions.change(world.ids.command(), person, "capped", SessionChange(cap_credits=1))
    left = []
    for days in (2, 27, 2):
        world.pass_time(days=days)
        await world.queue.prune(world.clock())
        left.append({row["session_id"].split("/")[1] for row in await world.rows(live_sessions)})
    assert left == [{"paused", "capped"}, {"paused", "capped"}, set()]


@pytest.mark.parametrize("tier", [FREE, PAID, PRIORITY])
async def test_every_tier_is_bounded(tier: Tier) -> None:
    assert 0 < tier.in_flight_max < 1000


async def test_a_silent_worker_keeps_a_retry_from_an_idle_one_for_seconds_only(world: World) -> None:
    worker, _dead = await world.worker(), await world.worker()
    job_id = await world.ask(await world.person())
    await worker.fail(await worker.take())
    assert await worker.claim() is None, "the other one may be about to ask"
    world.pass_time(seconds=16)
    assert (await worker.take()).claim.job_id == job_id


async def test_a_worker_that_waits_in_a_long_claim_is_still_heard_of(world: World) -> None:
    worker_id = (waiting := await world.worker()).worker.worker_id
    claim = asyncio.create_task(waiting.claim(wait_seconds=20))
    try:
        await asyncio.sleep(0)
        world.pass_time(seconds=16)
        async with asyncio.timeout(SECONDS_MAX):
            while worker_id not in await seen_lately(world, SEEN_WITHIN):
                await asyncio.sleep(0)
    finally:
        claim.cancel()
        await asyncio.gather(claim, return_exceptions=True)


async def seen_lately(world: World, within: timedelta) -> set[str]:
    since = world.clock() - within
    return {row.worker_id for row in await world.registry.present() if row.seen_at > since}
