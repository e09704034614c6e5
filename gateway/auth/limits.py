"""Rate limits per principal and per address prefix, counted in Redis; in memory while it is away."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import redis.asyncio as redis
import structlog
from fastapi import Request
from limits import RateLimitItem, RateLimitItemPerHour, RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.storage.redis.bridge import RedisBridge
from limits.aio.strategies import MovingWindowRateLimiter, RateLimiter, SlidingWindowCounterRateLimiter
from redis.commands.core import AsyncScript
from redis.exceptions import RedisError

from gateway.auth.identity import Principal
from gateway.auth.networks import Origins, prefixes
from gateway.auth.scripts import Call, ScriptingRedis
from gateway.http.problems import Problem
from gateway.settings import Settings
from ledger.clock import Clock

KILOBYTE = 1024
PREFIX = "LIMITS"
"""Of keys: the library's own, so that processes of any version count together."""
SIGN_IN_LINKS_PER_HOUR = 6
"""To one address: whoever knows it should not fill somebody's mailbox."""
LINK_OPENINGS_PER_HOUR = 30
"""Payment requests that links open for one account: whoever has a link should not fill the owner's list with them."""


class Count(NamedTuple):
    """Something that is counted."""

    item: RateLimitItem
    who: tuple[str, ...]
    cost: int = 1


class Limiter:
    """Says when somebody asks too often, or sends too much. Reads are free; writes count."""

    def __init__(self, settings: Settings, client: redis.Redis, clock: Clock) -> None:
        scripts, memory = ScriptingRedis(client.connection_pool), MemoryStorage()
        moving = scripts.register_script(RedisBridge.SCRIPT_ACQUIRE_MOVING_WINDOW)
        sliding = scripts.register_script(RedisBridge.SCRIPT_ACQUIRE_SLIDING_WINDOW)
        self._requests = _Moving(scripts, moving, MovingWindowRateLimiter(memory), clock)
        self._kilobytes = _Sliding(scripts, sliding, SlidingWindowCounterRateLimiter(memory))
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
        counts = [Count(self._per_network, ("network", prefixes(self._origins.address(request))[0]))]
        if principal is not None:
            counts.append(Count(self._per_principal, ("principal", principal.account_id)))
        await self._hit(*counts)

    async def attempt(self, purpose: str, who: str, *, per_minute: int) -> None:
        """Count one guess at a secret. Raises `Problem` 429."""
        await self._hit(Count(RateLimitItemPerMinute(per_minute), (purpose, who)))

    async def link_opening(self, account_id: str) -> None:
        """Count a payment request that a link asks for. Raises `Problem` 429."""
        count = Count(RateLimitItemPerHour(LINK_OPENINGS_PER_HOUR), ("link-opening", account_id))
        if not all(await self._counted(self._requests, [count])):
            detail = "So many top-ups were opened by links within an hour that no more are opened now."
            raise Problem("rate_limited", detail, headers={"Retry-After": "600"})

    async def mailing(self, address: str) -> None:
        """Count a link to sign in that is to be mailed to this address. Raises `Problem` 429."""
        who = hashlib.sha256(address.lower().encode()).hexdigest()
        count = Count(RateLimitItemPerHour(SIGN_IN_LINKS_PER_HOUR), ("sign-in-link-to", who))
        if not all(await self._counted(self._requests, [count])):
            detail = "So many links were mailed to this address within an hour that no more are mailed now."
            raise Problem("rate_limited", detail, headers={"Retry-After": "600"})

    async def upload(self, request: Request, principal: Principal, size_bytes: int) -> None:
        """Count the bytes of a sketch, before anything is done with them. Raises `Problem` 429."""
        kilobytes = size_bytes // KILOBYTE + 1
        network = prefixes(self._origins.address(request))[-1]
        whose = (self._kilobytes_of_network, network), (self._kilobytes_of_principal, principal.account_id)
        counts = [Count(item, ("upload", who), kilobytes) for item, who in whose]
        if not all(await self._counted(self._kilobytes, counts)):
            raise Problem("upload_quota_used_up")

    async def _hit(self, *counts: Count) -> None:
        if not all(await self._counted(self._requests, counts)):
            detail = "Too many requests. Wait a little."
            raise Problem("rate_limited", detail)

    async def _counted(self, limit: _Limit, counts: Sequence[Count]) -> Sequence[bool]:
        """Whether this much is still allowed, of each: all are counted, in one go. While Redis is away each process
        counts for itself."""
        try:
            return [bool(found) for found in await limit.scripts.together(list(map(limit.call, counts)))]
        except (RedisError, OSError) as error:
            self._log.debug("limits_in_memory", error=type(error).__name__)
            return [await limit.local.hit(count.item, *count.who, cost=count.cost) for count in counts]


@dataclass(frozen=True, slots=True)
class _Moving:
    """Requests: a moment for each, for as long as it counts."""

    scripts: ScriptingRedis
    script: AsyncScript
    local: RateLimiter
    clock: Clock

    def call(self, count: Count) -> Call:
        """As `limits` calls its script: now, how many may be, seconds, how many."""
        item, key = count.item, f"{PREFIX}:{count.item.key_for(*count.who)}"
        return Call(
            self.script, (key,), (self.clock().timestamp(), item.amount, item.get_expiry(), count.cost)
        )


@dataclass(frozen=True, slots=True)
class _Sliding:
    """Kilobytes: two counters. A moving window would store an entry for every kilobyte."""

    scripts: ScriptingRedis
    script: AsyncScript
    local: RateLimiter

    def call(self, count: Count) -> Call:
        """As `limits` calls its script, with the counters of the window before and of this one."""
        item, key = count.item, f"{PREFIX}:{{{count.item.key_for(*count.who)}}}"
        return Call(self.script, (f"{key}/-1", key), (item.amount, item.get_expiry(), count.cost))


_Limit: TypeAlias = _Moving | _Sliding
