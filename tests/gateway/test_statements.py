"""What an accepted request asks PostgreSQL for, beside the log's own transaction: at most one thing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
import structlog

from tests.gateway.conftest import Open
from tests.gateway.stack import Gateway, generation_request

MANY = 3


@contextmanager
def questions_of_requests(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The statements that are sent while requests are answered, by whichever pool; those of tasks are not."""
    sent: list[str] = []
    execute = psycopg.AsyncCursor.execute

    async def noting(self: Any, query: Any, *rest: Any, **more: Any) -> Any:
        if "request_id" in structlog.contextvars.get_contextvars():
            sent.append(query if isinstance(query, str) else query.decode())
        return await execute(self, query, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(psycopg.AsyncCursor, "execute", noting)
        yield sent


@pytest.fixture(scope="module")
async def gateway(open_gateway: Open) -> AsyncIterator[Gateway]:
    """One where no worker waits for jobs: what it asks then is asked while a request of its own is answered."""
    async with open_gateway() as gateway:
        yield gateway


async def test_an_accepted_request_without_a_key_asks_nothing(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await gateway.visitor()
    (await client.post("/v1/generations", json=generation_request())).raise_for_status()
    with questions_of_requests(monkeypatch) as sent:
        for _ in range(MANY):
            (await client.post("/v1/generations", json=generation_request())).raise_for_status()
    # The queue is read a few times a second, for whoever asks then.
    assert [statement for statement in sent if "queue_clock" not in statement] == []


async def test_with_a_key_it_asks_whether_it_was_sent_before_and_nothing_else(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await gateway.visitor()
    (await client.post("/v1/generations", json=generation_request())).raise_for_status()
    with questions_of_requests(monkeypatch) as sent:
        for number in range(MANY):
            headers = {"Idempotency-Key": f"counted-{number}"}
            answer = await client.post("/v1/generations", json=generation_request(), headers=headers)
            assert answer.status_code == 202
    asked = [statement for statement in sent if "queue_clock" not in statement]
    assert len(asked) == MANY
    assert all("idempotency_keys" in statement for statement in asked)
