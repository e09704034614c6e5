"""A machine that loses a node or a model after it began: its jobs go elsewhere, and it offers only what works."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import pytest

from tests.waiting import SECONDS_MAX, eventually
from tests.worker.comfyui.pictures import sketch
from tests.worker.comfyui.server import ComfyServer
from tests.worker.conftest import StartWorker
from tests.worker.gateway import FakeGateway
from worker.comfyui.client import ComfyClient
from worker.comfyui.library import load_graphs
from worker.gate import Gate

VAE = "flux2-vae.safetensors"


@pytest.mark.parametrize(
    ("lost", "code"),
    [
        ({"lost_nodes": ["Flux2Scheduler"]}, "graph_refused"),
        ({"lost_models": [VAE]}, "graph_refused"),
        ({"corrupt_models": [VAE]}, "node_failed"),
    ],
    ids=str,
)
async def test_a_worker_that_lost_a_node_or_a_model_fails_one_job_and_then_offers_nothing(
    gateway: FakeGateway,
    start_worker: StartWorker,
    comfyui: ComfyServer,
    lost: dict[str, list[str]],
    code: str,
) -> None:
    await start_worker(gate_graph="invert@1")
    await asyncio.wait_for(gateway.claiming.wait(), SECONDS_MAX)
    comfyui.faults(**lost)
    await comfyui.forget()
    gateway.claiming.clear()
    for n in range(3):
        gateway.offer(sketch(), job_id=f"job_{n}")
    what, report = await gateway.report()
    assert (what, report.failure, report.code) == ("fail", "infrastructure", code)
    await eventually(lambda: gateway.offers == [[]], "it says that it can run nothing")
    assert gateway.jobs.qsize() == 2, "the other jobs are left to other workers"
    comfyui.faults(reset=True)
    await eventually(lambda: len(gateway.offers) == 2, "it offers its graphs again")
    assert gateway.offers[-1] == ["invert@1", "sketch@1"]
    assert (await gateway.report())[0] == "complete"


async def test_a_failure_that_says_nothing_about_the_machine_withdraws_no_graph(
    gateway: FakeGateway, start_worker: StartWorker, comfyui: ComfyServer
) -> None:
    await start_worker(gate_graph="invert@1")
    await asyncio.wait_for(gateway.claiming.wait(), SECONDS_MAX)
    comfyui.faults(error_next=1)
    gateway.offer(sketch())
    _, report = await gateway.report()
    assert (report.failure, report.code) == ("infrastructure", "node_failed")
    gateway.offer(sketch(), job_id="job_2")
    assert (await gateway.report())[0] == "complete"
    assert gateway.offers == []


async def test_a_restarted_worker_says_again_what_it_can_run(
    gateway: FakeGateway, start_worker: StartWorker
) -> None:
    worker, task = await start_worker(gate_graph="invert@1")
    await asyncio.wait_for(gateway.claiming.wait(), SECONDS_MAX)
    worker.shutdown.set()
    await task
    gateway.claiming.clear()
    await start_worker(registration_token=None, gate_graph="invert@1", graphs=("sketch@1",))
    await asyncio.wait_for(gateway.claiming.wait(), SECONDS_MAX)
    assert gateway.offers == [["sketch@1"]]


@pytest.mark.parametrize("what", ["refuses", "is slow"])
async def test_a_worker_that_cannot_send_images_claims_nothing(
    gateway: FakeGateway, start_worker: StartWorker, what: str
) -> None:
    gateway.store_is_deaf = what == "is slow"
    gateway.failing["trial"] = 2 if what == "refuses" else 0
    await start_worker(gate_graph="invert@1", upload_seconds=0.5)
    await eventually(lambda: gateway.calls["trial"] >= 2, "it tries again")
    assert gateway.calls["claim"] == 0
    gateway.store_is_deaf = False
    await asyncio.wait_for(gateway.claiming.wait(), SECONDS_MAX)


async def test_a_gpu_without_the_memory_that_a_graph_needs_does_not_pass(comfyui: ComfyServer) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        server = Crowded(comfyui.url, http)
        crowded = await Gate(
            comfy=server, graphs=load_graphs(), gate_graph="invert@1", monotonic=time.monotonic, sleep=at_once
        )()
        assert "memory sketch@1: 2048 MB free, 8192 MB needed" in crowded.reason
        server.after_free_mb = 20_000
        roomy = await Gate(
            comfy=server, graphs=load_graphs(), gate_graph="invert@1", monotonic=time.monotonic, sleep=at_once
        )()
    assert roomy.passed, "what ComfyUI itself kept loaded does not count"


async def test_a_gate_whose_picture_is_slow_paints_a_second_one_with_warm_models(
    comfyui: ComfyServer,
) -> None:
    times = iter([0.0, 300.0, 300.0, 302.0, 400.0, 550.0, 550.0, 690.0])
    async with httpx.AsyncClient(trust_env=False) as http:
        gate = Gate(
            comfy=ComfyClient(comfyui.url, http),
            graphs=load_graphs().only(["sketch@1"]),
            monotonic=lambda: next(times),
        )
        cold, slow = await gate(), await gate()
    assert (cold.passed, cold.checks[-1].seen) == (True, "300.0 s, then 2.0 s")
    assert (slow.passed, slow.painted) == (False, ())
    assert "too slow: 150.0 s, then 140.0 s" in slow.reason


class Crowded(ComfyClient):
    """A server whose GPU is full, until it lets go of what it keeps."""

    free_mb = 2_048
    after_free_mb = 2_048

    async def system_stats(self) -> dict[str, Any]:
        gpu = {"name": "RTX", "type": "cuda", "vram_total": 24_576 << 20, "vram_free": self.free_mb << 20}
        return await super().system_stats() | {"devices": [gpu]}

    async def free(self) -> None:
        await super().free()
        self.free_mb = self.after_free_mb


async def at_once(seconds: float) -> None:
    """Time need not pass here."""
