"""What is lost when something is away: time, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx
import redis.asyncio as redis

from gateway.database.schema import migrate_async
from sandbox.embedded.ports import free_port
from sandbox.embedded.running import RunningServer
from sandbox.embedded.valkey import EmbeddedValkey
from tests.gateway.conftest import Logged, Open
from tests.gateway.stack import credits_of, generation_request, soon
from tests.waiting import SECONDS_MAX


async def health(client: httpx.AsyncClient) -> dict[str, object]:
    shown: dict[str, object] = (await client.get("/health")).json()
    return shown


async def test_without_redis_everything_goes_on_and_health_says_so(
    open_gateway: Open, server_folder: Path, logged: Logged
) -> None:
    valkey = EmbeddedValkey(server_folder / "mortal", free_port())
    with RunningServer(valkey.command(), server_folder / "mortal.log") as server:
        async with open_gateway(redis_url=server.url) as gateway:
            client, worker = await gateway.visitor(), await gateway.worker()

            async def says(words: str) -> bool:
                return (await health(client))["wake_ups"] == words

            await soon(lambda: says("ok"), "Redis was never found")
            asked = (await client.post("/v1/generations", json=generation_request("asked before"))).json()[
                "id"
            ]
            await asyncio.to_thread(server.kill)
            await soon(lambda: says("slower: Redis is not reachable"), "the loss was never said")
            assert (await health(client))["ok"] is True
            assert await worker.paint() == asked
            claim = asyncio.create_task(worker.claim(10))
            later = await client.post("/v1/generations", json=generation_request("asked without Redis"))
            assert later.status_code == 202
            job = await claim
            assert job is not None
            async with client.stream("GET", "/v1/events") as stream:
                (await worker.deliver(job)).raise_for_status()
                async with asyncio.timeout(SECONDS_MAX):
                    async for line in stream.aiter_lines():
                        if later.json()["id"] in line and '"completed"' in line:
                            break
            assert (await credits_of(client))["posted"] == 18
            await asyncio.to_thread(server.start)
            await soon(lambda: says("ok"), "Redis was never found again")
            (
                await client.post("/v1/generations", json=generation_request("asked afterwards"))
            ).raise_for_status()
            await worker.paint()


async def test_where_redis_takes_no_more_connections_everything_goes_on_as_without_it(
    open_gateway: Open, server_folder: Path
) -> None:
    valkey = EmbeddedValkey(server_folder / "full", free_port())
    with RunningServer(valkey.command(), server_folder / "full.log") as server:
        async with open_gateway(redis_url=server.url) as gateway, redis.Redis.from_url(server.url) as only:
            client, worker = await gateway.visitor(), await gateway.worker()
            await only.config_set("maxclients", 1)
            await only.client_kill_filter(skipme=True)

            async def lost() -> bool:
                return str((await health(client))["wake_ups"]).startswith("slower")

            await soon(lost, "the loss was never said")
            claim = asyncio.create_task(worker.claim(10))
            asked = await client.post("/v1/generations", json=generation_request("asked in a crowd"))
            assert asked.status_code == 202
            job = await claim
            assert job is not None
            (await worker.deliver(job)).raise_for_status()
            assert (await credits_of(client))["posted"] == 19
            await only.config_set("maxclients", 100)

            async def found() -> bool:
                return (await health(client))["wake_ups"] == "ok"

            await soon(found, "Redis was never found again")


async def test_without_postgresql_the_answer_is_a_503_that_may_be_repeated(
    open_gateway: Open, start_postgres: Callable[..., RunningServer]
) -> None:
    server = await asyncio.to_thread(start_postgres)
    await migrate_async(server.url.replace("postgresql://", "postgresql+psycopg://", 1))
    async with open_gateway(database=server.url) as gateway:
        client, worker = await gateway.visitor(), await gateway.worker()
        headers = {"Idempotency-Key": "through-the-outage"}
        await asyncio.to_thread(server.kill)
        requests = (
            ("POST", "/v1/generations", generation_request()),
            ("POST", "/v1/topups", {"rail": "fake", "credits": 5, "pay_asset": "USD"}),
            ("GET", "/v1/account", None),
            ("GET", "/v1/statement", None),
            ("POST", "/v1/worker/claim", {"wait_seconds": 0}),
        )
        for method, path, body in requests:
            who = worker.client if "worker" in path else client
            answer = await who.request(method, path, json=body, headers=headers)
            assert answer.status_code == 503, (path, answer.text)
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["retry-after"]
            assert answer.json()["code"] in ("ledger_unavailable", "database_unavailable")
        answer = await client.get("/health")
        assert (answer.status_code, answer.json()["database"]) == (503, "not reachable")
        await asyncio.to_thread(server.start)

        async def asks() -> bool:
            return (
                await client.post("/v1/generations", json=generation_request(), headers=headers)
            ).status_code == 202

        await soon(asks, "the gateway never recovered")
        answers = [
            await client.post("/v1/generations", json=generation_request(), headers=headers) for _ in range(3)
        ]
        assert {answer.status_code for answer in answers} == {202}
        assert (await credits_of(client))["held"] == 1
        assert await worker.paint() == answers[0].json()["id"]

        async def returned() -> bool:
            statement = await client.get("/v1/statement")
            return statement.status_code == 200 and len(statement.json()["entries"]) == 3

        await soon(returned, "the statement never came back")

        async def healthy() -> bool:
            return (await client.get("/health")).status_code == 200

        await soon(healthy, "health never came back")
