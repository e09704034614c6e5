"""Rate limits per principal and per address prefix, counted in Redis; in memory while it is away."""

from __future__ import annotations

from typing import Any

import redis.asyncio as redis
import structlog
from fastapi import Request
from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from redis.exceptions import RedisError

from gateway.identity import Principal
from gateway.networks import Origins, prefixes
from gateway.problems import Problem
from gateway.settings import Settings


class Limiter:
    """Says when somebody asks too often. Reads are free; writes count."""

    def __init__(self, settings: Settings, client: redis.Redis) -> None:
        # `limits` hands unknown options on to the client, whatever their type.
        options: dict[str, Any] = {"connection_pool": client.connection_pool}
        storage = RedisStorage(settings.redis_url, implementation="redispy", **options)
        self._shared = MovingWindowRateLimiter(storage)
        self._local = MovingWindowRateLimiter(MemoryStorage())
        self._origins = Origins(settings.trusted_proxies)
        self._per_principal = RateLimitItemPerMinute(settings.requests_per_minute)
        self._per_network = RateLimitItemPerMinute(settings.requests_per_minute_network)
        self._log = structlog.get_logger("gateway.limits")

    async def check(self, request: Request, principal: Principal | None) -> None:
        """Count a write. Raises `Problem` 429 with Retry-After."""
        if request.method in ("GET", "HEAD", "OPTIONS"):
            return
        network = prefixes(self._origins.address(request))[0]
        await self._hit(self._per_network, "network", network)
        if principal is not None:
            await self._hit(self._per_principal, "principal", principal.account_id)

    async def attempt(self, purpose: str, who: str, *, per_minute: int) -> None:
        """Count one guess at a secret. Raises `Problem` 429."""
        await self._hit(RateLimitItemPerMinute(per_minute), purpose, who)

    async def _hit(self, item: RateLimitItemPerMinute, *keys: str) -> None:
        try:
            allowed = await self._shared.hit(item, *keys)
        except (RedisError, OSError) as error:
            self._log.debug("limits_in_memory", error=type(error).__name__)
            allowed = await self._local.hit(item, *keys)
        if not allowed:
            detail = "Too many requests. Wait a little."
            raise Problem(429, "rate_limited", detail, headers={"Retry-After": "10"})
