"""One job from its claim to its report."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

import structlog

from worker.api import ApiFault, LeaseLost, WorkerApi, WrongBytes, seconds_until
from worker.backoff import Backoff
from worker.cancelling import end_tasks
from worker.clock import Clock
from worker.comfyui.client import ComfyClient, StoredImage
from worker.comfyui.faults import ComfyFault, FailureClass, RunInterrupted
from worker.comfyui.library import Graph, GraphLibrary
from worker.comfyui.run import GraphRun, RunResult
from worker.config import WorkerConfig
from worker.heartbeat import HeartbeatLoop
from worker.pictures import as_webp, content_type_of, fitted_sketch, looks_blank
from worker.protocol import (
    ClaimedJob,
    CompleteRequest,
    FailRequest,
    GiveBackRequest,
    UploadTarget,
)

NEARLY_DONE = 0.5


class JobEnd(StrEnum):
    """How a job ended for this worker."""

    COMPLETED = "completed"
    FAILED = "failed"
    GIVEN_BACK = "given_back"
    CANCELLED = "cancelled"
    LOST = "lost"
    UNREPORTED = "unreported"
    """The API could not be told; the lease will lapse."""


class BlankImage(ComfyFault):
    """All of its pixels are alike."""

    code = "blank_image"
    message = "The image server produced a blank image."


class ImageTooLarge(ComfyFault):
    """It has more bytes than the upload may have: how many that are is the platform's choice."""

    code = "image_too_large"
    message = "The image is larger than the storage accepts."
    failure: ClassVar[FailureClass] = "service"


class StorageFault(ComfyFault):
    """The store was reached and refused the image, each time."""

    code = "storage_failed"
    message = "The image could not be stored."
    failure: ClassVar[FailureClass] = "service"


class StorageUnreached(ComfyFault):
    """No attempt at the upload got an answer: it may be this machine's network."""

    code = "storage_unreached"
    message = "The storage could not be reached."


class SketchMissing(ComfyFault):
    """The store was reached and did not give the sketch, or gave other bytes, each time."""

    code = "sketch_missing"
    message = "The sketch could not be fetched."
    failure: ClassVar[FailureClass] = "service"


class SketchUnreached(ComfyFault):
    """No attempt at the download got an answer: it may be this machine's network."""

    code = "sketch_unreached"
    message = "The sketch could not be reached."


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What jobs are done with."""

    api: WorkerApi
    comfy: ComfyClient
    graphs: GraphLibrary
    config: WorkerConfig
    clock: Clock
    monotonic: Callable[[], float]
    jitter: random.Random


@dataclass(slots=True)
class JobRun:
    """Does one claimed job. `shutdown` set means: finish if nearly done, else give it back."""

    tools: Tools
    job: ClaimedJob
    shutdown: asyncio.Event
    heartbeat_seconds: float
    cold: bool = False
    """Whether ComfyUI has started since it last made a picture: its models are still to be loaded."""
    fault: ComfyFault | None = None
    files: list[StoredImage] = field(default_factory=list)
    prompt_id: str = ""
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _why: str = ""
    _uploading: bool = False
    _log: Any = None

    async def __call__(self) -> JobEnd:
        """Run to the end and report it. Raises nothing but cancellation."""
        self._log = structlog.get_logger("worker.job").bind(job_id=self.job.id, epoch=self.job.epoch)
        self.prompt_id = str(self.tools.comfy.new_id())
        began = self.tools.monotonic()
        heartbeat = HeartbeatLoop(
            self.tools.api,
            self.job,
            interval_seconds=self.heartbeat_seconds,
            monotonic=self.tools.monotonic,
            on_verdict=self._end_early,
            cold_seconds=self._cold_seconds,
        )
        helpers = [
            asyncio.create_task(heartbeat.beat()),
            asyncio.create_task(self._watch_shutdown(heartbeat)),
        ]
        try:
            end = await self._work(heartbeat)
        finally:
            await end_tasks(helpers)
        took = round((self.tools.monotonic() - began) * 1000)
        self._log.info("job_ended", end=end.value, graph=self.job.graph, took_ms=took)
        return end

    @property
    def _cold_seconds(self) -> float:
        return self.tools.config.cold_seconds if self.cold else 0.0

    async def _work(self, heartbeat: HeartbeatLoop) -> JobEnd:
        try:
            content, gpu_ms = await self._paint(heartbeat)
            self._uploading = True
            await self._store(content, heartbeat)
        except ComfyFault as fault:
            return await self._ended_by(fault)
        report = CompleteRequest(
            epoch=self.job.epoch,
            sha256=hashlib.sha256(content).hexdigest(),
            size=len(content),
            content_type=content_type_of(content),
            gpu_ms=gpu_ms,
        )
        return await self._report(report, JobEnd.COMPLETED)

    async def _paint(self, heartbeat: HeartbeatLoop) -> tuple[bytes, int]:
        graph = self.tools.graphs.get(self.job.graph)
        try:
            sketch = await self.tools.api.download(self.job.sketch, self._backoff(), on_bytes=heartbeat.count)
        except WrongBytes as fault:
            raise SketchMissing(str(fault)) from fault
        except ApiFault as fault:
            kind = SketchUnreached if fault.status is None else SketchMissing
            raise kind(str(fault)) from fault
        inputs = self.job.inputs
        fitted = await asyncio.to_thread(fitted_sketch, sketch, inputs.width, inputs.height)
        name = f"llamasketch-{self.job.id}-{self.job.epoch}"
        stored = await self.tools.comfy.upload(fitted, f"{name}.png")
        self.files.append(stored)
        # The prefix is unique per attempt: a cached result would name a file already pruned.
        values = inputs.model_dump() | {"sketch": stored.reference, "filename_prefix": f"llamasketch/{name}"}
        filled = graph.fill(values)
        if self._stop.is_set():
            raise RunInterrupted("stopped before it began")
        began = self.tools.monotonic()
        result = await self._run(filled, graph, heartbeat)
        self.files.extend(result.files)
        content = result.images[0]
        if await asyncio.to_thread(looks_blank, content):
            raise BlankImage(node=graph.output)
        gpu_ms = max(0, round((self.tools.monotonic() - began) * 1000))
        quality = self.tools.config.webp_quality
        return await asyncio.to_thread(as_webp, content, quality) if quality else content, gpu_ms

    async def _run(self, filled: dict[str, Any], graph: Graph, heartbeat: HeartbeatLoop) -> RunResult:
        left = seconds_until(self.job.deadline, self.tools.clock())
        limit = max(1.0, min(self.tools.config.job_seconds + self._cold_seconds, left))
        run = GraphRun(self.tools.comfy, self._stop)
        return await run(
            filled,
            graph.output,
            heartbeat.observe,
            prompt_id=self.prompt_id,
            limit_seconds=limit,
            loaders=graph.loaders,
            cold_seconds=self._cold_seconds,
        )

    async def _store(self, content: bytes, heartbeat: HeartbeatLoop) -> None:
        """Upload. Whatever stops the job stops this, too: nobody would take what it sends."""
        target: UploadTarget = self.job.upload
        if len(content) > target.max_bytes:
            raise ImageTooLarge(f"{len(content)} of {target.max_bytes} bytes")
        try:
            await self._unless_stopped(
                self.tools.api.upload(
                    target, content, content_type_of(content), self._backoff(), on_bytes=heartbeat.count
                )
            )
        except ApiFault as fault:
            kind = StorageUnreached if fault.status is None else StorageFault
            raise kind(str(fault)) from fault

    async def _unless_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        """Raises `RunInterrupted` if the job is stopped before the work is done."""
        task, stop = asyncio.create_task(work), asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise RunInterrupted("stopped while the image was sent")
            task.result()
        finally:
            await end_tasks([task, stop])

    async def _ended_by(self, fault: ComfyFault) -> JobEnd:
        """Report a fault; where we stopped the run ourselves, say why instead."""
        if self._why == "lost":
            return JobEnd.LOST
        if self._why and fault.failure != "input":
            # Stopped by us. A run that would not let go is still a reason to look at the server.
            self.fault = None if isinstance(fault, RunInterrupted) else fault
            end = JobEnd.CANCELLED if self._why == "cancel" else JobEnd.GIVEN_BACK
            return await self._report(GiveBackRequest(epoch=self.job.epoch), end)
        self.fault = fault
        self._log.warning(
            "job_failed", code=fault.code, failure=fault.failure, node=fault.node, detail=_harmless(fault)
        )
        report = FailRequest(
            epoch=self.job.epoch,
            failure=fault.failure,
            code=fault.code,
            detail=_harmless(fault),
            node=None if fault.node is None else fault.node[:120],
        )
        return await self._report(report, JobEnd.FAILED)

    async def _report(self, report: CompleteRequest | FailRequest | GiveBackRequest, end: JobEnd) -> JobEnd:
        try:
            await self.tools.api.report(self.job.id, report, self._backoff())
        except LeaseLost:
            return JobEnd.LOST
        except ApiFault as fault:
            self._log.error("report_failed", status=fault.status, code=fault.code)
            return JobEnd.UNREPORTED
        return end

    def _end_early(self, why: str) -> None:
        self._why = self._why or why
        self._stop.set()

    async def _watch_shutdown(self, heartbeat: HeartbeatLoop) -> None:
        await self.shutdown.wait()
        if self._uploading or heartbeat.share_done >= NEARLY_DONE:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.tools.config.grace_seconds):
                    await self._stop.wait()
        self._end_early("shutdown")

    def _backoff(self) -> Backoff:
        return Backoff(self.tools.jitter, first_seconds=0.2, longest_seconds=5.0)


def _harmless(fault: ComfyFault) -> str:
    """What may be logged and reported. A refusal by a node or graph may quote the prompt: not its text."""
    return fault.message if fault.failure == "input" else fault.detail[:500]
