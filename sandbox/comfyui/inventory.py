"""What is installed on this server: every node class and model file, but those that a fault took away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sandbox.comfyui.faults import Faults
from sandbox.comfyui.nodeclass import NodeClass


class Inventory:
    """Node classes as `/object_info` and the validation of prompts see them."""

    def __init__(self, classes: Mapping[str, NodeClass], faults: Faults) -> None:
        self._classes = classes
        self._faults = faults

    def classes(self) -> Mapping[str, NodeClass]:
        """What there is now."""
        lost = frozenset(self._faults.lost_models)
        return {
            name: replace(
                node, inputs={field: _without(config, lost) for field, config in node.inputs.items()}
            )
            for name, node in self._classes.items()
            if name not in self._faults.lost_nodes
        }


def _without(config: Sequence[Any], lost: frozenset[str]) -> Sequence[Any]:
    if not lost or not isinstance(config[0], list):
        return config
    return [[choice for choice in config[0] if choice not in lost], *config[1:]]
