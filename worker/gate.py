"""The gate: a worker proves that it can make the images that are sold before it may claim a job."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from worker.comfyui.client import ComfyClient
from worker.comfyui.faults import ComfyFault, understood
from worker.comfyui.library import Graph, GraphLibrary
from worker.comfyui.run import GraphRun, RunProgress
from worker.models import ModelFiles
from worker.pictures import gate_sketch, looks_blank

_SIZE = 256
_GENERATION = "generation"
_MEMORY_LOOKS = 10
_MEMORY_PAUSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Check:
    """One check: what was asked, whether it passed, what was seen, and of which graph it speaks."""

    name: str
    passed: bool
    seen: str
    graph: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GateReport:
    """All checks, and what the worker turned out to be."""

    checks: tuple[Check, ...]
    required: tuple[str, ...] = ()
    """The graphs that this worker is there for."""
    graphs: tuple[str, ...] = ()
    """The graphs that passed all their checks: these may be offered."""
    gpu: str = "unknown"
    vram_mb: int = 0
    painted: tuple[str, ...] = ()
    """The graphs that made a picture."""
    marker: str | None = None
    """The prompt id of a picture that ComfyUI made: it knows it until it is restarted."""

    @property
    def passed(self) -> bool:
        """Whether the worker may begin: everything that it is there for works."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def reached(self) -> bool:
        """Whether ComfyUI answered."""
        return len(self.checks) > 1

    @property
    def sells(self) -> bool:
        """Whether a worker that has begun may go on: some of what it is there for still works."""
        return any(label in self.graphs for label in self.required)

    @property
    def paints(self) -> bool:
        """Whether no picture failed that was tried."""
        return all(check.passed for check in self.checks if check.name.startswith(_GENERATION))

    @property
    def reason(self) -> str:
        """What did not pass, in one line."""
        return "; ".join(f"{check.name}: {check.seen}" for check in self.checks if not check.passed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Asks whether ComfyUI is there, whether graphs, models and memory fit, and makes pictures.

    Every graph that is sold must fit and make one picture; with `wanted`, each of those instead. Graphs
    that are not sold are offered where they fit, and prove nothing. `gate_graph` makes that graph's
    picture the only one. A picture must be done within `limit_seconds` once the models are loaded, for
    which it has `cold_seconds`. `models` checks digests where graphs declare them.
    """

    comfy: ComfyClient
    graphs: GraphLibrary
    wanted: Sequence[str] = ()
    gate_graph: str | None = None
    models: ModelFiles | None = None
    limit_seconds: float = 120.0
    cold_seconds: float = 600.0
    monotonic: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def __call__(self, suspects: Collection[str] = ()) -> GateReport:
        """Check everything. The `suspects`, graphs that have just failed, must make a picture in any case."""
        required = tuple(self.wanted) or tuple(
            label for label in self.graphs.labels() if self.graphs.get(label).sold
        )
        try:
            stats = await self.comfy.system_stats()
            info = await self.comfy.object_info()
        except ComfyFault as fault:
            found = Check("comfyui_reachable", passed=False, seen=fault.detail)
            return GateReport(checks=(found,), required=required)
        system = stats.get("system")
        version = system.get("comfyui_version", "?") if isinstance(system, dict) else "?"
        checks = [Check("comfyui_reachable", passed=True, seen=f"version {version}")]
        for label in self.graphs.labels():
            needed = label in required or label in suspects
            if needed or not self.wanted:
                checks += await self._fitting(self.graphs.get(label), info, needed=needed)
        marker = None
        for label in self._pictures(required, suspects, _passing(checks)):
            picture, marker = await self._generation(self.graphs.get(label))
            checks.append(picture)
        offered = tuple(label for label in self.graphs.labels() if label in _passing(checks))
        if not any(label in offered for label in required):
            checks.append(Check("graphs_offered", passed=False, seen="nothing that is sold"))
        device: dict[str, Any] = next(iter(stats.get("devices", ())), {})
        return GateReport(
            checks=tuple(checks),
            required=required,
            graphs=offered,
            gpu=str(device.get("name", "unknown"))[:120],
            vram_mb=_megabytes(device.get("vram_total")),
            painted=tuple(check.graph for check in checks if check.graph and _is_picture(check)),
            marker=marker,
        )

    def _pictures(
        self, required: Sequence[str], suspects: Collection[str], fitting: Collection[str]
    ) -> list[str]:
        wanted = set(suspects) | (
            {self.gate_graph} if self.gate_graph in self.graphs.labels() else {*required}
        )
        return [label for label in self.graphs.labels() if label in wanted and label in fitting]

    async def _fitting(self, graph: Graph, info: Mapping[str, Any], *, needed: bool) -> list[Check]:
        """Checks of a graph that is needed; one that is not needed is passed over where it does not fit."""
        complaints = graph.complaints(info)
        if complaints and not needed:
            return []
        label = graph.label
        checks = [Check(f"graph {label}", not complaints, "; ".join(complaints[:8]), label)]
        if self.models is not None and graph.sha256 and not complaints:
            wrong = await asyncio.to_thread(self.models.complaints, graph.sha256)
            checks.append(Check(f"models {label}", not wrong, "; ".join(wrong), label))
        if graph.vram_mb and not complaints:
            checks += await self._memory(graph)
        return checks

    async def _memory(self, graph: Graph) -> list[Check]:
        """Whether the GPU has room, once ComfyUI has let go of what it keeps loaded. A CPU has no GPU memory."""
        name, free = f"memory {graph.label}", 0
        for look in range(_MEMORY_LOOKS):
            try:
                stats = await self.comfy.system_stats()
                with understood("/system_stats"):
                    device: dict[str, Any] = next(iter(stats.get("devices", ())), {})
                    if device.get("type") == "cpu":
                        return []
                    free = _megabytes(device.get("vram_free"))
                if free >= graph.vram_mb:
                    break
                if look == 0:
                    await self.comfy.free()
            except ComfyFault as fault:
                return [Check(name, passed=False, seen=fault.detail, graph=graph.label)]
            await self.sleep(_MEMORY_PAUSE_SECONDS)
        seen = f"{free} MB free, {graph.vram_mb} MB needed"
        return [Check(name, free >= graph.vram_mb, seen, graph.label)]

    async def _generation(self, graph: Graph) -> tuple[Check, str | None]:
        """One picture, and where loading the models made it slow, another one."""
        name, seen = f"{_GENERATION} {graph.label}", ""
        marker: str | None = None
        for limit in (self.cold_seconds + self.limit_seconds, self.limit_seconds):
            began = self.monotonic()
            try:
                marker, image = await self._picture(graph, limit)
            except ComfyFault as fault:
                return Check(name, False, f"{fault.code}: {fault.detail}", graph.label), None
            if await asyncio.to_thread(looks_blank, image):
                return Check(name, False, "the image is blank", graph.label), None
            took = self.monotonic() - began
            seen = f"{seen}, then {took:.1f} s" if seen else f"{took:.1f} s"
            if took <= self.limit_seconds:
                return Check(name, True, seen, graph.label), marker
        return Check(name, False, f"too slow: {seen}", graph.label), marker

    async def _picture(self, graph: Graph, limit_seconds: float) -> tuple[str, bytes]:
        marker = str(self.comfy.new_id())
        sketch = await self.comfy.upload(gate_sketch(_SIZE), f"llamasketch-gate-{marker}.png")
        values = {
            "prompt": "a quiet meadow",
            "seed": self.comfy.new_id().int % 2**32,
            "width": _SIZE,
            "height": _SIZE,
            "sketch": sketch.reference,
            "filename_prefix": f"llamasketch/gate-{marker}",
        }
        result = await GraphRun(self.comfy)(
            graph.fill(values),
            graph.output,
            _ignore,
            prompt_id=marker,
            limit_seconds=limit_seconds,
            cold_seconds=self.cold_seconds,
        )
        return marker, result.images[0]


def _is_picture(check: Check) -> bool:
    return check.passed and check.name.startswith(_GENERATION)


def _passing(checks: Sequence[Check]) -> set[str]:
    """The graphs that were checked, and passed."""
    failed = {check.graph for check in checks if not check.passed}
    return {check.graph for check in checks if check.graph is not None} - failed


def _megabytes(count: Any) -> int:
    return count // 1048576 if isinstance(count, int) else 0


def _ignore(progress: RunProgress) -> None:
    """The gate watches the end only."""
