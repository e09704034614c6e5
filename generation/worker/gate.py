"""The boot gate: a box proves that it can make images before it may claim a job."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from generation.comfyui.client import ComfyClient
from generation.comfyui.faults import ComfyFault
from generation.comfyui.library import Graph, GraphLibrary
from generation.comfyui.run import GraphRun, RunProgress
from generation.worker.models import ModelFiles
from generation.worker.pictures import gate_sketch, looks_blank

_SIZE = 256


@dataclass(frozen=True, slots=True)
class Check:
    """One check: what was asked, whether it passed, and what was seen."""

    name: str
    passed: bool
    seen: str


@dataclass(frozen=True, slots=True)
class GateReport:
    """All checks, and what the box turned out to be."""

    checks: tuple[Check, ...]
    graphs: tuple[str, ...] = ()
    gpu: str = "unknown"
    vram_mb: int = 0

    @property
    def passed(self) -> bool:
        """Whether the box may claim jobs."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def reason(self) -> str:
        """What did not pass, in one line."""
        return "; ".join(f"{check.name}: {check.seen}" for check in self.checks if not check.passed)


async def gpu_health_check(
    comfy: ComfyClient,
    graphs: GraphLibrary,
    *,
    wanted: Sequence[str] = (),
    gate_graph: str | None = None,
    models: ModelFiles | None = None,
    limit_seconds: float = 120.0,
    monotonic: Callable[[], float],
) -> GateReport:
    """Ask whether ComfyUI is there, whether graphs and models fit, and make one small image.

    With `wanted`, each of those graphs must fit; without, those that fit are offered and at
    least one must. Where only graphs without models fit and another lacks nothing but its model
    files, the box is not ready: it would register, and never get the work it is there for.
    `models` checks digests where graphs declare them. The image must be finished within `limit_seconds`.
    """
    try:
        stats = await comfy.system_stats()
        info = await comfy.object_info()
    except ComfyFault as fault:
        return GateReport((Check("comfyui_reachable", passed=False, seen=fault.detail),))
    version = stats.get("system", {}).get("comfyui_version", "?")
    checks = [Check("comfyui_reachable", passed=True, seen=f"version {version}")]
    offered, fits = await _fitting(graphs, wanted, info, models)
    checks += fits
    # Without the right files an image proves nothing.
    if offered and all(check.passed for check in checks):
        # The widest graph is the one worth testing: it loads the models.
        tested = (
            gate_graph if gate_graph in offered else max(offered, key=lambda one: len(graphs.get(one).graph))
        )
        checks.append(await _generation(comfy, graphs.get(tested), limit_seconds, monotonic))
    device: dict[str, Any] = next(iter(stats.get("devices", ())), {})
    vram_mb = int(device.get("vram_total", 0)) // 1048576
    return GateReport(tuple(checks), tuple(offered), str(device.get("name", "unknown"))[:120], vram_mb)


async def _fitting(
    graphs: GraphLibrary, wanted: Sequence[str], info: Mapping[str, Any], models: ModelFiles | None
) -> tuple[list[str], list[Check]]:
    """The graphs to offer, and a check for each graph that matters."""
    complaints = {label: graphs.get(label).complaints(info) for label in graphs.labels()}
    offered = [label for label, found in complaints.items() if not found and (not wanted or label in wanted)]
    needed = list(wanted)
    if not wanted and not any(graphs.get(label).models for label in offered):
        needed = [label for label in graphs.labels() if graphs.get(label).models_missing(info)]
    checks = []
    for label, found in complaints.items():
        if label in needed or label in offered:
            checks.append(Check(f"graph {label}", passed=not found, seen="; ".join(found[:8])))
    for label in offered if models is not None else ():
        declared = graphs.get(label).sha256
        if declared and models is not None:
            wrong = await asyncio.to_thread(models.complaints, declared)
            checks.append(Check(f"models {label}", passed=not wrong, seen="; ".join(wrong)))
    checks.append(Check("graphs_offered", passed=bool(offered), seen=", ".join(offered)))
    return offered, checks


async def _generation(
    comfy: ComfyClient, graph: Graph, limit_seconds: float, monotonic: Callable[[], float]
) -> Check:
    name = f"generation {graph.label}"
    began = monotonic()
    marker = comfy.new_id().hex
    try:
        sketch = await comfy.upload(gate_sketch(_SIZE), f"llamasketch-gate-{marker}.png")
        values = {
            "prompt": "a quiet meadow",
            "seed": comfy.new_id().int % 2**32,
            "width": _SIZE,
            "height": _SIZE,
            "sketch": sketch.reference,
            "filename_prefix": f"llamasketch/gate-{marker}",
        }
        result = await GraphRun(comfy)(graph.fill(values), graph.output, _ignore, limit_seconds=limit_seconds)
    except ComfyFault as fault:
        return Check(name, passed=False, seen=f"{fault.code}: {fault.detail}")
    took = monotonic() - began
    if await asyncio.to_thread(looks_blank, result.images[0]):
        return Check(name, passed=False, seen="the image is blank")
    return Check(name, passed=took <= limit_seconds, seen=f"{took:.1f} s")


def _ignore(progress: RunProgress) -> None:
    """The gate watches the end only."""
