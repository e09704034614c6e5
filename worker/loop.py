"""The worker's life: register, pass the gate, claim, work, recycle, leave politely."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import structlog

from worker.api import ApiFault, Quarantined, seconds_until
from worker.backoff import Backoff
from worker.cancelling import end_tasks
from worker.comfyui.faults import ComfyFault
from worker.credentials import CredentialFile, Credentials
from worker.job import JobEnd, JobRun, StorageUnreached, Tools
from worker.protocol import (
    PROTOCOL_VERSION,
    Capabilities,
    ClaimedJob,
    GiveBackRequest,
    GraphsRequest,
    RegisterAnswer,
    RegisterRequest,
    SelfTestRequest,
)
from worker.readiness import GateClosed, Readiness

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
    readiness: Readiness
    credentials: CredentialFile
    shutdown: asyncio.Event
    _mine: Credentials | None = None
    _offered: tuple[str, ...] | None = None
    """The graphs that the API knows of; None where that is not known."""

    async def run(self) -> None:
        """Until `shutdown`. Raises `RegistrationRefused`; everything else is waited out."""
        log = structlog.get_logger("worker")
        try:
            await self._until_ready(self.readiness.prove)
            await self._until_ready(self._register)
            await self._until_ready(self._offer)
            await self._until_ready(self.readiness.prove_upload)
            log.info("ready", worker_id=self._credentials().worker_id, graphs=list(self.readiness.graphs))
            while not self.shutdown.is_set():
                await self._serve_one()
        except Stopped:
            log.info("stopping")
        finally:
            await self._leave()

    async def _serve_one(self) -> None:
        await self._until_ready(self._renew_when_due)
        for look in (self.readiness.warm, self.readiness.look_again):
            if await self._until_ready(look):
                await self._until_ready(self._offer)
        job = await self._until_ready(self._claim)
        if isinstance(job, Quarantined):
            await self._in_quarantine(job)
            return
        if job is None:
            return
        cold = await self.readiness.is_cold(job.graph)
        run = JobRun(self.tools, job, self.shutdown, self._credentials().heartbeat_seconds, cold)
        end = await run()
        await asyncio.to_thread(self.readiness.files.delete, run.files)
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
        if self.tools.config.registration_token is None or self.readiness.report is None:
            raise RegistrationRefused("no valid worker token is stored and no registration token is given")
        report = self.readiness.report
        request = RegisterRequest(
            token=self.tools.config.registration_token,
            name=self.tools.config.name,
            version=WORKER_VERSION,
            protocol=PROTOCOL_VERSION,
            capabilities=Capabilities(graphs=list(report.graphs), gpu=report.gpu, vram_mb=report.vram_mb),
        )
        try:
            await self._keep(await self.tools.api.register(request))
            self._offered = report.graphs
        except ApiFault as fault:
            if fault.passing:
                raise
            raise RegistrationRefused(f"{fault.status} {fault.code}") from fault
        return True

    async def _resume(self) -> bool:
        """The worker may have said at its last stop that it takes no more jobs."""
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

    async def _in_quarantine(self, quarantined: Quarantined) -> None:
        """Wait until a test is due, or somebody trusts this worker again; then test and report."""
        if quarantined.test_in_seconds > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(quarantined.test_in_seconds, self.tools.config.claim_seconds)):
                    await self.shutdown.wait()
            return
        reason = await self._self_test()
        request = SelfTestRequest(passed=not reason, reason=reason[:500])
        answer = await self._until_ready(partial(self.tools.api.self_tested, request))
        structlog.get_logger("worker").info(
            "self_tested", passed=request.passed, state=answer.state, reason=reason[:200]
        )

    async def _self_test(self) -> str:
        """What is wrong; empty if a picture can be made and sent."""
        try:
            await self._comfyui_well_again()
            await self.readiness.prove_upload()
        except (ApiFault, ComfyFault, GateClosed) as fault:
            return str(fault) or type(fault).__name__
        return ""

    async def _claim(self) -> ClaimedJob | Quarantined | None:
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
            await end_tasks([claim, leave])

    async def _end_claim(self, claim: asyncio.Task[ClaimedJob | Quarantined | None]) -> None:
        """Draining ends the long poll; a job that slipped in goes straight back."""
        with contextlib.suppress(ApiFault, TimeoutError):
            await self.tools.api.drain()
            async with asyncio.timeout(_DRAIN_SECONDS):
                job = await claim
            if isinstance(job, ClaimedJob):
                await self.tools.api.report(
                    job.id, GiveBackRequest(epoch=job.epoch), self._backoff(), attempts=2
                )

    async def _leave(self) -> None:
        if self.tools.api.token is not None:
            with contextlib.suppress(ApiFault, TimeoutError):
                async with asyncio.timeout(_DRAIN_SECONDS):
                    await self.tools.api.drain()

    # --- ComfyUI ---

    async def _look_after_comfyui(self, run: JobRun, end: JobEnd) -> None:
        """After each job: take no other before ComfyUI is well again, and images can be sent."""
        if isinstance(run.fault, StorageUnreached):
            await self._until_ready(self.readiness.prove_upload)
        if await self.readiness.broken_by(run, end):
            await self._until_ready(self._comfyui_well_again)
        elif end is not JobEnd.COMPLETED:
            await self._until_ready(self.readiness.idle)

    async def _comfyui_well_again(self) -> bool:
        """Raises `GateClosed`; whatever the gate says, the API hears what can be offered."""
        try:
            await self.readiness.prove_again()
        finally:
            await self._offer()
        return True

    async def _offer(self) -> bool:
        """Tell the API what this worker can run, where that is not what it knows."""
        graphs = self.readiness.graphs
        if graphs != self._offered and self.tools.api.token is not None:
            await self.tools.api.offer(GraphsRequest(graphs=list(graphs)))
            self._offered = graphs
        return True

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
