"""One gateway for all tests of its HTTP face: on real PostgreSQL and Valkey, with a fake rail."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
import structlog

from gateway.database.schema import migrate_async
from ledger.clock import Clock, system_clock
from tests.gateway.refusing import MARK, shown
from tests.gateway.stack import Gateway, running, settings_for

Open = Callable[..., contextlib.AbstractAsyncContextManager[Gateway]]


class Logged:
    """Every line that structlog or the standard library's loggers wrote during the session."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def processor(
        self, logger: Any, name: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        with contextlib.suppress(structlog.DropEvent):
            self.lines.append(repr(structlog.processors.format_exc_info(logger, name, dict(event))))
        raise structlog.DropEvent


@pytest.fixture(scope="session", autouse=True)
def logged() -> Iterator[Logged]:
    """Nothing is printed, everything is kept."""
    kept = Logged()
    before = structlog.get_config()
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, kept.processor], cache_logger_on_first_use=False
    )
    handler = logging.Handler()
    handler.emit = lambda record: kept.lines.append(logging.Formatter().format(record))  # type: ignore[method-assign]
    root = logging.getLogger()
    root.addHandler(handler)
    yield kept
    root.removeHandler(handler)
    structlog.configure(**before)


@pytest.fixture(scope="session")
async def migrated(make_database: Callable[..., str]) -> str:
    """The name of a migrated database that nobody uses: a template."""
    url = make_database()
    await migrate_async(url.replace("postgresql://", "postgresql+psycopg://", 1))
    return url.rpartition("/")[2]


@pytest.fixture(scope="session")
def open_gateway(
    migrated: str,
    make_database: Callable[..., str],
    valkey_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Open:
    """`async with open_gateway(setting=value) as gateway`: one of its own, on a database of its own."""

    @contextlib.asynccontextmanager
    async def opened(
        *, redis_url: str = valkey_url, database: str = "", clock: Clock = system_clock, **more: Any
    ) -> AsyncIterator[Gateway]:
        database = database or await asyncio.to_thread(make_database, migrated)
        settings = settings_for(database, redis_url, tmp_path_factory.mktemp("data"), **more)
        async with running(settings, clock=clock) as gateway:
            if clock is not system_clock:
                # Such a clock runs ahead because the test wants it to.
                gateway.services.base.sequencer._clock_ahead_max = None
            yield gateway

    return opened


@pytest.fixture(scope="package")
async def gateway(open_gateway: Open) -> AsyncIterator[Gateway]:
    """A running gateway with nobody in it yet. Its periodic work ends before the tests of others begin."""
    async with open_gateway() as gateway:
        yield gateway


@pytest.fixture(scope="module")
async def victim(gateway: Gateway) -> httpx.AsyncClient:
    """Somebody with a balance, to whom nothing may happen."""
    client = await gateway.visitor()
    await gateway.top_up(client, 100)
    return client


@pytest.fixture
async def untouched(gateway: Gateway, victim: httpx.AsyncClient, logged: Logged) -> AsyncIterator[None]:
    """Fails the test if the log or the victim's account moved, or if a line quotes what was sent."""
    head, account = await gateway.services.base.reader.head(), await shown(victim)
    lines = len(logged.lines)
    yield
    assert await gateway.services.base.reader.head() == head
    assert await shown(victim) == account
    reported = "\n".join(logged.lines[lines:])
    assert MARK not in reported
    assert "request_failed" not in reported
    assert "Traceback" not in reported
