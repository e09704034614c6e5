"""Loads graph files, fills in their inputs, and checks them against a server's `/object_info`."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from generation.comfyui.faults import GraphRefused


class GraphInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One declared input.

    `to` lists (node, field) pairs that receive the value. `phrases` turn a number into words:
    the first whose bound is not below the value is appended to the text at `to`. `megapixels`
    means that the product of width and height goes to `to`.
    """

    type: Literal["text", "integer", "number", "image"]
    to: tuple[tuple[str, str], ...] = ()
    required: bool = False
    default: str | int | float | None = None
    # Integers stay integers here: 2**64 - 1 is no float.
    minimum: int | float | None = None
    maximum: int | float | None = None
    multiple_of: int | None = None
    max_length: int | None = None
    phrases: tuple[tuple[float, str], ...] = ()
    megapixels_with: str | None = None


class Graph(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A named, versioned graph."""

    name: str
    version: int
    description: str
    output: str
    inputs: dict[str, GraphInput]
    models: tuple[tuple[str, str], ...] = ()
    """(node, field) pairs whose value is the name of a model file."""
    sha256: dict[str, Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]] = {}
    """What these model files must be, by name, where that is known."""
    graph: dict[str, Any]

    @property
    def label(self) -> str:
        """As jobs name it: `sketch@1`."""
        return f"{self.name}@{self.version}"

    def fill(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """A copy of the graph with these inputs. Raises `GraphRefused` for what is not allowed.

        Values that the graph does not declare are ignored: one job describes itself to every graph.
        """
        filled = copy.deepcopy(self.graph)
        checked = {name: _checked(name, declared, values.get(name)) for name, declared in self.inputs.items()}
        for name, declared in self.inputs.items():
            value = checked[name]
            if value is None or declared.phrases:
                continue
            if declared.megapixels_with is not None:
                other = checked[declared.megapixels_with]
                value = None if other is None else round(value * other / 1048576, 4)
            for node, field in declared.to if value is not None else ():
                filled[node]["inputs"][field] = value
        for name, declared in self.inputs.items():
            if declared.phrases and checked[name] is not None:
                phrase = next((text for bound, text in declared.phrases if checked[name] <= bound), "")
                for node, field in declared.to:
                    filled[node]["inputs"][field] += phrase
        return filled

    def complaints(self, object_info: Mapping[str, Any]) -> list[str]:
        """What a server with this `/object_info` lacks to run this graph; empty when it can.

        Nodes gain required inputs between versions and model files go missing: better to know
        it at boot than from a customer's job.
        """
        found: list[str] = []
        for node_id, node in self.graph.items():
            name = node["class_type"]
            info = object_info.get(name)
            if info is None:
                found.append(f"node class {name} is missing")
                continue
            declared = info.get("input", {})
            required = declared.get("required") or {}
            known = {**required, **(declared.get("optional") or {}), **(declared.get("hidden") or {})}
            found += [f"{name}#{node_id} needs {field}" for field in required if field not in node["inputs"]]
            found += [f"{name}#{node_id} has no {field}" for field in node["inputs"] if field not in known]
            found += self._choices_missing(node_id, node, known)
            if node_id == self.output and not info.get("output_node"):
                found.append(f"{name}#{node_id} is not an output node")
        return found

    def models_missing(self, object_info: Mapping[str, Any]) -> bool:
        """Whether a server that has all the nodes lacks nothing but model files: it may not be ready yet."""
        complaints = self.complaints(object_info)
        return bool(complaints) and all(complaint.startswith("model file") for complaint in complaints)

    def _choices_missing(self, node_id: str, node: Mapping[str, Any], known: Mapping[str, Any]) -> list[str]:
        filled_later = {tuple(place) for declared in self.inputs.values() for place in declared.to}
        missing = []
        for field, value in node["inputs"].items():
            choices = _choices(known.get(field, ()))
            if choices is None or isinstance(value, list) or (node_id, field) in filled_later:
                continue
            if value not in choices:
                what = "model file" if (node_id, field) in self.models else "choice"
                missing.append(f"{what} {value!r} is missing for {node['class_type']}.{field}")
        return missing


def _choices(config: Sequence[Any]) -> Sequence[Any] | None:
    """The values a list input takes, in the old form `[[...], {}]` and the newer `["COMBO", {"options"}]`."""
    if config and isinstance(config[0], list):
        return config[0]
    if len(config) > 1 and config[0] == "COMBO":
        options = config[1].get("options")
        return options if isinstance(options, list) else None
    return None


def _checked(name: str, declared: GraphInput, value: Any) -> Any:
    if value is None:
        value = declared.default
    if value is None:
        if declared.required:
            raise GraphRefused(f"input {name} is missing")
        return None
    match declared.type:
        case "text" | "image":
            if not isinstance(value, str) or len(value) > (declared.max_length or 1_000):
                raise GraphRefused(f"input {name} is not a text of allowed length")
        case "integer":
            if not isinstance(value, int) or isinstance(value, bool):
                raise GraphRefused(f"input {name} is not an integer")
        case "number":
            if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
                raise GraphRefused(f"input {name} is not a number")
    if isinstance(value, int | float):
        _check_range(name, declared, value)
    return value


def _check_range(name: str, declared: GraphInput, value: float) -> None:
    low, high = declared.minimum, declared.maximum
    if (low is not None and value < low) or (high is not None and value > high):
        raise GraphRefused(
            f"input {name} is outside {low}..{high}"
            if low is not None and high is not None
            else f"input {name} is out of range"
        )
    if declared.multiple_of and value % declared.multiple_of:
        raise GraphRefused(f"input {name} is not a multiple of {declared.multiple_of}")


class GraphLibrary:
    """The graphs that this program can run, by label."""

    def __init__(self, graphs: Mapping[str, Graph]) -> None:
        self._graphs = dict(graphs)

    def labels(self) -> list[str]:
        """All labels, sorted."""
        return sorted(self._graphs)

    def get(self, label: str) -> Graph:
        """The graph of this label. Raises `GraphRefused`."""
        if label not in self._graphs:
            raise GraphRefused(f"graph {label} is unknown to this worker")
        return self._graphs[label]

    def only(self, labels: Sequence[str]) -> GraphLibrary:
        """Those of these labels. Raises `GraphRefused` for an unknown one."""
        return GraphLibrary({label: self.get(label) for label in labels})


def load_graphs(folder: Path | None = None) -> GraphLibrary:
    """Load all graph files of a folder; by default those that ship with this package.

    Raises `msgspec.ValidationError` or `ValueError` when a file is not what its name says.
    """
    source = folder if folder is not None else resources.files("generation.comfyui.graphs")
    graphs: dict[str, Graph] = {}
    for entry in source.iterdir():
        if not entry.name.endswith(".json"):
            continue
        graph = msgspec.json.decode(entry.read_bytes(), type=Graph)
        if f"{graph.label}.json" != entry.name:
            raise ValueError(f"{entry.name} holds graph {graph.label}")
        unknown = [place for one in graph.inputs.values() for place in one.to if place[0] not in graph.graph]
        if unknown or graph.output not in graph.graph:
            raise ValueError(f"{entry.name} names nodes that it does not have")
        named = {graph.graph[node]["inputs"][field] for node, field in graph.models}
        if not named.issuperset(graph.sha256):
            raise ValueError(f"{entry.name} has digests of files that it does not use")
        graphs[graph.label] = graph
    return GraphLibrary(graphs)
