"""Limits are counted as the library that they come from counts them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as redis
from limits import RateLimitItemPerHour, RateLimitItemPerMinute
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter, SlidingWindowCounterRateLimiter
from starlette.requests import Request

from gateway.auth.identity import Principal, Role
from gateway.auth.limits import Limiter
from gateway.http.problems import Problem
from ledger.clock import system_clock
from ledger.identifiers import AccountId
from tests.gateway.stack import settings_for

REQUEST = Request({"type": "http", "method": "POST", "headers": [], "client": ("10.1.2.3", 5)})
CALLER = Principal(Role.VISITOR, AccountId("acct_a"), by_cookie=False)


@pytest.fixture
async def client(valkey_url: str) -> AsyncIterator[redis.Redis]:
    async with redis.Redis.from_url(valkey_url) as client:
        await client.flushall()
        yield client


def storage(client: redis.Redis, url: str) -> RedisStorage:
    """The library's own."""
    options: dict[str, Any] = {"connection_pool": client.connection_pool}
    return RedisStorage(url, implementation="redispy", **options)


def limiter(client: redis.Redis, url: str, folder: Path) -> Limiter:
    settings = settings_for(
        "postgresql://nowhere",
        url,
        folder,
        requests_per_minute=3,
        upload_megabytes_per_hour=1,
        upload_megabytes_per_hour_network=2,
    )
    return Limiter(settings, client, system_clock)


async def refused(limiter: Limiter, *, kilobytes: int = 0) -> str | None:
    try:
        if kilobytes:
            await limiter.upload(REQUEST, CALLER, kilobytes * 1024 - 1)
        else:
            await limiter.check(REQUEST, CALLER)
    except Problem as problem:
        return problem.code
    return None


async def test_writes_count_together_with_those_that_the_librarys_own_client_has_counted(
    client: redis.Redis, valkey_url: str, tmp_path: Path
) -> None:
    """As a process of an earlier version does."""
    ours = limiter(client, valkey_url, tmp_path)
    theirs = MovingWindowRateLimiter(storage(client, valkey_url))
    item = RateLimitItemPerMinute(3)
    assert await theirs.hit(item, "principal", "acct_a")
    assert [await refused(ours) for _ in range(3)] == [None, None, "rate_limited"]
    assert not await theirs.hit(item, "principal", "acct_a")


async def test_kilobytes_count_together_likewise_and_a_network_has_more_of_them(
    client: redis.Redis, valkey_url: str, tmp_path: Path
) -> None:
    ours = limiter(client, valkey_url, tmp_path)
    theirs = SlidingWindowCounterRateLimiter(storage(client, valkey_url))
    assert await theirs.hit(RateLimitItemPerHour(1024), "upload", "acct_a", cost=1000)
    assert await refused(ours, kilobytes=24) is None
    assert await refused(ours, kilobytes=1) == "upload_quota_used_up"
    left = await theirs.get_window_stats(RateLimitItemPerHour(2048), "upload", "10.1.2.3/32")
    assert left.remaining == 2048 - 25


async def test_while_redis_is_away_a_process_counts_for_itself(tmp_path: Path) -> None:
    url = "redis://127.0.0.1:9"
    async with redis.Redis.from_url(url) as client:
        ours = limiter(client, url, tmp_path)
        assert [await refused(ours) for _ in range(4)] == [None, None, None, "rate_limited"]
        assert await refused(ours, kilobytes=1024) is None
        assert await refused(ours, kilobytes=1) == "upload_quota_used_up"
