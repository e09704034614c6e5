"""A ComfyUI stand-in per module, and clients for it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from tests.worker.comfyui.server import ComfyServer
from worker.comfyui.client import ComfyClient, RetryPause

BRISK = RetryPause(request=5.0, poll=0.1, stall=1.5, interrupt_pause=0.05, submit_checks=3)


@pytest_asyncio.fixture(scope="module")
async def comfyui(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ComfyServer]:
    server = ComfyServer(tmp_path_factory.mktemp("comfyui"), "--paint-seconds", "0.1")
    await server.start()
    yield server
    server.kill()


@pytest_asyncio.fixture
async def client(comfyui: ComfyServer) -> AsyncIterator[ComfyClient]:
    if not comfyui.healthy():
        await comfyui.start()
    comfyui.faults(reset=True)
    async with httpx.AsyncClient(trust_env=False) as http:
        client = ComfyClient(comfyui.url, http, wait_max=BRISK)
        await client.clear()
        yield client
