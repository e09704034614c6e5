"""A worker for `bench.chaos` that cannot be trusted: it vanishes, lies, says things twice, and comes back as a zombie.

It speaks the worker protocol as our worker does, and breaks every promise in it.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter

import httpx

from worker.api import ApiFault, LeaseLost, WorkerApi, WrongBytes
from worker.backoff import Backoff
from worker.protocol import (
    Capabilities,
    ClaimedJob,
    CompleteRequest,
    FailRequest,
    GiveBackRequest,
    RegisterRequest,
)

FATES = ("vanish", "fail", "give_back", "lie", "deliver_twice", "deliver_late")
LATE_SECONDS = 35.0
"""Longer than a lease."""


class Rogue:
    """One such worker. `did` counts what it did, `refused` what was rightly not taken from it."""

    def __init__(self, url: str, token: str, http: httpx.AsyncClient, chance: random.Random) -> None:
        self._api = WorkerApi(url, http)
        self._token = token
        self._chance = chance
        self._retry_pause = Backoff(chance, 0.2, 2.0)
        self._late: set[asyncio.Task[None]] = set()
        self.did: Counter[str] = Counter()
        self.refused = 0

    async def go_on(self, enough: asyncio.Event) -> None:
        """Take a job now and then and do something with it, until it is enough."""
        while not enough.is_set():
            try:
                if self._api.token is None:
                    await self._register()
                job = await self._api.claim(1.0)
                if job is not None:
                    await self._treat(job, self._chance.choice(FATES))
            except (ApiFault, WrongBytes):
                pass
            await asyncio.sleep(self._chance.uniform(1.0, 3.0))
        await asyncio.gather(*self._late)

    async def _register(self) -> None:
        request = RegisterRequest(
            token=self._token,
            name="rogue",
            version="0",
            capabilities=Capabilities(graphs=["sketch@1"], gpu="none", vram_mb=0),
        )
        self._api.token = (await self._api.register(request)).token

    async def _treat(self, job: ClaimedJob, fate: str) -> None:
        self.did[fate] += 1
        match fate:
            case "fail":
                failure = FailRequest(
                    epoch=job.epoch, failure="infrastructure", code="broken", detail="on purpose"
                )
                await self._report(job, failure)
            case "give_back":
                await self._report(job, GiveBackRequest(epoch=job.epoch))
            case "lie":
                await self._deliver(job, b"this is no image")
            case "deliver_twice":
                image = await self._api.download(job.sketch, self._retry_pause)
                await self._deliver(job, image)
                await self._deliver(job, image)
            case "deliver_late":
                task = asyncio.create_task(self._deliver_late(job))
                self._late.add(task)
                task.add_done_callback(self._late.discard)
            case _:
                pass  # vanished with it: its lease will end

    async def _deliver_late(self, job: ClaimedJob) -> None:
        try:
            image = await self._api.download(job.sketch, self._retry_pause)
            await asyncio.sleep(LATE_SECONDS)
            await self._deliver(job, image)
        except (ApiFault, WrongBytes):
            self.refused += 1

    async def _deliver(self, job: ClaimedJob, data: bytes) -> None:
        await self._api.upload(job.upload, data, "image/png", self._retry_pause)
        report = CompleteRequest(
            epoch=job.epoch,
            sha256=hashlib.sha256(data).hexdigest(),
            size=len(data),
            content_type="image/png",
            gpu_ms=1,
        )
        await self._report(job, report)

    async def _report(self, job: ClaimedJob, report: CompleteRequest | FailRequest | GiveBackRequest) -> None:
        try:
            await self._api.report(job.id, report, self._retry_pause)
        except LeaseLost:
            self.refused += 1
