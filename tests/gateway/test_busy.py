"""A full pool of connections is a moment in which too much is asked: it is no outage, and nothing stops by it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.wiring.foundation import CONNECTIONS_MAX, READING_CONNECTIONS_MAX, Foundation
from ledger.errors import TooBusy
from tests.gateway.conftest import Logged, Open
from tests.gateway.stack import credits_of, generation_request
from tests.gateway.streaming import watching

NOT_LONG_SECONDS = 0.05
ASKED: dict[str, tuple[str, str, dict[str, Any] | None]] = {
    "a balance": ("GET", "/v1/account", None),
    "an image": ("POST", "/v1/generations", generation_request()),
    "a top-up": ("POST", "/v1/topups", {"rail": "fake", "credits": 5, "pay_asset": "USD"}),
    "a statement": ("GET", "/v1/statement", None),
    "a worker's next job": ("POST", "/v1/worker/claim", {"wait_seconds": 0}),
}


@contextlib.asynccontextmanager
async def all_of_both_pools(base: Foundation) -> AsyncIterator[None]:
    """Others use every connection, and nobody waits long for one."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(READING_CONNECTIONS_MAX):
            await stack.enter_async_context(base.pool.connection())
        for _ in range(CONNECTIONS_MAX):
            await stack.enter_async_context(base.engine.connect())
        pool: Any = base.engine.pool
        before = base.pool.timeout, pool._timeout
        base.pool.timeout = pool._timeout = NOT_LONG_SECONDS
        yield
        base.pool.timeout, pool._timeout = before


async def test_where_every_connection_is_in_use_the_answer_says_that_and_when_to_ask_again(
    open_gateway: Open,
) -> None:
    async with open_gateway() as gateway:
        client, worker = await gateway.visitor(), await gateway.worker()
        headers = {"Idempotency-Key": "in-the-crowd"}
        async with all_of_both_pools(gateway.services.base):
            for what, (method, path, body) in ASKED.items():
                who = worker.client if "worker" in path else client
                answer = await who.request(method, path, json=body, headers=headers)
                found = answer.status_code, answer.json()["code"], answer.headers["retry-after"]
                assert found == (503, "too_busy", "2"), what
            health = await gateway.client().get("/health")
            assert (health.status_code, health.json()["database"]) == (200, "ok")
            assert health.json()["workers"] is None
        assert (await client.post("/v1/generations", json=generation_request(), headers=headers)).is_success
        assert (await credits_of(client))["held"] == 1


async def test_a_stream_that_cannot_ask_ends_and_its_reader_comes_again(
    open_gateway: Open, logged: Logged
) -> None:
    async with open_gateway() as gateway:
        client = await gateway.visitor()
        signals = gateway.services.base.signals
        account_id = (await client.get("/v1/account")).json()["id"]
        async with watching(client) as stream:
            first = await stream.next()
            seen = len(logged.lines)
            async with all_of_both_pools(gateway.services.base):
                signals.deliver(account_id, {"event": "moved", "position": 1_000_000})
                with pytest.raises(EOFError):
                    await stream.until("never")
        lines = logged.lines[seen:]
        assert any("stream_cut_short" in line for line in lines), lines
        assert not any("request_failed" in line for line in lines), "it is nobody's fault"
        await client.post("/v1/generations", json=generation_request())
        async with watching(client, first.id) as stream:
            await stream.until("generation")


async def test_too_many_commands_are_answered_alike(
    open_gateway: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_gateway() as gateway:
        client = await gateway.visitor()

        async def full(*_: Any, **__: Any) -> Any:
            raise TooBusy

        monkeypatch.setattr(gateway.services.base.sequencer, "submit", full)
        answer = await client.post("/v1/generations", json=generation_request())
        assert (answer.status_code, answer.json()["code"]) == (503, "too_busy")
        assert answer.headers["retry-after"] == "2"
