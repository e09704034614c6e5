"""A Redis client that sends the scripts of many requests together."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

import redis.asyncio as redis
from redis.exceptions import ResponseError

from generation.store.batching import Batcher

TOGETHER_MAX = 256
"""Scripts of one pipeline."""


class ScriptingRedis(redis.Redis):
    """Scripts that are called while others are on their way go into the next pipeline, in their order.

    A round trip costs a process ten times what a script costs that goes along.
    """

    def __init__(self, connection_pool: redis.ConnectionPool, *, seconds_max: float = 2.0) -> None:
        """After `seconds_max` without an answer all who wait for it get a `TimeoutError`."""
        super().__init__(connection_pool=connection_pool)
        self._seconds_max = seconds_max
        self._numbers = count()
        self._calls: Batcher[tuple[Any, ...], Any] = Batcher(self._send, limit=TOGETHER_MAX)
        self._loads: Batcher[str, Any] = Batcher(self._load)

    async def evalsha(self, sha: str, numkeys: int, *keys_and_args: Any) -> Any:
        """As the method of `redis.Redis`. Raises what Redis answers with, and what goes wrong on the way."""
        # Two calls are never one, however alike they are.
        answer = await self._calls.get((next(self._numbers), sha, numkeys, *keys_and_args))
        if isinstance(answer, ResponseError):
            raise answer
        return answer

    async def script_load(self, script: Any) -> Any:
        """As the method of `redis.Redis`; once for all who miss the script."""
        digest = await self._loads.get(script)
        assert digest is not None, "it is loaded, or an error raised"
        return digest

    async def _load(self, scripts: Sequence[str]) -> Mapping[str, Any]:
        return {script: await super(ScriptingRedis, self).script_load(script) for script in scripts}

    async def _send(self, calls: Sequence[tuple[Any, ...]]) -> Mapping[tuple[Any, ...], Any]:
        # All who call wait for this one: a connection that gives no sign must not hold up everybody.
        async with asyncio.timeout(self._seconds_max), self.pipeline(transaction=False) as pipeline:
            for _, *call in calls:
                pipeline.execute_command("EVALSHA", *call)
            answers = await pipeline.execute(raise_on_error=False)
        return dict(zip(calls, answers, strict=True))
