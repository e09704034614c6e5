"""Scripts that are sent to Redis together count as they would one by one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import redis.asyncio as redis
from redis.exceptions import ConnectionError as RedisAway
from redis.exceptions import NoScriptError, ResponseError

from gateway.auth.scripts import Call, ScriptingRedis

ADD = "return redis.call('INCRBY', KEYS[1], ARGV[1])"


@contextlib.asynccontextmanager
async def scripting(url: str) -> AsyncIterator[ScriptingRedis]:
    """On a Redis that knows no script and no key yet."""
    pool = redis.ConnectionPool.from_url(url)
    client = ScriptingRedis(pool)
    await client.flushall()
    await client.script_flush()
    try:
        yield client
    finally:
        await client.aclose()
        await pool.aclose()


async def test_calls_that_are_alike_are_each_made(valkey_url: str) -> None:
    async with scripting(valkey_url) as client:
        add = client.register_script(ADD)
        answers = await asyncio.gather(*(add(["sum"], [1]) for _ in range(600)))
        assert sorted(answers) == list(range(1, 601))


async def test_a_script_that_redis_forgot_is_given_to_it_again(valkey_url: str) -> None:
    async with scripting(valkey_url) as client:
        add = client.register_script(ADD)
        assert await add(["sum"], [2]) == 2
        await client.script_flush()
        assert await add(["sum"], [3]) == 5
        with pytest.raises(NoScriptError):
            await client.evalsha("0" * 40, 0)


async def test_several_scripts_of_one_caller_are_answered_in_their_order(valkey_url: str) -> None:
    async with scripting(valkey_url) as client:
        add, get = client.register_script(ADD), client.register_script("return redis.call('GET', KEYS[1])")
        for total in (3, 6):  # the first time, and after Redis forgot one of them
            calls = [Call(add, ("sum",), (1,)), Call(add, ("sum",), (2,)), Call(get, ("sum",), ())]
            assert await client.together(calls) == [total - 2, total, str(total).encode()]
            await client.script_flush()
            await add(["sum"], [0])


async def test_if_one_of_several_scripts_fails_all_have_run_and_the_fault_is_told(valkey_url: str) -> None:
    async with scripting(valkey_url) as client:
        add = client.register_script(ADD)
        await client.set("text", "no number")
        with pytest.raises(ResponseError):
            await client.together([Call(add, ("text",), (1,)), Call(add, ("sum",), (1,))])
        assert await client.get("sum") == b"1"


async def test_a_script_that_fails_fails_nobody_else(valkey_url: str) -> None:
    async with scripting(valkey_url) as client:
        add = client.register_script(ADD)
        await client.set("text", "no number")
        calls = [add(["sum"], [1]), add(["text"], [1]), add(["sum"], [1])]
        first, failed, last = await asyncio.gather(*calls, return_exceptions=True)
        assert (first, last) == (1, 2)
        assert isinstance(failed, ResponseError)


async def test_whoever_gives_up_takes_nothing_from_the_others(valkey_url: str) -> None:
    async with scripting(valkey_url) as client:
        add = client.register_script(ADD)
        await add(["sum"], [0])
        calls = [asyncio.create_task(add(["sum"], [1])) for _ in range(10)]
        await asyncio.sleep(0)
        calls[0].cancel()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(answers[0], asyncio.CancelledError)
        assert all(isinstance(answer, int) for answer in answers[1:])


async def test_where_redis_is_away_all_of_them_fail() -> None:
    pool = redis.ConnectionPool.from_url("redis://127.0.0.1:9")
    client = ScriptingRedis(pool)
    add = client.register_script(ADD)
    answers = await asyncio.gather(*(add(["sum"], [1]) for _ in range(5)), return_exceptions=True)
    assert {isinstance(answer, RedisAway) for answer in answers} == {True}
    await pool.aclose()


async def test_a_redis_that_gives_no_sign_holds_up_nobody_for_long() -> None:
    reached = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.set()
        while await reader.read(1024):
            pass
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        pool = redis.ConnectionPool.from_url(f"redis://127.0.0.1:{port}")
        client = ScriptingRedis(pool, seconds_max=0.05)
        calls = [client.evalsha("0" * 40, 0) for _ in range(5)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert {isinstance(answer, OSError) for answer in answers} == {True}
        assert reached.is_set()
        await pool.aclose()
