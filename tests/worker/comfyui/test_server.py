"""What the recordings do not show: handshakes, previews, controls, how the process ends."""

from __future__ import annotations

import json
import struct
import time
import uuid
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest

from sandbox.comfyui.service import describe
from sandbox.service import HttpReady
from tests.worker.comfyui.server import ComfyServer
from tests.worker.comfyui.test_client import sleeping_graph


async def first_preview(comfyui: ComfyServer, handshake: dict[str, Any] | None) -> tuple[int, bytes, str]:
    client_id = uuid.uuid4().hex
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(f"{comfyui.url}/ws?clientId={client_id}") as socket,
    ):
        if handshake is not None:
            await socket.send_json(handshake)
            while (await socket.receive_json())["type"] != "feature_flags":
                pass
        body = {"prompt": sleeping_graph(0.0, preview=True), "client_id": client_id}
        async with http.post(f"{comfyui.url}/prompt", json=body) as answer:
            prompt_id = (await answer.json())["prompt_id"]
        while (message := await socket.receive(10)).type is not aiohttp.WSMsgType.BINARY:
            pass
        return struct.unpack(">I", message.data[:4])[0], message.data[4:], prompt_id


async def test_previews_carry_their_prompt_only_after_the_handshake(comfyui: ComfyServer) -> None:
    kind, content, _ = await first_preview(comfyui, None)
    assert (kind, struct.unpack(">I", content[:4])[0], content[4:6]) == (1, 1, b"\xff\xd8")
    flags = {"type": "feature_flags", "data": {"supports_preview_metadata": True}}
    kind, content, prompt_id = await first_preview(comfyui, flags)
    size = struct.unpack(">I", content[:4])[0]
    metadata = json.loads(content[4 : 4 + size])
    assert (kind, metadata["prompt_id"], metadata["image_type"]) == (4, prompt_id, "image/jpeg")
    assert content[4 + size :].startswith(b"\xff\xd8")


async def test_the_same_id_and_number_twice_answers_500_and_queues_both(comfyui: ComfyServer) -> None:
    async with httpx.AsyncClient(base_url=comfyui.url) as http:
        await http.post("/prompt", json={"prompt": sleeping_graph(30.0)})
        twice = {"prompt_id": str(uuid.uuid4()), "number": 999}
        first = await http.post("/prompt", json={**twice, "prompt": sleeping_graph(0.0)})
        second = await http.post("/prompt", json={**twice, "prompt": sleeping_graph(0.1)})
        pending = (await http.get("/queue")).json()["queue_pending"]
        await http.post("/queue", json={"clear": True})
        await http.post("/interrupt", json={})
    assert (first.status_code, second.status_code) == (200, 500)
    assert [item[1] for item in pending] == [twice["prompt_id"]] * 2


@pytest.mark.parametrize(
    "path", ["/queue", "/history", "/system_stats", "/object_info", "/features", "/prompt"]
)
async def test_every_route_has_its_alias_under_api(comfyui: ComfyServer, path: str) -> None:
    plain, alias = (httpx.get(comfyui.url + prefix + path) for prefix in ("", "/api"))
    assert plain.status_code == alias.status_code == 200
    assert type(plain.json()) is type(alias.json()) is dict


async def test_object_info_describes_one_node_or_none(comfyui: ComfyServer) -> None:
    info = httpx.get(f"{comfyui.url}/object_info/SaveImage").json()["SaveImage"]
    assert info["output_node"] is True
    assert info["input"]["required"]["images"][0] == "IMAGE"
    assert httpx.get(f"{comfyui.url}/object_info/Nope").json() == {}


async def test_an_unknown_fault_is_refused_and_changes_nothing(comfyui: ComfyServer) -> None:
    answer = httpx.post(f"{comfyui.url}/sandbox/faults", json={"oom": 1, "fire": 1})
    assert answer.status_code == 400
    assert "`fire`" in answer.json()["error"]
    assert httpx.get(f"{comfyui.url}/sandbox/faults").json()["oom"] == 0


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", ""])
async def test_files_outside_the_folders_are_not_shown(comfyui: ComfyServer, name: str) -> None:
    assert httpx.get(f"{comfyui.url}/view", params={"filename": name}).status_code == 400


async def test_its_port_is_closed_while_it_starts(tmp_path: Path) -> None:
    server = ComfyServer(tmp_path, "--boot-seconds", "1.5")
    began = time.monotonic()
    await server.start()
    assert time.monotonic() - began >= 1.5
    server.kill()


async def test_it_stops_cleanly_on_sigterm_even_while_painting(tmp_path: Path) -> None:
    server = ComfyServer(tmp_path)
    await server.start()
    httpx.post(f"{server.url}/prompt", json={"prompt": sleeping_graph(60.0)})
    assert server.stop() == 0


def test_the_service_says_how_to_reach_it(tmp_path: Path) -> None:
    service = describe(tmp_path, lambda _: 4711)
    assert service.environment["COMFYUI_URL"] == "http://127.0.0.1:4711"
    assert service.ready == HttpReady("http://127.0.0.1:4711/sandbox/health")
