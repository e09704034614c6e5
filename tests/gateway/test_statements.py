"""What an accepted request asks PostgreSQL for, beside the log's own transaction: at most one thing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import psycopg
import pytest
import structlog

from tests.gateway.conftest import Open
from tests.gateway.stack import Gateway, generation_request

MANY = 3


class Asked:
    """The statements that were sent while requests were answered, by whichever pool; those of tasks are not."""

    def __init__(self) -> None:
        self._by_request: list[tuple[str, str]] = []

    def note(self, statement: str) -> None:
        request = structlog.contextvars.get_contextvars().get("request_id")
        if request is not None:
            self._by_request.append((request, statement))

    def for_answers(self, *answers: httpx.Response) -> list[str]:
        """Those of these requests, but for the queue's clock: it is read for whoever asks just then."""
        mine = {answer.raise_for_status().headers["X-Request-Id"] for answer in answers}
        assert len(mine) == len(answers)
        return [
            statement
            for request, statement in self._by_request
            if request in mine and "queue_clock" not in statement
        ]


@contextmanager
def statements(monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    """What this process sends to PostgreSQL."""
    asked = Asked()
    execute = psycopg.AsyncCursor.execute

    async def noting(self: Any, query: Any, *rest: Any, **more: Any) -> Any:
        asked.note(query if isinstance(query, str) else query.decode())
        return await execute(self, query, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(psycopg.AsyncCursor, "execute", noting)
        yield asked


@pytest.fixture(scope="module")
async def gateway(open_gateway: Open) -> AsyncIterator[Gateway]:
    """One whose jobs nobody paints meanwhile."""
    async with open_gateway() as gateway:
        yield gateway


async def test_an_accepted_request_without_a_key_asks_nothing(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await gateway.visitor()
    (await client.post("/v1/generations", json=generation_request())).raise_for_status()
    with statements(monkeypatch) as asked:
        answers = [await client.post("/v1/generations", json=generation_request()) for _ in range(MANY)]
    assert asked.for_answers(*answers) == []


async def test_with_a_key_it_asks_whether_it_was_sent_before_and_nothing_else(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await gateway.visitor()
    (await client.post("/v1/generations", json=generation_request())).raise_for_status()
    with statements(monkeypatch) as asked:
        answers = [
            await client.post(
                "/v1/generations", json=generation_request(), headers={"Idempotency-Key": f"counted-{number}"}
            )
            for number in range(MANY)
        ]
    sent = asked.for_answers(*answers)
    assert len(sent) == MANY
    assert all("idempotency_keys" in statement for statement in sent)
