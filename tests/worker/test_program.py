"""`python -m generation.worker` as a process: what it logs, how it ends."""

from __future__ import annotations

import signal
from pathlib import Path

import msgspec

from tests.generation.comfyui.pictures import sketch
from tests.generation.comfyui.server import ComfyServer
from tests.generation.worker.gateway import ONE_TIME_TOKEN, FakeGateway
from tests.generation.worker.program import program
from tests.waiting import eventually


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
