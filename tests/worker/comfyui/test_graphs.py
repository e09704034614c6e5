"""Graph files, their inputs, and their check against a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from worker.comfyui.client import ComfyClient
from worker.comfyui.faults import GraphUnknown, InputsRefused
from worker.comfyui.library import load_graphs

VALUES: dict[str, Any] = {
    "prompt": "a llama",
    "seed": 5,
    "strength": 0.9,
    "width": 1024,
    "height": 768,
    "sketch": "a.png",
    "filename_prefix": "job/x",
}


def test_every_declared_input_reaches_its_node() -> None:
    filled = load_graphs().get("sketch@1").fill(VALUES)
    assert filled["74"]["inputs"]["text"] == "a llama. Keep every line of the sketch exactly"
    assert filled["73"]["inputs"]["noise_seed"] == 5
    assert filled["80"]["inputs"]["megapixels"] == 0.75
    assert filled["76"]["inputs"]["image"] == "a.png"
    assert filled["9"]["inputs"]["filename_prefix"] == "job/x"


def test_filling_a_graph_leaves_the_graph_as_it_was() -> None:
    graph = load_graphs().get("sketch@1")
    before = json.dumps(graph.graph)
    graph.fill(VALUES)
    assert json.dumps(graph.graph) == before


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": 2**64},
        {"seed": -1},
        {"seed": "1"},
        {"seed": True},
        {"strength": 1.1},
        {"strength": float("nan")},
        {"width": 1000},
        {"width": 8192},
        {"prompt": "x" * 4001},
        {"prompt": None},
        {"sketch": None},
    ],
)
def test_a_value_outside_its_declaration_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputsRefused, match=next(iter(wrong))):
        load_graphs().get("sketch@1").fill(VALUES | wrong)


async def test_the_shipped_graphs_fit_the_server(client: ComfyClient) -> None:
    info = await client.object_info()
    graphs = load_graphs()
    assert graphs.labels() == ["invert@1", "sketch@1"]
    assert [graphs.get(label).complaints(info) for label in graphs.labels()] == [[], []]


async def test_a_missing_model_or_node_or_a_new_input_is_named(client: ComfyClient) -> None:
    info = await client.object_info()
    info["UNETLoader"]["input"]["required"]["unet_name"][0] = ["other.safetensors"]
    info["VAELoader"]["input"]["required"]["precision"] = ["INT", {}]
    del info["Flux2Scheduler"]
    complaints = load_graphs().get("sketch@1").complaints(info)
    assert complaints == [
        "model file 'flux-2-klein-4b-fp8.safetensors' is missing for UNETLoader.unet_name",
        "VAELoader#72 needs precision",
        "node class Flux2Scheduler is missing",
    ]


def test_an_unknown_graph_is_refused() -> None:
    with pytest.raises(GraphUnknown, match="sketch@9"):
        load_graphs().get("sketch@9")


def test_a_file_whose_name_lies_is_not_loaded(tmp_path: Path) -> None:
    graph = {"name": "a", "version": 1, "description": "", "output": "1", "inputs": {}, "graph": {"1": {}}}
    (tmp_path / "b@1.json").write_text(json.dumps(graph))
    with pytest.raises(ValueError, match="holds graph a@1"):
        load_graphs(tmp_path)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"name": "My Graph"}, "small letters"),
        ({"output": "77"}, "nodes that it does not have"),
        ({"models": [["1", "ckpt_name"]]}, "has no ckpt_name in node 1"),
        ({"inputs": {"style": {"type": "text", "required": True}}}, "no job has: style"),
        ({"inputs": {"width": {"type": "integer", "to": [["2", "breadth"]]}}}, "has no breadth in node 2"),
        ({"inputs": {"width": {"type": "integer", "megapixels_with": "depth"}}}, "megapixels"),
        ({"graph": {"9": {"type": "SaveImage", "widgets_values": []}}}, "API format"),
        ({"sha256": {"other.safetensors": "0" * 64}}, "does not use"),
        ({"colour": "red"}, "colour"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_with_a_graph_file_is_said_with_its_name(
    tmp_path: Path, wrong: dict[str, Any], why: str
) -> None:
    graph = msgspec.to_builtins(load_graphs().get("invert@1")) | {"name": "mine"} | wrong
    (tmp_path / f"{graph['name']}@1.json").write_bytes(msgspec.json.encode(graph))
    with pytest.raises(ValueError, match=rf"@1\.json.*{why}"):
        load_graphs(tmp_path)


def test_a_graph_of_the_operators_takes_no_shipped_ones_place(tmp_path: Path) -> None:
    own = msgspec.to_builtins(load_graphs().get("sketch@1"))
    (tmp_path / "sketch@1.json").write_bytes(msgspec.json.encode(own))
    with pytest.raises(ValueError, match="sketch@1 is there already"):
        load_graphs().joined(load_graphs(tmp_path))
