"""Loads graph files, fills in their inputs, and checks them against a server's `/object_info`."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from worker.comfyui.faults import GraphUnknown, InputsRefused, ServerUnreachable, understood

GIVEN = frozenset({"prompt", "seed", "strength", "width", "height", "sketch", "filename_prefix"})
"""What a worker can fill in: a job's inputs, its sketch, and where the image is to be saved."""
_LABEL = re.compile(r"[a-z0-9_-]{1,40}@[0-9]{1,4}")


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
    sold: bool = True
    """Whether people pay for its images. What is not sold is for tests, and makes no worker useful."""
    vram_mb: int = 0
    """Free memory of the GPU that it needs, models included; 0 where that is not known."""
    graph: dict[str, Any]

    @property
    def label(self) -> str:
        """As jobs name it: `sketch@1`."""
        return f"{self.name}@{self.version}"

    @property
    def loaders(self) -> frozenset[str]:
        """The nodes that load the person's image."""
        images = (declared for declared in self.inputs.values() if declared.type == "image")
        return frozenset(node for declared in images for node, _ in declared.to)

    def fill(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """A copy of the graph with these inputs. Raises `InputsRefused` for what is not allowed.

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
        try:
            with understood("/object_info"):
                return self._complaints(object_info)
        except ServerUnreachable as fault:
            return [fault.detail]

    def _complaints(self, object_info: Mapping[str, Any]) -> list[str]:
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
            raise InputsRefused(f"input {name} is missing")
        return None
    match declared.type:
        case "text" | "image":
            if not isinstance(value, str) or len(value) > (declared.max_length or 1_000):
                raise InputsRefused(f"input {name} is not a text of allowed length")
        case "integer":
            if not isinstance(value, int) or isinstance(value, bool):
                raise InputsRefused(f"input {name} is not an integer")
        case "number":
            if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
                raise InputsRefused(f"input {name} is not a number")
    if isinstance(value, int | float):
        _check_range(name, declared, value)
    return value


def _check_range(name: str, declared: GraphInput, value: float) -> None:
    low, high = declared.minimum, declared.maximum
    if (low is not None and value < low) or (high is not None and value > high):
        raise InputsRefused(
            f"input {name} is outside {low}..{high}"
            if low is not None and high is not None
            else f"input {name} is out of range"
        )
    if declared.multiple_of and value % declared.multiple_of:
        raise InputsRefused(f"input {name} is not a multiple of {declared.multiple_of}")


class GraphLibrary:
    """The graphs that this program can run, by label."""

    def __init__(self, graphs: Mapping[str, Graph]) -> None:
        self._graphs = dict(graphs)

    def labels(self) -> list[str]:
        """All labels, sorted."""
        return sorted(self._graphs)

    def get(self, label: str) -> Graph:
        """The graph of this label. Raises `GraphUnknown`."""
        if label not in self._graphs:
            raise GraphUnknown(f"graph {label} is unknown to this worker")
        return self._graphs[label]

    def joined(self, others: GraphLibrary) -> GraphLibrary:
        """These and the others. Raises `ValueError` where both have a graph of one name and version."""
        twice = sorted(set(self._graphs) & set(others._graphs))
        if twice:
            raise ValueError(f"{', '.join(twice)} is there already: give yours another name or version")
        return GraphLibrary({**self._graphs, **others._graphs})

    def only(self, labels: Sequence[str]) -> GraphLibrary:
        """Those of these labels. Raises `GraphUnknown` for an unknown one."""
        return GraphLibrary({label: self.get(label) for label in labels})


def load_graphs(folder: Path | None = None) -> GraphLibrary:
    """Load all graph files of a folder; by default those that ship with this package.

    Raises `OSError`, or `ValueError` with what is wrong in which file.
    """
    source = folder if folder is not None else resources.files("worker.comfyui.graphs")
    graphs: dict[str, Graph] = {}
    for entry in sorted(source.iterdir(), key=lambda entry: entry.name):
        if not entry.name.endswith(".json"):
            continue
        try:
            graph = msgspec.json.decode(entry.read_bytes(), type=Graph)
        except msgspec.DecodeError as fault:
            raise type(fault)(f"{entry.name}: {fault}") from fault
        if f"{graph.label}.json" != entry.name:
            raise ValueError(f"{entry.name} holds graph {graph.label}")
        for wrong in _wrong_with(graph):
            raise ValueError(f"{entry.name} {wrong}")
        graphs[graph.label] = graph
    return GraphLibrary(graphs)


def _wrong_with(graph: Graph) -> Iterator[str]:
    """What keeps this from being a graph that a worker can run, whatever its ComfyUI has."""
    if _LABEL.fullmatch(graph.label) is None:
        yield "is not named by small letters, digits, _ and -, and a version of up to four digits"
    for node_id, node in graph.graph.items():
        if not isinstance(node, Mapping) or not {"class_type", "inputs"} <= set(node):
            yield f"has a node {node_id} without class_type or inputs: save the graph in the API format"
            return
    places = [tuple(place) for declared in graph.inputs.values() for place in declared.to]
    if graph.output not in graph.graph or any(
        node not in graph.graph for node, _ in (*places, *graph.models)
    ):
        yield "names nodes that it does not have"
        return
    yield from (f"has no {field} in node {node}" for node, field in _absent(graph, (*places, *graph.models)))
    unknown = sorted(name for name, one in graph.inputs.items() if one.required and name not in GIVEN)
    if unknown:
        yield f"requires inputs that no job has: {', '.join(unknown)}"
    others = (one.megapixels_with for one in graph.inputs.values())
    if any(other is not None and other not in graph.inputs for other in others):
        yield "counts megapixels with an input that it does not have"
    named = {graph.graph[node]["inputs"].get(field) for node, field in graph.models}
    if not named.issuperset(graph.sha256):
        yield "has digests of files that it does not use"


def _absent(graph: Graph, places: Sequence[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    return (place for place in places if place[1] not in graph.graph[place[0]]["inputs"])
