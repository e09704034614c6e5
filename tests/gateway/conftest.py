"""One gateway for all tests of its HTTP face: on real PostgreSQL and Valkey, with a fake rail."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.app import NODE_MODULES, create_app
from gateway.schema import migrate_async
from gateway.settings import Settings
from ledger.clock import system_clock
from sandbox.embedded.running import free_port
from tests.gateway.stack import FakePlugin, Gateway, serve


@pytest.fixture(scope="session")
async def gateway(
    make_database: Callable[..., str], valkey_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Gateway]:
    """A running gateway with nobody in it yet."""
    port = free_port()
    data: Path = tmp_path_factory.mktemp("data")
    settings = Settings.model_validate(
        {
            "DATABASE_URL": make_database(),
            "REDIS_URL": valkey_url,
            "secret_key": "only-for-tests-" + "x" * 32,
            "public_url": f"http://127.0.0.1:{port}",
            "data": data,
            "requests_per_minute": 100_000,
            "requests_per_minute_network": 100_000,
            "network_allowance_address": 100_000,
        }
    )
    await migrate_async(settings.sqlalchemy_url)
    fake = FakePlugin(system_clock)
    app = create_app(settings, environ={}, plugins=[fake], node_modules=NODE_MODULES)
    server, task = await serve(app, "127.0.0.1", port)
    running = Gateway(settings.public_url, app, fake)
    yield running
    await running.close()
    server.should_exit = True
    await task
