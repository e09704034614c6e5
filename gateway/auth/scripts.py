"""A Redis client that sends the scripts of many requests together."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import redis.asyncio as redis
from redis.commands.core import AsyncScript
from redis.exceptions import NoScriptError, ResponseError

from generation.store.batching import Batcher

TOGETHER_MAX = 128
"""Callers whose scripts go into one pipeline."""


class Call(NamedTuple):
    """A script that is to run."""

    script: AsyncScript
    keys: tuple[str, ...]
    arguments: tuple[Any, ...]

    @property
    def words(self) -> tuple[Any, ...]:
        """As EVALSHA takes it."""
        return self.script.sha, len(self.keys), *self.keys, *self.arguments


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """What one caller wants. Two of them are never one, however alike they are."""

    calls: Sequence[tuple[Any, ...]]


class ScriptingRedis(redis.Redis):
    """Scripts that are called while others are on their way go into the next pipeline, in their order.

    A round trip costs a process ten times what a script costs that goes along.
    """

    def __init__(self, connection_pool: redis.ConnectionPool, *, seconds_max: float = 2.0) -> None:
        """After `seconds_max` without an answer all who wait for it get a `TimeoutError`."""
        super().__init__(connection_pool=connection_pool)
        self._seconds_max = seconds_max
        self._groups: Batcher[_Group, list[Any]] = Batcher(self._send, limit=TOGETHER_MAX)
        self._loads: Batcher[str, Any] = Batcher(self._load)

    async def evalsha(self, sha: str, numkeys: int, *keys_and_args: Any) -> Any:
        """As the method of `redis.Redis`. Raises what Redis answers with, and what goes wrong on the way."""
        (answer,) = await self._answers([(sha, numkeys, *keys_and_args)])
        if isinstance(answer, ResponseError):
            raise answer
        return answer

    async def together(self, calls: Sequence[Call]) -> list[Any]:
        """What several scripts answer, in one go. Raises as `evalsha`, once all have run."""
        answers = await self._answers([call.words for call in calls])
        unknown = [place for place, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            for place in unknown:
                await self.script_load(calls[place].script.script)
            again = await self._answers([calls[place].words for place in unknown])
            for place, answer in zip(unknown, again, strict=True):
                answers[place] = answer
        for answer in answers:
            if isinstance(answer, ResponseError):
                raise answer
        return answers

    async def _answers(self, calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        answers = await self._groups.get(_Group(calls))
        assert answers is not None, "it is answered, or an error raised"
        return answers

    async def script_load(self, script: Any) -> Any:
        """As the method of `redis.Redis`; once for all who miss the script."""
        digest = await self._loads.get(script)
        assert digest is not None, "it is loaded, or an error raised"
        return digest

    async def _load(self, scripts: Sequence[str]) -> Mapping[str, Any]:
        return {script: await super(ScriptingRedis, self).script_load(script) for script in scripts}

    async def _send(self, groups: Sequence[_Group]) -> Mapping[_Group, list[Any]]:
        # All who call wait for this one: a connection that gives no sign must not hold up everybody.
        async with asyncio.timeout(self._seconds_max), self.pipeline(transaction=False) as pipeline:
            for group in groups:
                for call in group.calls:
                    pipeline.execute_command("EVALSHA", *call)
            answers = iter(await pipeline.execute(raise_on_error=False))
        return {group: list(islice(answers, len(group.calls))) for group in groups}
