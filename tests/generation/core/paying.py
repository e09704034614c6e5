"""Somebody without an account asks for an image, and pays for it alone."""

from __future__ import annotations

from generation.store.tables import job_funding, job_queue
from ledger.identifiers import AccountId, JobId
from tests.generation.core.funding_fake import FakeFunding
from tests.generation.core.world import World

Paying = tuple[World, FakeFunding]
PROBLEM = "funding_unavailable: Whether the payment is good cannot be known right now."


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


async def failing(world: World) -> tuple[int, str | None]:
    """(failures in a row, the newest problem) of the only payment."""
    (row,) = await world.rows(job_funding)
    return row["attempts"], row["last_problem"]
