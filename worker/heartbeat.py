"""Heartbeats of one job: keeps the lease, carries progress, brings back commands."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Literal, TypeAlias

import structlog

from worker.api import ApiFault, WorkerApi
from worker.comfyui.run import RunProgress
from worker.pictures import small_preview
from worker.protocol import ClaimedJob, HeartbeatRequest, Progress

Verdict: TypeAlias = Literal["cancel", "lost"]

LEAST_GAP_SECONDS = 0.4


class HeartbeatLoop:
    """Beats every `interval_seconds`, and sooner when steps are made. `on_verdict` is called at most once.

    While models are loaded no message comes, for minutes where gigabytes are read. That is known of a ComfyUI
    that has just started: until its first step, for `cold_seconds` at most, each beat counts as a move.
    """

    def __init__(
        self,
        api: WorkerApi,
        job: ClaimedJob,
        *,
        interval_seconds: float,
        monotonic: Callable[[], float],
        on_verdict: Callable[[Verdict], None],
        cold_seconds: float = 0.0,
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
        self._moves = 0
        self._cold_until = monotonic() + cold_seconds
        self._log = structlog.get_logger("worker.heartbeat").bind(job_id=job.id, epoch=job.epoch)

    @property
    def share_done(self) -> float:
        """Between 0 and 1."""
        return 0.0 if self._progress is None else min(1.0, self._progress.value / self._progress.max)

    def observe(self, progress: RunProgress) -> None:
        """Take progress or a preview from the run; sent with the next beat."""
        self._moves += 1
        if progress.preview is not None:
            self._preview = progress.preview
        if progress.maximum > 0:
            seen = Progress(value=max(0, progress.value), max=progress.maximum)
            if seen == self._progress and progress.preview is None:
                return
            self._progress = seen
        self._moved.set()

    def count(self) -> None:
        """Something moved that is no step: bytes of the sketch or of the image. Told with the next beat."""
        self._moves += 1

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
        if self._progress is None and self._monotonic() < self._cold_until:
            self._moves += 1
        request = HeartbeatRequest(
            epoch=self._job.epoch,
            progress=self._progress,
            moved=self._moves,
            preview=await self._encoded(),
        )
        try:
            answer = await self._api.heartbeat(self._job.id, request)
        except ApiFault as fault:
            self._log.warning("heartbeat_failed", status=fault.status, code=fault.code)
            if fault.forbidden:
                return "lost"
            # Nobody answered for as long as the lease runs: it has been given to another worker.
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
