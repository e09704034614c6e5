"""Rate limits per principal and per address prefix, counted in Redis; in memory while it is away."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import redis.asyncio as redis
import structlog
from fastapi import Request
from limits import RateLimitItem, RateLimitItemPerHour, RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.storage.redis.redispy import RedispyBridge
from limits.aio.strategies import MovingWindowRateLimiter, RateLimiter, SlidingWindowCounterRateLimiter
from redis.exceptions import RedisError

from gateway.auth.identity import Principal
from gateway.auth.networks import Origins, prefixes
from gateway.auth.scripts import ScriptingRedis
from gateway.http.problems import Problem
from gateway.settings import Settings

KILOBYTE = 1024
LINK_OPENINGS_PER_HOUR = 30
"""Payment requests that links open for one account: whoever has a link should not fill the owner's list with them."""


class Limiter:
    """Says when somebody asks too often, or sends too much. Reads are free; writes count."""

    def __init__(self, settings: Settings, client: redis.Redis) -> None:
        storage = _storage(settings.redis_url, client)
        memory = MemoryStorage()
        self._requests = MovingWindowRateLimiter(storage), MovingWindowRateLimiter(memory)
        # A counter: a moving window would store an entry for every kilobyte.
        self._kilobytes = SlidingWindowCounterRateLimiter(storage), SlidingWindowCounterRateLimiter(memory)
        self._origins = Origins(settings.trusted_proxies)
        self._per_principal = RateLimitItemPerMinute(settings.requests_per_minute)
        self._per_network = RateLimitItemPerMinute(settings.requests_per_minute_network)
        self._kilobytes_of_principal = RateLimitItemPerHour(settings.upload_megabytes_per_hour * KILOBYTE)
        self._kilobytes_of_network = RateLimitItemPerHour(
            settings.upload_megabytes_per_hour_network * KILOBYTE
        )
        self._log = structlog.get_logger("gateway.auth.limits")

    async def check(self, request: Request, principal: Principal | None) -> None:
        """Count a write. Raises `Problem` 429 with Retry-After."""
        if request.method in ("GET", "HEAD", "OPTIONS"):
            return
        network = prefixes(self._origins.address(request))[0]
        hits = [self._hit(self._per_network, "network", network)]
        if principal is not None:
            hits.append(self._hit(self._per_principal, "principal", principal.account_id))
        await _all(hits)

    async def attempt(self, purpose: str, who: str, *, per_minute: int) -> None:
        """Count one guess at a secret. Raises `Problem` 429."""
        await self._hit(RateLimitItemPerMinute(per_minute), purpose, who)

    async def link_opening(self, account_id: str) -> None:
        """Count a payment request that a link asks for. Raises `Problem` 429."""
        if not await self._counted(
            self._requests, RateLimitItemPerHour(LINK_OPENINGS_PER_HOUR), "link-opening", account_id
        ):
            detail = "So many top-ups were opened by links within an hour that no more are opened now."
            raise Problem("rate_limited", detail, headers={"Retry-After": "600"})

    async def upload(self, request: Request, principal: Principal, size_bytes: int) -> None:
        """Count the bytes of a sketch, before anything is done with them. Raises `Problem` 429."""
        kilobytes = size_bytes // KILOBYTE + 1
        network = prefixes(self._origins.address(request))[-1]
        whose = (self._kilobytes_of_network, network), (self._kilobytes_of_principal, principal.account_id)
        await _all([self._send(item, "upload", who, kilobytes) for item, who in whose])

    async def _send(self, item: RateLimitItem, purpose: str, who: str, kilobytes: int) -> None:
        if not await self._counted(self._kilobytes, item, purpose, who, cost=kilobytes):
            raise Problem("upload_quota_used_up")

    async def _hit(self, item: RateLimitItem, *keys: str) -> None:
        if not await self._counted(self._requests, item, *keys):
            detail = "Too many requests. Wait a little."
            raise Problem("rate_limited", detail)

    async def _counted(
        self, limiters: tuple[RateLimiter, RateLimiter], item: RateLimitItem, *keys: str, cost: int = 1
    ) -> bool:
        """Whether this much is still allowed. While Redis is away each process counts for itself."""
        shared, local = limiters
        try:
            return await shared.hit(item, *keys, cost=cost)
        except (RedisError, OSError) as error:
            self._log.debug("limits_in_memory", error=type(error).__name__)
            return await local.hit(item, *keys, cost=cost)


async def _all(hits: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Count everywhere, in one go. Raises the first `Problem`, in their order."""
    for found in await asyncio.gather(*hits, return_exceptions=True):
        if found is not None:
            raise found


def _storage(url: str, client: redis.Redis) -> RedisStorage:
    """What `limits` counts in, by a client that sends many scripts at once."""
    # `limits` hands unknown options on to the client, whatever their type.
    options: dict[str, Any] = {"connection_pool": client.connection_pool}
    storage = RedisStorage(url, implementation="redispy", **options)
    bridge = storage.bridge
    assert isinstance(bridge, RedispyBridge)
    bridge.storage = ScriptingRedis(client.connection_pool)
    bridge.register_scripts()
    return storage
