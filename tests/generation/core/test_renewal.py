"""A renewed token takes over when it is used, at the latest when the old one expires."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa

from generation.domain.errors import WorkerNotAllowed
from generation.fleet.registry import AUTHENTIC_FOR, GONE, TOKEN_LIFETIME
from generation.store.tables import workers
from tests.generation.core.world import World

HOUR = timedelta(hours=1)


async def test_each_token_lives_as_long_as_it_says(world: World) -> None:
    worker = await world.worker()
    old = worker.token
    world.pass_time(seconds=int((TOKEN_LIFETIME - HOUR).total_seconds()))
    renewed = await world.registry.renew(await world.registry.authenticate(old))
    assert renewed.expires_at - world.clock() > TOKEN_LIFETIME - timedelta(seconds=2)
    world.pass_time(seconds=int(HOUR.total_seconds()))
    with pytest.raises(WorkerNotAllowed):
        await world.registry.authenticate(old)
    # Its own time counts, not that of the one it takes over from.
    assert (await world.registry.authenticate(renewed.token)).worker_id == worker.worker.worker_id
    world.pass_time(seconds=int(TOKEN_LIFETIME.total_seconds()))
    with pytest.raises(WorkerNotAllowed):
        await world.registry.authenticate(renewed.token)


async def test_a_renewed_token_that_was_never_used_expires_too(world: World) -> None:
    worker = await world.worker()
    renewed = await world.registry.renew(worker.worker)
    world.pass_time(seconds=int((TOKEN_LIFETIME + AUTHENTIC_FOR).total_seconds()))
    with pytest.raises(WorkerNotAllowed):
        await world.registry.authenticate(renewed.token)


async def test_a_revoked_worker_is_nobody_also_with_a_renewed_token(world: World) -> None:
    worker = await world.worker()
    renewed = await world.registry.renew(await world.registry.authenticate(worker.token))
    async with world.engine.begin() as connection:
        await connection.execute(
            sa.update(workers).where(workers.c.worker_id == worker.worker.worker_id).values(state=GONE)
        )
    world.pass_time(seconds=int(AUTHENTIC_FOR.total_seconds()))
    for token in (worker.token, renewed.token):
        with pytest.raises(WorkerNotAllowed):
            await world.registry.authenticate(token)
