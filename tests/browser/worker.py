"""A client of the worker protocol that does with every job what the test has commanded."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from PIL import Image, ImageFilter

from tests.gateway.stack import FakeWorker, picture

Job: TypeAlias = dict[str, Any]
Script: TypeAlias = Callable[["ScriptedWorker", Job], Awaitable[None]]
CLAIM_SECONDS = 20
"""Shorter than its client waits for an answer."""


class ScriptedWorker:
    """Takes jobs one after another. What it does with one is its `script`."""

    def __init__(self, worker: FakeWorker) -> None:
        self.worker = worker
        self.script: Script = deliver
        self.go = asyncio.Event()
        """What `show_and_wait` waits for."""
        self._loop: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to take jobs."""
        self._loop = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Take no more jobs."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)

    @asynccontextmanager
    async def silent(self) -> AsyncIterator[None]:
        """Jobs stay where they are."""
        await self.stop()
        try:
            yield
        finally:
            await self.start()

    def reset(self) -> None:
        """Deliver everything, also what a script keeps back. Raises whatever ended its work."""
        if self._loop is not None and self._loop.done():
            self._loop.result()
        self.script = deliver
        self.go.set()

    async def _work(self) -> None:
        while True:
            job = await self.worker.claim(CLAIM_SECONDS)
            if job is not None:
                await self.script(self, job)


async def deliver(worker: ScriptedWorker, job: Job) -> None:
    """Paint it at once. Somebody may have cancelled or replaced it meanwhile: that is no fault here."""
    data = picture(256)
    await worker.worker.upload(job, data)
    answer = await worker.worker.report(job, data)
    assert answer.status_code in (200, 409), answer.text


async def fail(worker: ScriptedWorker, job: Job) -> None:
    """It cannot be painted, here or anywhere."""
    answer = await worker.worker.say(job, "fail", failure="input", code="node_refused")
    answer.raise_for_status()


async def show_and_wait(worker: ScriptedWorker, job: Job) -> None:
    """Half of it with a preview, the rest on command, or give it back when it is cancelled."""
    worker.go.clear()
    answer = await worker.worker.say(job, "heartbeat", progress={"value": 2, "max": 4}, preview=preview())
    answer.raise_for_status()
    await worker.go.wait()
    await deliver(worker, job)


def preview() -> str:
    """A small JPEG."""
    out = io.BytesIO()
    image = Image.open(io.BytesIO(picture(96)))
    image.filter(ImageFilter.GaussianBlur(2)).save(out, "JPEG", quality=60)
    return base64.b64encode(out.getvalue()).decode()
