"""The worker's life: register, pass the gate, claim, work, recycle, leave politely."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import structlog

from generation.comfyui.faults import ComfyFault
from generation.worker.api import ApiFault, seconds_until
from generation.worker.backoff import Backoff
from generation.worker.credentials import CredentialFile, Credentials
from generation.worker.files import ComfyFiles
from generation.worker.gate import GateReport, gpu_health_check
from generation.worker.job import JobEnd, JobRun, Tools
from generation.worker.process import ComfyProcess
from generation.worker.protocol import (
    PROTOCOL_VERSION,
    Capabilities,
    ClaimedJob,
    GiveBackRequest,
    RegisterAnswer,
    RegisterRequest,
)

WORKER_VERSION = "0.1.0"
RENEW_BEFORE_SECONDS = 600.0
_DRAIN_SECONDS = 3.0

Result = TypeVar("Result")


class RegistrationRefused(Exception):
    """The API does not accept this worker's registration token."""


class Stopped(Exception):
    """The worker was asked to stop while it waited."""


@dataclass(slots=True)
class Worker:
    """One worker; one job at a time."""

    tools: Tools
    process: ComfyProcess
    credentials: CredentialFile
    files: ComfyFiles
    shutdown: asyncio.Event
    _mine: Credentials | None = None
    _gate: GateReport | None = None
    _jobs_since_restart: int = 0

    async def run(self) -> None:
        """Until `shutdown`. Raises `RegistrationRefused`; everything else is waited out."""
        log = structlog.get_logger("worker")
        try:
            # What a former life of this worker left in the queue is nobody's any more.
            self._gate = await self._until_ready(self._comfyui_well)
            await self._until_ready(self._register)
            log.info("ready", worker_id=self._credentials().worker_id, graphs=list(self._gate.graphs))
            while not self.shutdown.is_set():
                await self._serve_one()
        except Stopped:
            log.info("stopping")
        finally:
            await self._leave()

    async def _serve_one(self) -> None:
        await self._until_ready(self._renew_when_due)
        job = await self._until_ready(self._claim)
        if job is None:
            return
        run = JobRun(self.tools, job, self.shutdown, self._credentials().heartbeat_seconds)
        end = await run()
        await asyncio.to_thread(self.files.delete, run.files)
        self._jobs_since_restart += 1
        with contextlib.suppress(ComfyFault):
            await self.tools.comfy.forget(run.prompt_id)
        if self.shutdown.is_set():
            return
        await self._look_after_comfyui(run, end)

    # --- being allowed to work ---

    async def _register(self) -> bool:
        self._mine = self._mine or self.credentials.read(self.tools.config.api_url)
        if self._mine is not None and seconds_until(self._mine.expires_at, self.tools.clock()) > 0:
            self.tools.api.token = self._mine.token
            return await self._resume()
        if self.tools.config.registration_token is None or self._gate is None:
            raise RegistrationRefused("no valid worker token is stored and no registration token is given")
        request = RegisterRequest(
            token=self.tools.config.registration_token,
            name=self.tools.config.name,
            version=WORKER_VERSION,
            protocol=PROTOCOL_VERSION,
            capabilities=Capabilities(
                graphs=list(self._gate.graphs), gpu=self._gate.gpu, vram_mb=self._gate.vram_mb
            ),
        )
        try:
            await self._keep(await self.tools.api.register(request))
        except ApiFault as fault:
            if fault.passing:
                raise
            raise RegistrationRefused(f"{fault.status} {fault.code}") from fault
        return True

    async def _resume(self) -> bool:
        """The box may have said at its last stop that it takes no more jobs."""
        try:
            await self.tools.api.resume()
        except ApiFault as fault:
            if not fault.forbidden:
                raise
            await self._start_over()
        return True

    async def _keep(self, answer: RegisterAnswer) -> None:
        self._mine = Credentials(
            api_url=self.tools.config.api_url,
            worker_id=answer.worker_id,
            token=answer.token,
            expires_at=answer.expires_at,
            heartbeat_seconds=answer.heartbeat_seconds,
            lease_seconds=answer.lease_seconds,
        )
        # Stored before it is used: the first use ends the old one.
        await asyncio.to_thread(self.credentials.write, self._mine)
        self.tools.api.token = answer.token

    async def _renew_when_due(self) -> bool:
        if seconds_until(self._credentials().expires_at, self.tools.clock()) > RENEW_BEFORE_SECONDS:
            return True
        try:
            await self._keep(await self.tools.api.renew())
        except ApiFault as fault:
            if not fault.forbidden:
                raise
            await self._start_over()
        return True

    async def _start_over(self) -> None:
        """The token is not accepted (revoked, or the API's data is new): register again."""
        structlog.get_logger("worker").warning("token_refused")
        self._mine = None
        self.tools.api.token = None
        await asyncio.to_thread(self.credentials.delete)
        await self._register()

    def _credentials(self) -> Credentials:
        if self._mine is None:
            raise RegistrationRefused("not registered")
        return self._mine

    # --- claiming ---

    async def _claim(self) -> ClaimedJob | None:
        claim = asyncio.create_task(self.tools.api.claim(self.tools.config.claim_seconds))
        leave = asyncio.create_task(self.shutdown.wait())
        try:
            await asyncio.wait({claim, leave}, return_when=asyncio.FIRST_COMPLETED)
            if not claim.done():
                await self._end_claim(claim)
                raise Stopped
            return claim.result()
        except ApiFault as fault:
            if not fault.forbidden:
                raise
            await self._start_over()
            return None
        finally:
            for task in (claim, leave):
                task.cancel()
            await asyncio.gather(claim, leave, return_exceptions=True)

    async def _end_claim(self, claim: asyncio.Task[ClaimedJob | None]) -> None:
        """Draining ends the long poll; a job that slipped in goes straight back."""
        with contextlib.suppress(ApiFault, TimeoutError):
            await self.tools.api.drain()
            async with asyncio.timeout(_DRAIN_SECONDS):
                job = await claim
            if job is not None:
                await self.tools.api.report(
                    job.id, GiveBackRequest(epoch=job.epoch), self._backoff(), attempts=2
                )

    async def _leave(self) -> None:
        if self.tools.api.token is not None:
            with contextlib.suppress(ApiFault, TimeoutError):
                async with asyncio.timeout(_DRAIN_SECONDS):
                    await self.tools.api.drain()

    # --- ComfyUI ---

    async def _pass_gate(self) -> GateReport:
        config = self.tools.config
        await asyncio.to_thread(self.files.prune)
        report = await gpu_health_check(
            self.tools.comfy,
            self.tools.graphs,
            wanted=config.graphs,
            gate_graph=config.gate_graph,
            models=config.models,
            limit_seconds=config.gate_seconds,
            monotonic=self.tools.monotonic,
        )
        log = structlog.get_logger("worker.gate")
        for check in report.checks:
            log.info("checked", check=check.name, passed=check.passed, seen=check.seen)
        if not report.passed:
            raise GateClosed(report.reason)
        return report

    async def _look_after_comfyui(self, run: JobRun, end: JobEnd) -> None:
        """After each job: recycle when due, and take no job before the server is well again."""
        broken = run.fault is not None and run.fault.failure == "infrastructure"
        wants_restart = run.fault is not None and run.fault.restart
        if wants_restart or await self._is_worn():
            restarted = await self.process.restart()
            structlog.get_logger("worker").info("comfyui_recycled", restarted=restarted)
            self._jobs_since_restart = 0
            broken = broken or restarted
        if broken:
            self._gate = await self._until_ready(self._comfyui_well)
        elif end is not JobEnd.COMPLETED:
            await self._until_ready(self._comfyui_idle)

    async def _is_worn(self) -> bool:
        config = self.tools.config
        if config.recycle_jobs and self._jobs_since_restart >= config.recycle_jobs:
            return True
        rss = await self.process.rss_bytes() if config.recycle_rss_mb else None
        return rss is not None and rss > config.recycle_rss_mb * 1048576

    async def _comfyui_idle(self) -> bool:
        await self.tools.comfy.clear()
        view = await self.tools.comfy.queue()
        if view.running or view.pending:
            raise GateClosed("ComfyUI has not let go of an earlier picture")
        return True

    async def _comfyui_well(self) -> GateReport:
        await self._comfyui_idle()
        return replace(await self._pass_gate())

    # --- waiting ---

    async def _until_ready(self, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """Try until it works, waiting longer each time. Raises `Stopped` on shutdown."""
        backoff = self._backoff()
        while not self.shutdown.is_set():
            try:
                return await attempt()
            except (ApiFault, ComfyFault, GateClosed) as fault:
                wait = backoff.next_seconds(getattr(fault, "retry_after_seconds", 0.0))
                structlog.get_logger("worker").warning(
                    "waiting",
                    step=getattr(attempt, "__name__", "?"),
                    reason=str(fault)[:200],
                    seconds=round(wait, 2),
                )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self.shutdown.wait()
        raise Stopped

    def _backoff(self) -> Backoff:
        return Backoff(self.tools.jitter, first_seconds=0.3, longest_seconds=15.0)


class GateClosed(Exception):
    """This box may not work yet."""
