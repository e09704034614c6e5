"""`python -m worker` as a process: what it logs, how it ends."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import msgspec

from tests.waiting import SECONDS_MAX, eventually
from tests.worker.comfyui.pictures import sketch
from tests.worker.comfyui.server import ComfyServer
from tests.worker.gateway import ONE_TIME_TOKEN, FakeGateway
from tests.worker.program import program
from worker.comfyui.library import load_graphs


def settings(gateway: FakeGateway, comfyui: ComfyServer, folder: Path) -> dict[str, str]:
    return {
        "LLAMASKETCH_API_URL": gateway.url,
        "LLAMASKETCH_WORKER_REGISTRATION_TOKEN": ONE_TIME_TOKEN,
        "LLAMASKETCH_WORKER_DATA_DIR": str(folder / "worker"),
        "LLAMASKETCH_WORKER_GATE_GRAPH": "invert@1",
        "COMFYUI_URL": comfyui.url,
        "COMFYUI_FOLDER": str(comfyui.folder),
    }


async def test_the_program_works_logs_json_without_secrets_and_stops_on_sigterm(
    gateway: FakeGateway, comfyui: ComfyServer, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    gateway.offer(sketch(), inputs={"prompt": "a very private llama"})
    with program(log, settings(gateway, comfyui, tmp_path)) as process:
        assert (await gateway.report())[0] == "complete"
        process.send_signal(signal.SIGTERM)
        await eventually(lambda: process.poll() is not None, "the worker ended")
        assert process.returncode == 0
    text = log.read_text()
    events = {msgspec.json.decode(line)["event"] for line in text.splitlines()}
    assert {"ready", "job_ended", "checked"} <= events
    for secret in ("private", ONE_TIME_TOKEN, *gateway.tokens):
        assert secret not in text


async def test_a_missing_setting_is_one_clear_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with program(log, {"LLAMASKETCH_API_URL": "", "COMFYUI_URL": ""}) as process:
        await eventually(lambda: process.poll() is not None, "the worker ended")
        assert process.returncode == 2
    assert len(log.read_text().splitlines()) == 1
    assert "api_url" in log.read_text()


async def test_a_second_worker_on_the_same_comfyui_is_refused_and_the_first_goes_on(
    gateway: FakeGateway, comfyui: ComfyServer, tmp_path: Path
) -> None:
    environment = settings(gateway, comfyui, tmp_path)
    with program(tmp_path / "log", environment):
        await asyncio.wait_for(gateway.claiming.wait(), SECONDS_MAX)
        second = environment | {"LLAMASKETCH_WORKER_DATA_DIR": str(tmp_path / "second")}
        with program(tmp_path / "second.log", second) as process:
            await eventually(lambda: process.poll() is not None, "the second one ended")
            assert process.returncode == 5
        assert "another worker drives the ComfyUI" in (tmp_path / "second.log").read_text()
        gateway.offer(sketch())
        assert (await gateway.report())[0] == "complete"


async def test_an_operator_adds_graphs_by_a_folder(
    gateway: FakeGateway, comfyui: ComfyServer, tmp_path: Path
) -> None:
    folder = tmp_path / "graphs"
    folder.mkdir()
    own = msgspec.to_builtins(load_graphs().get("invert@1")) | {"name": "poster", "version": 2, "sold": True}
    (folder / "poster@2.json").write_bytes(msgspec.json.encode(own))
    environment = settings(gateway, comfyui, tmp_path) | {"LLAMASKETCH_WORKER_GRAPHS_FOLDER": str(folder)}
    with program(tmp_path / "log", environment):
        gateway.offer(sketch(), graph="poster@2")
        assert (await gateway.report())[0] == "complete"
    assert gateway.registrations[0].capabilities.graphs == ["invert@1", "poster@2", "sketch@1"]
    (folder / "poster@2.json").write_text("{")
    with program(tmp_path / "log", environment) as process:
        await eventually(lambda: process.poll() is not None, "the worker ended")
        assert process.returncode == 2
    assert len((tmp_path / "log").read_text().splitlines()) == 1
    assert "poster@2.json" in (tmp_path / "log").read_text()


async def test_the_boot_gate_can_be_asked_alone(
    gateway: FakeGateway, comfyui: ComfyServer, tmp_path: Path
) -> None:
    environment = settings(gateway, comfyui, tmp_path)
    with program(tmp_path / "log", environment, "--check") as process:
        await eventually(lambda: process.poll() is not None, "the check ended")
        assert process.returncode == 0
    missing = environment | {"COMFYUI_URL": "http://127.0.0.1:9"}
    with program(tmp_path / "log", missing, "--check") as process:
        await eventually(lambda: process.poll() is not None, "the check ended")
        assert process.returncode == 4
    assert not gateway.calls
