"""The boot gate and model files: a worker without the right ones claims nothing, and says which are missing."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from structlog.testing import capture_logs

from tests.waiting import SECONDS_MAX, eventually
from tests.worker.comfyui.server import ComfyServer
from tests.worker.conftest import StartWorker
from tests.worker.gateway import FakeGateway
from worker.comfyui.client import ComfyClient
from worker.comfyui.library import Graph, GraphLibrary, load_graphs
from worker.gate import Gate, GateReport
from worker.models import ModelFiles

UNET = "flux-2-klein-4b-fp8.safetensors"
CONTENT = b"weights" * 1000


class Unequipped(ComfyClient):
    """A server that has all nodes, and model files only once they are delivered."""

    missing: frozenset[str] = frozenset({UNET})

    async def object_info(self) -> Any:
        info = await super().object_info()
        loader = info["UNETLoader"]["input"]["required"]["unet_name"]
        loader[0] = [name for name in loader[0] if name not in self.missing]
        return info


async def gate(
    comfyui: ComfyServer,
    *,
    kind: type[ComfyClient] = ComfyClient,
    graphs: GraphLibrary | None = None,
    **more: Any,
) -> GateReport:
    async with httpx.AsyncClient(trust_env=False) as http:
        given: dict[str, Any] = {"gate_graph": "invert@1"} | more
        checked = Gate(
            comfy=kind(comfyui.url, http),
            graphs=graphs or load_graphs(),
            monotonic=time.monotonic,
            **given,
        )
        return await checked()


def declaring(content: bytes) -> GraphLibrary:
    """The sketch graph, with the digest of one of its files."""
    graph: Graph = load_graphs().get("sketch@1")
    digest = hashlib.sha256(content).hexdigest()
    return GraphLibrary({graph.label: msgspec.structs.replace(graph, sha256={UNET: digest})})


def delivered(folder: Path, content: bytes = CONTENT) -> Path:
    file = folder / "diffusion_models" / UNET
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


@pytest.mark.parametrize("wanted", [(), ("sketch@1",), ("invert@1", "sketch@1")])
async def test_a_missing_model_file_closes_the_gate_and_is_named(
    comfyui: ComfyServer, wanted: tuple[str, ...]
) -> None:
    report = await gate(comfyui, kind=Unequipped, wanted=wanted)
    assert not report.passed
    assert f"graph sketch@1: model file '{UNET}' is missing for UNETLoader.unet_name" in report.reason


async def test_a_worker_that_is_not_meant_for_that_graph_passes_without_its_files(
    comfyui: ComfyServer,
) -> None:
    report = await gate(comfyui, kind=Unequipped, wanted=("invert@1",))
    assert (report.passed, report.graphs) == (True, ("invert@1",))


async def test_nothing_is_claimed_until_the_files_are_there(
    gateway: FakeGateway, start_worker: StartWorker, comfyui: ComfyServer
) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        server = Unequipped(comfyui.url, http)
        with capture_logs() as reported:
            await start_worker(gate_graph="invert@1", comfy=server)
            await eventually(
                lambda: any(line["event"] == "waiting" and UNET in line["reason"] for line in reported),
                "the worker says what it waits for",
            )
        assert not gateway.calls
        server.missing = frozenset()
        async with asyncio.timeout(SECONDS_MAX):
            await gateway.claiming.wait()
    assert gateway.registrations[0].capabilities.graphs == ["invert@1", "sketch@1"]


async def test_a_file_with_the_right_name_and_the_wrong_bytes_closes_the_gate(
    comfyui: ComfyServer, tmp_path: Path
) -> None:
    models = ModelFiles(tmp_path / "models", tmp_path / "state")
    file = delivered(tmp_path / "models", CONTENT[:-1])
    report = await gate(comfyui, graphs=declaring(CONTENT), models=models)
    assert not report.passed
    assert f"model file {file} is not what it should be" in report.reason
    delivered(tmp_path / "models")
    assert (await gate(comfyui, graphs=declaring(CONTENT), models=models)).passed


async def test_a_declared_file_that_is_not_in_the_folder_is_named(
    comfyui: ComfyServer, tmp_path: Path
) -> None:
    models = ModelFiles(tmp_path, tmp_path / "state")
    report = await gate(comfyui, graphs=declaring(CONTENT), models=models)
    assert f"model file '{UNET}' is not under {tmp_path}" in report.reason


def test_a_file_is_read_again_only_if_its_size_or_time_changed(tmp_path: Path) -> None:
    state = tmp_path / "state"
    file = delivered(tmp_path / "models")
    declared = {UNET: hashlib.sha256(CONTENT).hexdigest()}
    assert ModelFiles(tmp_path / "models", state).complaints(declared) == []
    # Other bytes under the same size and time: only a second reading could tell.
    was = file.stat()
    file.write_bytes(CONTENT[::-1])
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert ModelFiles(tmp_path / "models", state).complaints(declared) == []
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns + 1))
    assert len(ModelFiles(tmp_path / "models", state).complaints(declared)) == 1
    (state / "model-digests.json").write_text("{half a fi")
    assert len(ModelFiles(tmp_path / "models", state).complaints(declared)) == 1


def test_a_name_does_not_lead_out_of_the_models_folder(tmp_path: Path) -> None:
    file = delivered(tmp_path / "elsewhere")
    (tmp_path / "models" / "vae").mkdir(parents=True)
    models = ModelFiles(tmp_path / "models", tmp_path / "state")
    for name in (str(file), f"../elsewhere/diffusion_models/{UNET}"):
        found = models.complaints({name: hashlib.sha256(CONTENT).hexdigest()})
        assert found == [f"model file '{name}' is not under {tmp_path / 'models'}"]


def test_a_graph_cannot_declare_digests_of_files_it_does_not_use(tmp_path: Path) -> None:
    graph = msgspec.to_builtins(load_graphs().get("sketch@1"))
    (tmp_path / "sketch@1.json").write_bytes(msgspec.json.encode(graph | {"sha256": {"other": "0" * 64}}))
    with pytest.raises(ValueError, match="does not use"):
        load_graphs(tmp_path)
    (tmp_path / "sketch@1.json").write_bytes(msgspec.json.encode(graph | {"sha256": {UNET: "short"}}))
    with pytest.raises(msgspec.ValidationError):
        load_graphs(tmp_path)
