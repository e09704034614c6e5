"""What is told between processes by Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import redis.asyncio as redis

from generation.queueing.signals import RedisSignals
from ledger.cancelling import end_tasks
from sandbox.embedded.ports import free_port
from tests.waiting import SECONDS_MAX, eventually

MOVED = {"event": "moved"}


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def listening(stack: AsyncExitStack, client: redis.Redis) -> RedisSignals:
    """The signals of one process."""
    signals = RedisSignals(client)
    stack.push_async_callback(end_tasks, [asyncio.create_task(signals.run())])
    await eventually(lambda: signals.connected, "nobody listened")
    return signals


async def test_all_accounts_that_moved_are_told_of_in_one_message_in_every_process(
    stack: AsyncExitStack, valkey_url: str
) -> None:
    client = redis.Redis.from_url(valkey_url)
    stack.push_async_callback(client.aclose)
    ours, others = await listening(stack, client), await listening(stack, client)
    queues = [
        await stack.enter_async_context(signals.watch(account))
        for signals in (ours, others)
        for account in ("acct_a", "acct_b", "acct_c")
    ]
    await client.config_resetstat()
    await ours.moved(["acct_a", "acct_b"])
    for queue in (*queues[0:2], *queues[3:5]):
        assert await asyncio.wait_for(queue.get(), SECONDS_MAX) == MOVED
    assert queues[2].empty()
    assert queues[5].empty()
    assert (await client.info("commandstats"))["cmdstat_publish"]["calls"] == 1


async def test_while_redis_is_away_this_process_is_told_all_the_same(stack: AsyncExitStack) -> None:
    client = redis.Redis.from_url(f"redis://127.0.0.1:{free_port()}")
    stack.push_async_callback(client.aclose)
    signals = RedisSignals(client)
    queue = await stack.enter_async_context(signals.watch("acct_a"))
    await signals.moved(["acct_a", "acct_b"])
    assert queue.get_nowait() == MOVED


async def test_work_that_arrives_in_quick_succession_is_told_of_in_few_messages_and_none_is_lost(
    stack: AsyncExitStack, valkey_url: str
) -> None:
    client = redis.Redis.from_url(valkey_url)
    stack.push_async_callback(client.aclose)
    ours, others = await listening(stack, client), await listening(stack, client)
    await client.config_resetstat()
    for _ in range(50):
        own, news = ours.news(), others.news()
        await ours.work_arrived()
        assert own.is_set(), "this process is woken at once"
    await asyncio.wait_for(news.wait(), SECONDS_MAX)
    assert (await client.info("commandstats"))["cmdstat_publish"]["calls"] <= 3
    news = others.news()
    await ours.work_arrived()
    await asyncio.wait_for(news.wait(), SECONDS_MAX)
