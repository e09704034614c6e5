"""The free images of a network: counted with the hold, counted back once if no image comes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest

from generation.domain.errors import AllowanceSharedOut
from generation.domain.quotas import NetworkQuota
from generation.store.tables import job_queue, job_usage_reversals, network_allowances
from ledger.identifiers import AccountId, JobId
from tests.generation.core.world import NOON, World

MIDNIGHT = NOON + timedelta(hours=12)


def at_home(now: datetime) -> Sequence[NetworkQuota]:
    """The quotas of one address, of a day."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    return [
        NetworkQuota(key=f"{now:%Y%m%d}:narrow", cap=2, expires_at=midnight),
        NetworkQuota(key=f"{now:%Y%m%d}:wide", cap=9, expires_at=midnight),
    ]


async def used(world: World) -> list[int]:
    """The free images counted for the narrow and the wide prefix."""
    return [row["used"] for row in sorted(await world.rows(network_allowances), key=lambda row: row["id"])]


async def ask(world: World, person: AccountId) -> JobId:
    return await world.ask(person, networks=at_home)


async def test_a_free_image_that_fails_is_counted_back_once(world: World) -> None:
    person, worker = await world.person(), await world.worker()
    await ask(world, person)
    await ask(world, person)
    assert await used(world) == [2, 2]
    with pytest.raises(AllowanceSharedOut):
        await ask(world, person)
    job = await worker.take()
    assert await worker.fail(job, "input", "node_refused") == "failed"
    assert await worker.fail(job, "input", "node_refused") == "failed"
    await asyncio.gather(*(world.generations.returns.sweep() for _ in range(4)))
    assert await world.generations.returns.sweep() == 0
    assert await used(world) == [1, 1]
    await ask(world, person)


@pytest.mark.parametrize("end", ["cancelled", "expired", "three attempts"])
async def test_every_end_without_an_image_counts_back(world: World, end: str) -> None:
    person = await world.person()
    job_id = await ask(world, person)
    if end == "cancelled":
        await world.generations.cancel(person, job_id)
    elif end == "expired":
        world.pass_time(minutes=11)
        await world.dispatch.sweep()
    else:
        for _ in range(3):
            worker = await world.worker()
            await worker.fail(await worker.take())
    assert (await world.state(job_id)).final
    assert await world.generations.returns.sweep() == 1
    assert await used(world) == [0, 0]


async def test_a_delivered_image_stays_counted(world: World) -> None:
    person, worker = await world.person(), await world.worker()
    await ask(world, person)
    await worker.paint()
    assert await world.rows(job_usage_reversals) == []
    assert await used(world) == [1, 1]


async def test_frames_that_replace_one_another_count_as_one(world: World) -> None:
    person, slow, fast = await world.person(), await world.worker(), await world.worker()
    for seq in (1, 2):
        await world.frame(person, seq, networks=at_home)
    assert await used(world) == [1, 1]
    late = await slow.take()
    await world.frame(person, 3, networks=at_home)
    assert await used(world) == [2, 2]
    await fast.paint()
    assert await slow.deliver(late) == "superseded"
    await world.generations.returns.sweep()
    assert await used(world) == [1, 1]


async def test_a_failed_replacement_counts_back_what_it_took_over(world: World) -> None:
    person = await world.person()
    await world.frame(person, 1, networks=at_home)
    newest = await world.frame(person, 2, networks=at_home)
    await world.generations.cancel(person, newest)
    await world.generations.returns.sweep()
    assert await used(world) == [0, 0]


async def test_an_image_paid_for_counts_for_no_network(world: World) -> None:
    person = await world.person(5)
    for _ in range(2):
        await ask(world, person)
    await ask(world, person)
    counted = await used(world)
    for job in await world.rows(job_queue):
        await world.generations.cancel(person, JobId(job["job_id"]))
    await world.generations.returns.sweep()
    assert counted == [2, 2]
    assert await used(world) == [0, 0]


async def test_a_free_image_counts_for_the_day_on_which_it_is_decided(world: World) -> None:
    world.clock.set(MIDNIGHT - timedelta(milliseconds=50))
    person, asked_for = await world.person(), []

    def and_the_day_ends(now: datetime) -> Sequence[NetworkQuota]:
        asked_for.append(now)
        world.clock.set(max(world.clock(), MIDNIGHT + timedelta(milliseconds=1)))
        return at_home(now)

    await ask(world, person)
    for _ in range(2):
        await world.ask(person, networks=and_the_day_ends)
    days = [now.day for now in asked_for]
    assert days == [22, 23, 23], "it was asked for before midnight, and decided after it"
    counted = {row["id"]: row["used"] for row in await world.rows(network_allowances)}
    assert counted["20261122:narrow"] == 1
    assert counted["20261123:narrow"] == 2
    with pytest.raises(AllowanceSharedOut):
        await ask(world, person)


async def test_what_comes_back_after_midnight_is_not_missed(world: World) -> None:
    person = await world.person()
    job_id = await ask(world, person)
    world.pass_time(hours=13)
    await world.queue.prune(world.clock())
    await world.dispatch.sweep()
    assert (await world.state(job_id)).value == "expired"
    assert await world.generations.returns.sweep() == 1
    assert await used(world) == []
