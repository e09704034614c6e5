"""Graph files, their inputs, and their check against a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from generation.comfyui.client import ComfyClient
from generation.comfyui.faults import GraphRefused
from generation.comfyui.library import load_graphs

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
    with pytest.raises(GraphRefused, match=next(iter(wrong))):
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
    with pytest.raises(GraphRefused, match="sketch@9"):
        load_graphs().get("sketch@9")


def test_a_file_whose_name_lies_is_not_loaded(tmp_path: Path) -> None:
    graph = {"name": "a", "version": 1, "description": "", "output": "1", "inputs": {}, "graph": {"1": {}}}
    (tmp_path / "b@1.json").write_text(json.dumps(graph))
    with pytest.raises(ValueError, match="holds graph a@1"):
        load_graphs(tmp_path)
