"""A crowd opens as many connections to PostgreSQL as the pools have, once, and no more."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import psycopg
import pytest

from gateway.wiring.foundation import CONNECTIONS_MAX, CONNECTIONS_READY, READING_CONNECTIONS_MAX
from tests.gateway.conftest import Open
from tests.gateway.stack import Gateway, generation_request

CROWD = 64


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Connections that are opened from an event loop, by whichever pool."""
    found: list[str] = []
    connect = psycopg.AsyncConnection.connect.__func__  # type: ignore[attr-defined]

    async def noting(cls: type[psycopg.AsyncConnection[Any]], *arguments: Any, **more: Any) -> Any:
        connection = await connect(cls, *arguments, **more)
        found.append(str(connection.info.backend_pid))
        return connection

    monkeypatch.setattr(psycopg.AsyncConnection, "connect", classmethod(noting))
    return found


async def test_some_connections_are_there_before_the_first_request(
    open_gateway: Open, opened: list[str]
) -> None:
    async with open_gateway() as gateway:
        base = gateway.services.base
        pool: Any = base.engine.pool
        assert pool.checkedin() + pool.checkedout() >= CONNECTIONS_READY
        assert base.pool.min_size == CONNECTIONS_READY
        assert len(opened) >= CONNECTIONS_READY


async def test_a_crowd_opens_what_the_pools_have_and_the_next_one_nothing(
    open_gateway: Open, opened: list[str]
) -> None:
    async with open_gateway(uploads_waiting_network=CROWD) as gateway:
        people = [await gateway.visitor() for _ in range(CROWD)]
        already = len(opened)
        await crowd(gateway, people)
        assert len(opened) - already <= CONNECTIONS_MAX + READING_CONNECTIONS_MAX - 2 * CONNECTIONS_READY
        for _ in range(3):  # of the pool that grows by need, one may still be on its way
            await crowd(gateway, people)
        already = len(opened)
        await crowd(gateway, people)
        assert len(opened) == already
        assert gateway.services.base.engine.pool.overflow() <= 0  # type: ignore[attr-defined]


async def crowd(gateway: Gateway, people: list[httpx.AsyncClient]) -> None:
    """All at once: half of them ask for an image with a key, half look at what they have."""

    async def one(number: int, client: httpx.AsyncClient) -> None:
        if number % 2:
            key = gateway.services.base.identifiers.command()
            answer = await client.post(
                "/v1/generations", json=generation_request(), headers={"Idempotency-Key": key}
            )
        else:
            answer = await client.get("/v1/statement")
        assert answer.status_code in (200, 202), answer.text

    await asyncio.gather(*(one(number, client) for number, client in enumerate(people)))
