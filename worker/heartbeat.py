"""Heartbeats of one job: keeps the lease, carries progress, brings back commands."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Literal, TypeAlias

import structlog

from generation.comfyui.run import RunProgress
from generation.worker.api import ApiFault, WorkerApi
from generation.worker.pictures import small_preview
from generation.worker.protocol import ClaimedJob, HeartbeatRequest, Progress

Verdict: TypeAlias = Literal["cancel", "lost"]

LEAST_GAP_SECONDS = 0.4


class Heart:
    """Beats every `interval_seconds`, and sooner when progress moves. `verdict` is set at most once."""

    def __init__(
        self,
        api: WorkerApi,
        job: ClaimedJob,
        *,
        interval_seconds: float,
        monotonic: Callable[[], float],
        on_verdict: Callable[[Verdict], None],
    ) -> None:
        self._api = api
        self._job = job
        self._interval = interval_seconds
        self._monotonic = monotonic
        self._on_verdict = on_verdict
        self._moved = asyncio.Event()
        self._progress: Progress | None = None
        self._preview: bytes | None = None
        self._held_since = monotonic()
        self._log = structlog.get_logger("worker.heart").bind(job_id=job.id, epoch=job.epoch)

    @property
    def share_done(self) -> float:
        """Between 0 and 1."""
        return 0.0 if self._progress is None else min(1.0, self._progress.value / self._progress.max)

    def observe(self, progress: RunProgress) -> None:
        """Take progress or a preview from the run; sent with the next beat."""
        if progress.preview is not None:
            self._preview = progress.preview
        if progress.maximum > 0:
            seen = Progress(value=max(0, progress.value), max=progress.maximum)
            if seen == self._progress and progress.preview is None:
                return
            self._progress = seen
        self._moved.set()

    async def beat(self) -> None:
        """Until a verdict; cancel the task when the job has ended."""
        while True:
            verdict = await self._once()
            if verdict is not None:
                self._on_verdict(verdict)
                return
            try:
                async with asyncio.timeout(self._interval):
                    await self._moved.wait()
                # Previews come in bursts with the step they belong to: gather them into one beat.
                await asyncio.sleep(LEAST_GAP_SECONDS)
            except TimeoutError:
                pass
            self._moved.clear()

    async def _once(self) -> Verdict | None:
        request = HeartbeatRequest(
            epoch=self._job.epoch, progress=self._progress, preview=await self._encoded()
        )
        try:
            answer = await self._api.heartbeat(self._job.id, request)
        except ApiFault as fault:
            self._log.warning("heartbeat_failed", status=fault.status, code=fault.code)
            if fault.forbidden:
                return "lost"
            # Nobody answered for as long as the lease runs: it has been given to another box.
            lapsed = self._monotonic() - self._held_since >= self._job.lease_seconds
            return "lost" if lapsed else None
        self._held_since = self._monotonic()
        return None if answer.command == "continue" else answer.command

    async def _encoded(self) -> str | None:
        preview, self._preview = self._preview, None
        if preview is None:
            return None
        small = await asyncio.to_thread(small_preview, preview)
        return None if small is None else base64.b64encode(small).decode()
