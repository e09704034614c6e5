"""A gateway, a ComfyUI stand-in, and workers between them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import pytest
import pytest_asyncio

from ledger.clock import system_clock
from tests.waiting import SECONDS_MAX
from tests.worker.comfyui.server import ComfyServer
from tests.worker.gateway import ONE_TIME_TOKEN, FakeGateway
from worker.api import WorkerApi
from worker.comfyui.client import ComfyClient, RetryPause
from worker.comfyui.library import load_graphs
from worker.config import WorkerConfig
from worker.credentials import CredentialFile
from worker.files import ComfyFiles
from worker.job import Tools
from worker.loop import Worker
from worker.process import ComfyProcess, UnmanagedProcess
from worker.readiness import Readiness

StartWorker: TypeAlias = Callable[..., Awaitable[tuple[Worker, "asyncio.Task[None]"]]]
BRISK = RetryPause(request=5.0, poll=0.1, stall=2.0, interrupt_pause=0.05)


@pytest_asyncio.fixture(scope="module")
async def comfy_process(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ComfyServer]:
    server = ComfyServer(tmp_path_factory.mktemp("comfyui"), "--paint-seconds", "0.2")
    await server.start()
    yield server
    server.kill()


@pytest_asyncio.fixture
async def comfyui(comfy_process: ComfyServer) -> ComfyServer:
    if not comfy_process.healthy():
        await comfy_process.start()
    comfy_process.faults(reset=True)
    return comfy_process


@pytest_asyncio.fixture
async def gateway() -> AsyncIterator[FakeGateway]:
    gateway = FakeGateway()
    await gateway.start()
    yield gateway
    await gateway.stop()
    assert gateway.drifted == [], "the double answered what the application never does"


@pytest_asyncio.fixture
async def start_worker(
    gateway: FakeGateway, comfyui: ComfyServer, tmp_path: Path
) -> AsyncIterator[StartWorker]:
    """`await start_worker(**settings)`: a running worker, stopped when the test ends."""
    running: list[tuple[Worker, asyncio.Task[None]]] = []
    async with AsyncExitStack() as stack:

        async def start(
            process: ComfyProcess | None = None, comfy: ComfyClient | None = None, **settings: Any
        ) -> tuple[Worker, asyncio.Task[None]]:
            http = await stack.enter_async_context(httpx.AsyncClient(trust_env=False, timeout=SECONDS_MAX))
            defaults: dict[str, Any] = {
                "api_url": gateway.url,
                "comfyui_url": comfyui.url,
                "registration_token": ONE_TIME_TOKEN,
                "data_dir": tmp_path / "worker",
                "comfyui_folder": comfyui.folder,
                "claim_seconds": 5.0,
                "grace_seconds": SECONDS_MAX,
            }
            config = WorkerConfig(**(defaults | settings))
            tools = Tools(
                api=WorkerApi(gateway.url, http, request_seconds=SECONDS_MAX),
                comfy=comfy or ComfyClient(comfyui.url, http, wait_max=BRISK),
                graphs=load_graphs(),
                config=config,
                clock=system_clock,
                monotonic=time.monotonic,
                jitter=random.Random(1),
            )
            files = ComfyFiles(config.comfyui_folder, config.keep_files)
            readiness = Readiness(tools, process or UnmanagedProcess(), files)
            worker = Worker(tools, readiness, CredentialFile(config.data_dir), asyncio.Event())
            task = asyncio.create_task(worker.run())
            running.append((worker, task))
            return worker, task

        yield start
        for worker, task in running:
            worker.shutdown.set()
            await asyncio.wait({task}, timeout=SECONDS_MAX)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
