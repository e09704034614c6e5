"""The `progress_state` message: every node that started in this run, and how far it is."""

from __future__ import annotations

import copy
from typing import Any


class ProgressState:
    """Progress of the nodes of one prompt, in the order in which they started."""

    def __init__(self, prompt_id: str) -> None:
        self._prompt_id = prompt_id
        self._nodes: dict[str, dict[str, Any]] = {}

    def identity(self, node_id: str) -> dict[str, Any]:
        """The members that name a node, also used as metadata of previews."""
        return {
            "node_id": node_id,
            "prompt_id": self._prompt_id,
            "display_node_id": node_id,
            "parent_node_id": None,
            "real_node_id": node_id,
        }

    def update(self, node_id: str, value: float = 0.0, maximum: float = 1.0) -> None:
        """The node runs, and may have reported a step."""
        self._set(node_id, value, maximum, "running")

    def finish(self, node_id: str) -> None:
        """The node is done; one that never started (cached) appears as 1 of 1."""
        maximum = self._nodes[node_id]["max"] if node_id in self._nodes else 1
        self._set(node_id, maximum, maximum, "finished")

    def message(self) -> dict[str, Any]:
        """The message's data."""
        return {"prompt_id": self._prompt_id, "nodes": copy.deepcopy(self._nodes)}

    def _set(self, node_id: str, value: float, maximum: float, state: str) -> None:
        self._nodes[node_id] = {"value": value, "max": maximum, "state": state, **self.identity(node_id)}
