"""What a node class is: its declared inputs, its outputs, and the function that runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

Inputs = Mapping[str, Any]
Outputs = Sequence[Any]


class Interrupted(Exception):
    """The run was interrupted by `POST /interrupt`."""


class OutOfMemoryError(Exception):
    """Stands for torch's error of the same name."""

    __module__ = "torch"


@dataclass(frozen=True, slots=True)
class Ui:
    """Outputs of an output node: what clients see, under `output`."""

    output: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Folders:
    """Where files live; each path exists."""

    input: Path
    output: Path
    temp: Path

    def of_type(self, name: str) -> Path | None:
        """The folder for a `type` parameter, or None when there is no such type."""
        return {"input": self.input, "output": self.output, "temp": self.temp}.get(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How this server behaves."""

    folders: Folders
    paint_seconds: float = 2.0
    fail_word: str = "sandbox-fail"
    plain: bool = False
    """Tint the sketch instead of painting it."""


class Run(Protocol):
    """What a running node may use."""

    @property
    def settings(self) -> Settings:
        """How this server behaves."""

    @property
    def graph(self) -> Mapping[str, Any]:
        """The prompt being run."""

    def progress(self, value: int, maximum: int, preview: bytes | None = None) -> None:
        """Report a step with a JPEG preview; raises `Interrupted` if the run was interrupted."""

    def send_image(self, image: bytes, content_type: str, value: int, maximum: int) -> None:
        """Send a full picture over the socket."""

    def wait(self, seconds: float) -> None:
        """Let time pass."""

    def fault(self, name: str) -> bool:
        """Use up a pending fault."""

    def load(self, model: str) -> None:
        """Read a model file: takes its time once, fails if it is corrupt."""

    @property
    def slowness(self) -> float:
        """Factor on the time that sampling takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeClass:
    """One node class. `inputs` are ComfyUI's own declarations, e.g. `["INT", {"min": 1}]`."""

    name: str
    inputs: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    optional: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    hidden: Mapping[str, Any] = field(default_factory=dict)
    """What the server fills in itself."""
    outputs: Sequence[str] = ()
    run: Callable[[Run, Inputs], Outputs | Ui]
    output_node: bool = False
    category: str = "sandbox"
    # The two below stand for VALIDATE_INPUTS and IS_CHANGED of the original.
    complaint: Callable[[Folders, Inputs], str | None] | None = None
    fingerprint: Callable[[Folders, Inputs], str] | None = None
    live_inputs: Callable[[Folders], Mapping[str, Sequence[Any]]] | None = None
    checks_itself: frozenset[str] = frozenset()

    def declared(self, folders: Folders) -> Mapping[str, Sequence[Any]]:
        """The inputs as they stand now: some lists depend on the files present."""
        return self.inputs if self.live_inputs is None else self.live_inputs(folders)

    def describe(self, folders: Folders) -> dict[str, Any]:
        """The `/object_info` entry. As in the original, groups of inputs that a class lacks are left out."""
        groups = {
            "required": {name: list(config) for name, config in self.declared(folders).items()},
            "optional": {name: list(config) for name, config in self.optional.items()},
            "hidden": dict(self.hidden),
        }
        shown = {group: inputs for group, inputs in groups.items() if inputs or group == "required"}
        return {
            "input": shown,
            "input_order": {group: list(inputs) for group, inputs in shown.items()},
            "is_input_list": False,
            "output": list(self.outputs),
            "output_is_list": [False] * len(self.outputs),
            "output_name": list(self.outputs),
            "name": self.name,
            "display_name": self.name,
            "description": "",
            "python_module": "nodes",
            "category": self.category,
            "output_node": self.output_node,
        }
