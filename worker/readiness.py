"""Whether this machine may take jobs, and which: what its ComfyUI can do, and when it is restarted."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

import structlog

from worker.backoff import Backoff
from worker.comfyui.faults import ComfyFault
from worker.files import ComfyFiles
from worker.gate import Gate, GateReport
from worker.job import JobEnd, JobRun, Tools
from worker.process import ComfyProcess

TRIAL_BYTES = 2 * 1024 * 1024
"""About what an image of 1024 pixels a side has."""
RESTART_AFTER = 2
"""Times that a ComfyUI that answers makes no picture before it is restarted."""
_LOOK_AGAIN_SECONDS = 60.0
_LOOK_AGAIN_LONGEST_SECONDS = 900.0


class GateClosed(Exception):
    """This worker may not work yet."""


@dataclass(slots=True)
class Readiness:
    """Proves ComfyUI, again after each fault of the machine, and knows what it can do since."""

    tools: Tools
    process: ComfyProcess
    files: ComfyFiles
    report: GateReport | None = None
    suspects: frozenset[str] = frozenset()
    """Graphs that failed and have not made a picture since."""
    warmed: frozenset[str] = frozenset()
    """Graphs whose models are loaded: they made a picture since ComfyUI started."""
    _jobs_since_restart: int = 0
    _pictures_missed: int = 0
    _look_again_at: float = 0.0
    _look_again: Backoff | None = None

    @property
    def graphs(self) -> tuple[str, ...]:
        """What may be offered now."""
        return () if self.report is None else self.report.graphs

    async def prove(self) -> GateReport:
        """Pass the gate for the first time: everything must work. Raises `GateClosed`."""
        report = await self._examined()
        if not report.passed:
            self.report = None
            raise GateClosed(report.reason)
        return report

    async def prove_again(self) -> GateReport:
        """Pass the gate after a fault: what does not work any more is not offered. Raises `GateClosed`.

        It is closed only if nothing is left that is sold. Then nothing can be offered, unless it is only that
        ComfyUI cannot be reached: that passes, and people may queue meanwhile.
        """
        report = await self._examined()
        if not report.sells:
            if report.reached:
                self.report = None
            raise GateClosed(report.reason)
        return report

    async def _examined(self) -> GateReport:
        await self.idle()
        await asyncio.to_thread(self.files.prune)
        config = self.tools.config
        gate = Gate(
            comfy=self.tools.comfy,
            graphs=self.tools.graphs,
            wanted=config.graphs,
            gate_graph=config.gate_graph,
            models=config.models,
            limit_seconds=config.gate_seconds,
            cold_seconds=config.cold_seconds,
            monotonic=self.tools.monotonic,
        )
        report = await gate(self.suspects)
        log = structlog.get_logger("worker.gate")
        for check in report.checks:
            log.info("checked", check=check.name, passed=check.passed, seen=check.seen)
        self.warmed = frozenset(report.painted)
        await self._restart_what_makes_no_picture(report)
        if report.sells:
            self.report = report
            self.suspects = frozenset()
            if withdrawn := self.withdrawn:
                log.warning("graphs_withdrawn", graphs=list(withdrawn), reason=report.reason[:500])
                self._look_later()
        return report

    @property
    def withdrawn(self) -> tuple[str, ...]:
        """Graphs that this worker is there for and cannot run now."""
        report = self.report
        return () if report is None else tuple(x for x in report.required if x not in report.graphs)

    async def look_again(self) -> bool:
        """Whether graphs that were withdrawn came back; asked now and then, less often each time in vain."""
        if not self.withdrawn or self.tools.monotonic() < self._look_again_at:
            return False
        before = self.graphs
        self._look_later()
        info = await self.tools.comfy.object_info()
        if any(not self.tools.graphs.get(label).complaints(info) for label in self.withdrawn):
            self.suspects = frozenset(self.withdrawn)
            await self.prove_again()
        if not self.withdrawn:
            self._look_again = None
        return self.graphs != before

    def _look_later(self) -> None:
        self._look_again = self._look_again or Backoff(
            self.tools.jitter, _LOOK_AGAIN_SECONDS, _LOOK_AGAIN_LONGEST_SECONDS
        )
        self._look_again_at = self.tools.monotonic() + self._look_again.next_seconds()

    async def idle(self) -> bool:
        """Stop what is left of ours. Raises `GateClosed` while ComfyUI has not let go of it, or works for another."""
        await self.tools.comfy.clear()
        view = await self.tools.comfy.queue()
        if view.own:
            raise GateClosed("ComfyUI has not let go of an earlier picture")
        if view.running or view.pending:
            raise GateClosed("ComfyUI works for somebody else: another worker, or a person")
        return True

    async def restarted(self) -> bool:
        """Whether ComfyUI has started anew since the gate: it forgets all it made. Its models are cold then."""
        marker = None if self.report is None else self.report.marker
        return marker is not None and await self.tools.comfy.history(marker) is None

    async def is_cold(self, graph: str) -> bool:
        """Whether this graph's models are still to be loaded. If ComfyUI is away, the job finds out."""
        try:
            return graph not in self.warmed or await self.restarted()
        except ComfyFault:
            return True

    async def warm(self) -> bool:
        """Before each claim: a ComfyUI that was restarted passes the gate first. Whether it had to."""
        if not await self.restarted():
            return False
        structlog.get_logger("worker").info("comfyui_was_restarted")
        await self.prove_again()
        return True

    async def prove_upload(self) -> bool:
        """Send as much as an image may have, in time. Raises `GateClosed`, `ApiFault`."""
        began, limit = self.tools.monotonic(), self.tools.config.upload_seconds
        content = random.Random(0).randbytes(TRIAL_BYTES)
        try:
            await self.tools.api.trial_upload(content, limit)
        except TimeoutError:
            raise GateClosed(f"upload: {TRIAL_BYTES} bytes were not sent within {limit:g} s") from None
        took = round(self.tools.monotonic() - began, 1)
        structlog.get_logger("worker.gate").info("checked", check="upload", passed=True, seen=f"{took} s")
        return True

    # --- between jobs ---

    async def broken_by(self, run: JobRun, end: JobEnd) -> bool:
        """After each job: recycle when due; whether ComfyUI must prove itself before the next one."""
        self._jobs_since_restart += 1
        fault = run.fault
        if end is JobEnd.COMPLETED:
            self.warmed |= {run.job.graph}
        broken = fault is not None and fault.failure == "infrastructure"
        if broken:
            self.suspects |= {run.job.graph} & set(self.tools.graphs.labels())
        wants_restart = fault is not None and fault.restart
        if wants_restart or await self._is_worn():
            restarted = await self._restart()
            if not restarted and wants_restart:
                await self._make_room()
            broken = broken or restarted
        return broken

    async def _make_room(self) -> None:
        """A server that is not ours to restart can at least let go of its models."""
        try:
            await self.tools.comfy.free()
        except ComfyFault as fault:
            structlog.get_logger("worker").warning("comfyui_not_freed", reason=fault.detail[:200])

    async def _restart_what_makes_no_picture(self, report: GateReport) -> None:
        self._pictures_missed = 0 if report.paints else self._pictures_missed + 1
        if self._pictures_missed >= RESTART_AFTER:
            self._pictures_missed = 0
            await self._restart()

    async def _restart(self) -> bool:
        restarted = await self.process.restart()
        structlog.get_logger("worker").info("comfyui_recycled", restarted=restarted)
        self._jobs_since_restart = 0
        return restarted

    async def _is_worn(self) -> bool:
        config = self.tools.config
        if config.recycle_jobs and self._jobs_since_restart >= config.recycle_jobs:
            return True
        rss = await self.process.rss_bytes() if config.recycle_rss_mb else None
        return rss is not None and rss > config.recycle_rss_mb * 1048576
