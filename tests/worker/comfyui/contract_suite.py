"""What the worker relies on in a ComfyUI server, as 0.25.0 and 0.33.0 do it. The stand-in and a real one pass the same tests.

Only node classes that every ComfyUI has, and no models.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.worker.comfyui.pictures import sketch
from worker.comfyui.client import ComfyClient, RetryPause
from worker.comfyui.faults import GraphRefused, NodeFailed, RunInterrupted, SketchRefused
from worker.comfyui.library import load_graphs
from worker.comfyui.run import GraphRun, RunProgress
from worker.comfyui.socket import Message, open_socket

Json = dict[str, Any]
INVERT = load_graphs().get("invert@1")
PROMPT_ID = {
    "type": "invalid_prompt_id",
    "message": "prompt_id must be a valid UUID",
    "details": "prompt_id must be a UUID string in canonical lowercase hyphenated form; "
    "omit it to let the server generate one",
    "extra_info": {},
}
OPTIONAL_AND_HIDDEN = {
    "SaveImage": {"hidden": ["prompt", "extra_pnginfo"]},
    "GetImageSize": {"hidden": ["unique_id"]},
    "CLIPLoader": {"optional": ["device"]},
    "ReferenceLatent": {"optional": ["latent"]},
    "ImageInvert": {},
}


def prompt_id() -> str:
    return str(uuid.uuid4())


def small(**nodes: Json) -> Json:
    """A graph that needs nothing, with some of its nodes replaced."""
    size = {"width": 64, "height": 64, "batch_size": 1, "color": uuid.uuid4().int % 2**24}
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": size},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "contract/x"}},
    }
    return graph | {name.removeprefix("n"): node for name, node in nodes.items()}


def slow() -> Json:
    """Some seconds of work, in many nodes: a server looks for an interrupt before each."""
    graph, before = small(), "1"
    graph["1"]["inputs"] |= {"width": 2048, "height": 2048}
    for number in range(100, 140):
        graph[str(number)] = {
            "class_type": "ImageScale",
            "inputs": {
                "image": [before, 0],
                "upscale_method": "lanczos",
                "width": 2048 - number % 2,
                "height": 2048,
                "crop": "disabled",
            },
        }
        before = str(number)
    graph["2"]["inputs"]["image"] = [before, 0]
    return graph


class ComfyContract:
    """Subclass it and give it a `url` fixture."""

    @pytest_asyncio.fixture
    async def http(self, url: str) -> AsyncIterator[httpx.AsyncClient]:
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as http:
            yield http

    @pytest.fixture
    def client(self, url: str, http: httpx.AsyncClient) -> ComfyClient:
        return ComfyClient(url, http, wait_max=RetryPause(request=60.0, poll=0.2, interrupt_pause=0.1))

    async def post(self, http: httpx.AsyncClient, graph: Any, **more: Any) -> httpx.Response:
        return await http.post("/prompt", json={"prompt": graph, "prompt_id": prompt_id(), **more})

    # --- prompts that are refused ---

    @pytest.mark.parametrize("title", [None, "My node"])
    async def test_an_unknown_class_is_a_missing_node_type(
        self, http: httpx.AsyncClient, title: str | None
    ) -> None:
        node: Json = {"class_type": "NoSuchNode", "inputs": {"image": ["1", 0]}}
        answer = await self.post(http, small(n2=node | ({"_meta": {"title": title}} if title else {})))
        name = title or "NoSuchNode"
        assert (answer.status_code, answer.json()["node_errors"]) == (400, {})
        assert answer.json()["error"] == {
            "type": "missing_node_type",
            "message": f"Node '{name}' not found. The custom node may not be installed.",
            "details": "Node ID '#2'",
            "extra_info": {"node_id": "2", "class_type": "NoSuchNode", "node_title": name},
        }

    async def test_a_node_without_a_class_is_one_too(self, http: httpx.AsyncClient) -> None:
        answer = await self.post(http, small(n2={"inputs": {}}))
        error = answer.json()["error"]
        assert (answer.status_code, error["type"]) == (400, "missing_node_type")
        assert error["message"].startswith("Node 'ID #2' has no class_type.")
        assert error["extra_info"] == {"node_id": "2", "class_type": None, "node_title": None}

    @pytest.mark.parametrize("wrong", ["abc", "", 5, "E1037478-62C0-4591-B4E3-3EB313F90211", "b" * 32])
    async def test_only_a_lowercase_uuid_names_a_prompt(self, http: httpx.AsyncClient, wrong: Any) -> None:
        answer = await self.post(http, small(), prompt_id=wrong)
        assert (answer.status_code, answer.json()) == (400, {"error": PROMPT_ID, "node_errors": {}})

    async def test_a_prompt_without_an_id_is_given_one(self, http: httpx.AsyncClient) -> None:
        answer = await self.post(http, small(), prompt_id=None)
        assert answer.status_code == 200
        given = answer.json()["prompt_id"]
        assert str(uuid.UUID(given)) == given

    @pytest.mark.parametrize(("body", "status"), [("{}", 400), ("[]", 400), ("{", 500), ("", 500)])
    async def test_a_body_that_is_no_prompt(self, http: httpx.AsyncClient, body: str, status: int) -> None:
        answer = await http.post("/prompt", content=body)
        assert answer.status_code == status
        if status == 400:
            assert answer.json()["error"]["type"] == "no_prompt"

    @pytest.mark.parametrize(
        ("nodes", "where", "kind"),
        [
            ({"n1": {"class_type": "LoadImage", "inputs": {"image": "nope.png"}}}, "1", "custom_validation_failed"),
            ({"n2": {"class_type": "ImageInvert", "inputs": {}}}, "2", "required_input_missing"),
            ({"n2": {"class_type": "ImageInvert", "inputs": {"image": ["77", 0]}}}, "2", "exception_during_inner_validation"),
        ],
    )  # fmt: skip
    async def test_what_does_not_fit_is_named_by_its_node(
        self, http: httpx.AsyncClient, nodes: dict[str, Json], where: str, kind: str
    ) -> None:
        answer = await self.post(http, small(**nodes))
        error, found = answer.json()["error"], answer.json()["node_errors"]
        assert (answer.status_code, error["type"]) == (400, "prompt_outputs_failed_validation")
        assert (error["details"], error["extra_info"]) == ("", {})
        assert [reason["type"] for reason in found[where]["errors"]] == [kind]
        assert found[where]["dependent_outputs"] == ["9"]

    async def test_the_client_calls_each_of_these_a_refusal_of_our_graph(self, client: ComfyClient) -> None:
        for graph in (small(n2={"class_type": "NoSuchNode", "inputs": {}}), small(n1={"inputs": {}})):
            with pytest.raises(GraphRefused):
                await client.submit(graph, prompt_id(), "contract")

    # --- what is there ---

    async def test_object_info_tells_required_optional_and_hidden_inputs_apart(
        self, http: httpx.AsyncClient
    ) -> None:
        info = (await http.get("/object_info")).json()
        for name, groups in OPTIONAL_AND_HIDDEN.items():
            declared = {group: list(inputs) for group, inputs in info[name]["input"].items()}
            assert {group: inputs for group, inputs in declared.items() if group != "required"} == groups, (
                name
            )
            assert info[name]["input_order"] == declared
        assert load_graphs().get("invert@1").complaints(info) == []

    async def test_system_stats_name_versions_and_memory(self, http: httpx.AsyncClient) -> None:
        stats = (await http.get("/system_stats")).json()
        assert {"comfyui_version", "argv", "deploy_environment", "comfy_package_versions"} <= set(
            stats["system"]
        )
        assert {"name", "type", "vram_total", "vram_free"} <= set(stats["devices"][0])

    async def test_models_can_be_unloaded(self, http: httpx.AsyncClient, client: ComfyClient) -> None:
        await client.free()
        answer = await http.post("/free", json={"unload_models": True, "free_memory": True})
        assert (answer.status_code, answer.content) == (200, b"")
        assert (await http.post("/free", content="")).status_code == 500

    # --- runs ---

    async def test_a_run_says_each_node_that_begins_and_its_end_last(
        self, http: httpx.AsyncClient, client: ComfyClient
    ) -> None:
        mine = prompt_id()
        async with open_socket(client.base_url, uuid.uuid4().hex, 20) as socket:
            await client.submit(small(), mine, socket.client_id)
            seen: list[Message] = []
            async with asyncio.timeout(60):
                async for frame in socket.frames():
                    if isinstance(frame, Message) and frame.prompt_id == mine:
                        seen.append(frame)
                        if frame.kind == "executing" and frame.data["node"] is None:
                            break
        reported = [(one.kind, one.data.get("node")) for one in seen if one.kind != "progress_state"]
        assert reported == [
            ("execution_start", None),
            ("execution_cached", None),
            *[("executing", node) for node in ("1", "2", "9")],
            ("executed", "9"),
            ("execution_success", None),
            ("executing", None),
        ]
        states = [one.data["nodes"] for one in seen if one.kind == "progress_state"]
        assert {node["state"] for node in states[-1].values()} == {"finished"}
        assert await client.history(mine) is not None
        listed = (await http.get("/api/jobs", params={"status": "completed", "limit": 1})).json()
        assert listed["jobs"][0]["id"] == mine
        assert listed["pagination"]["limit"] == 1
        await client.forget(mine)
        assert await client.history(mine) is None, "so does every server that was restarted"

    async def test_a_rubbish_image_fails_at_its_loader_and_everything_else_at_the_machine(
        self, client: ComfyClient
    ) -> None:
        stored = await client.upload(b"not an image", f"rubbish-{prompt_id()}.png")
        values = {"width": 64, "height": 64, "sketch": stored.reference, "filename_prefix": "contract/x"}
        with pytest.raises(SketchRefused) as caught:
            await self.run(client, INVERT.fill(values), loaders=INVERT.loaders)
        assert caught.value.node == "LoadImage#1"
        stored = await client.upload(sketch(), f"sketch-{prompt_id()}.png")
        outside = INVERT.fill(values | {"sketch": stored.reference, "filename_prefix": "../../x"})
        with pytest.raises(NodeFailed) as other:
            await self.run(client, outside, loaders=INVERT.loaders)
        assert other.value.node == "SaveImage#9"

    async def test_a_running_prompt_is_interrupted_and_a_waiting_one_taken_out(
        self, http: httpx.AsyncClient, client: ComfyClient
    ) -> None:
        running, waiting = prompt_id(), prompt_id()
        cancel, began = asyncio.Event(), asyncio.Event()

        def observe(progress: RunProgress) -> None:
            began.set()

        run = asyncio.create_task(
            GraphRun(client, cancel)(slow(), "9", observe, prompt_id=running, limit_seconds=120)
        )
        await asyncio.wait_for(began.wait(), 60)
        await client.submit(small(), waiting, "contract")
        await http.post("/interrupt", json={"prompt_id": waiting})
        assert running in (await client.queue()).running, "an interrupt of another prompt does nothing"
        await http.post("/queue", json={"delete": [running]})
        assert running in (await client.queue()).running, "a running prompt is not taken out"
        assert await client.remove(waiting)
        cancel.set()
        with pytest.raises(RunInterrupted):
            await run
        assert await client.history(waiting) is None
        job = (await http.get(f"/api/jobs/{running}")).json()
        assert job["status"] == "cancelled"

    async def test_only_our_own_prompts_are_taken_out_and_interrupted(
        self, http: httpx.AsyncClient, client: ComfyClient
    ) -> None:
        theirs = ComfyClient(client.base_url, http, wait_max=client.wait_max)
        running, waiting, ours = prompt_id(), prompt_id(), prompt_id()
        for one, by, graph in (
            (running, theirs, slow()),
            (waiting, theirs, small()),
            (ours, client, small()),
        ):
            await by.submit(graph, one, "contract")
        try:
            async with asyncio.timeout(60):
                while running not in (view := await client.queue()).running:
                    await asyncio.sleep(0)
            assert view.own == {ours}
            await client.clear()
            left = await client.queue()
            assert (left.running, left.pending, left.own) == ({running}, {waiting}, frozenset())
        finally:
            await theirs.clear()
        assert (await client.queue()).running == frozenset()

    @pytest.mark.parametrize(
        ("query", "status"),
        [({}, 200), ({"status": "nope"}, 400), ({"limit": "0"}, 400), ({"offset": "x"}, 400), ({"sort_by": "x"}, 400)],
    )  # fmt: skip
    async def test_jobs_are_listed_under_api_alone(
        self, http: httpx.AsyncClient, query: dict[str, str], status: int
    ) -> None:
        assert (await http.get("/api/jobs", params=query)).status_code == status
        assert (await http.get("/jobs", params=query)).status_code == 404

    async def run(self, client: ComfyClient, graph: Json, **more: Any) -> None:
        await GraphRun(client)(graph, "9", lambda _: None, limit_seconds=60, **more)
