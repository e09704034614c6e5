"""Runs one prompt after another on a thread, sending what the original would send."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from sandbox.comfyui.faults import Faults
from sandbox.comfyui.nodeclass import Interrupted, NodeClass, Outputs, Settings, Ui
from sandbox.comfyui.progressstate import ProgressState
from sandbox.comfyui.promptqueue import Item, PromptQueue
from sandbox.comfyui.sockets import Sockets

_OOM_TIPS = (
    "This error means you ran out of memory on your GPU.\n\nTIPS: If the workflow worked before you "
    "might have accidentally set the batch_size to a large number."
)
_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class _Cached:
    outputs: Outputs
    ui: Mapping[str, Any] | None


class Executor:
    """The execution thread's work. `interrupt` may be called from any thread."""

    def __init__(
        self,
        queue: PromptQueue,
        sockets: Sockets,
        classes: Mapping[str, NodeClass],
        settings: Settings,
        faults: Faults,
    ) -> None:
        self._queue = queue
        self.sockets = sockets
        self._classes = classes
        self.settings = settings
        self.faults = faults
        self._cache: dict[str, _Cached] = {}
        self.loaded: set[str] = set()
        """Model files that are in memory."""
        self.unload = threading.Event()
        """Asks to drop models and results before the next prompt."""
        self.client_id: str | None = None
        self.last_node_id: str | None = None
        self.interrupted = threading.Event()
        self.stopping = threading.Event()
        self._log = structlog.get_logger("sandbox.comfyui")

    def interrupt(self) -> None:
        """Raise the flag that the running prompt sees at its next step; a new run lowers it."""
        self.interrupted.set()

    def work(self) -> None:
        """Run prompts until the queue is closed."""
        while (taken := self._queue.take()) is not None:
            run, item = taken
            started = time.monotonic()
            if self.unload.is_set():
                self.unload.clear()
                self._cache.clear()
                self.loaded.clear()
            entry = PromptRun(self, self._classes, item).execute(self._cache)
            self._cache = entry.pop("cache")
            time.sleep(self.faults.history_lag_ms / 1000)
            self._queue.finish(run, entry)
            if self.client_id is not None:
                self.sockets.send("executing", {"node": None, "prompt_id": item[1]}, self.client_id)
            took = round((time.monotonic() - started) * 1000)
            self._log.info(
                "prompt_done", prompt_id=item[1], status=entry["status"]["status_str"], took_ms=took
            )


class PromptRun:
    """One prompt from `execution_start` to its history entry."""

    def __init__(self, executor: Executor, classes: Mapping[str, NodeClass], item: Item) -> None:
        self._executor = executor
        self._classes = classes
        _, self._prompt_id, self._graph, extra, self._ends = item
        executor.interrupted.clear()
        executor.client_id = self._client_id = extra.get("client_id")
        self._messages: list[tuple[str, dict[str, Any]]] = []
        self._executed: list[str] = []
        self._ui: dict[str, Mapping[str, Any]] = {}
        self._node = ""
        self._state = ProgressState(self._prompt_id)

    # --- what nodes use (nodeclass.Run) ---

    @property
    def settings(self) -> Settings:
        """How this server behaves."""
        return self._executor.settings

    @property
    def graph(self) -> Mapping[str, Any]:
        """The prompt being run."""
        return self._graph

    def progress(self, value: int, maximum: int, preview: bytes | None = None) -> None:
        """Report a step; previews carry their prompt id where the client asked for that."""
        self._check_interrupt()
        if self.fault("drop_ws"):
            self._executor.sockets.drop_all()
        self._state.update(self._node, value, maximum)
        self._send("progress_state", self._state.message())
        with_metadata = self._executor.sockets.wants_metadata(self._client_id)
        if preview is not None and with_metadata:
            self._send_image(preview, "image/jpeg", metadata=True)
        data = {"value": value, "max": maximum, "prompt_id": self._prompt_id, "node": self._node}
        self._send("progress", data)
        if preview is not None and not with_metadata:
            self._send_image(preview, "image/jpeg", metadata=False)

    def send_image(self, image: bytes, content_type: str, value: int, maximum: int) -> None:
        """Send a full picture, framed like a preview."""
        self.progress(value, maximum)
        self._send_image(image, content_type, metadata=self._executor.sockets.wants_metadata(self._client_id))

    def wait(self, seconds: float) -> None:
        """Let time pass; ends early when the server stops."""
        self._executor.stopping.wait(seconds)

    def fault(self, name: str) -> bool:
        """Use up a pending fault."""
        return self._executor.faults.take(name)

    def load(self, model: str) -> None:
        """Read a model file: takes its time once, fails if it is corrupt."""
        faults, loaded = self._executor.faults, self._executor.loaded
        if model in faults.corrupt_models:
            raise KeyError("conv_in.weight")
        if model not in loaded:
            loaded.add(model)
            self.wait(faults.load_seconds)

    @property
    def slowness(self) -> float:
        """Factor on the time that sampling takes."""
        return self._executor.faults.slow

    # --- the run ---

    def execute(self, previous: dict[str, _Cached]) -> dict[str, Any]:
        """Run; answers the history entry, and under `cache` what the next run may reuse."""
        self._message("execution_start", {"prompt_id": self._prompt_id})
        keys: dict[str, str] = {}
        for node_id in self._graph:
            self._key(node_id, keys)
        # As the original's classic cache: only what this prompt names is kept.
        cache = {key: previous[key] for key in keys.values() if key in previous}
        reused = [node_id for node_id in self._graph if keys.get(node_id) in cache]
        self._message("execution_cached", {"nodes": reused, "prompt_id": self._prompt_id})
        success = True
        for node_id in self._order(keys, cache):
            self._node = node_id
            if not self._step(node_id, keys, cache):
                success = False
                break
        if success:
            self._message("execution_success", {"prompt_id": self._prompt_id})
        self._executor.last_node_id = None
        return {"cache": cache, **self._history_entry(success)}

    def _history_entry(self, success: bool) -> dict[str, Any]:
        status = {
            "status_str": "success" if success else "error",
            "completed": success,
            "messages": [list(message) for message in self._messages],
        }
        names = ("node_id", "display_node", "real_node_id")
        meta = {node_id: {**dict.fromkeys(names, node_id), "parent_node": None} for node_id in self._ui}
        return {"outputs": dict(self._ui), "status": status, "meta": meta}

    def _step(self, node_id: str, keys: Mapping[str, str], cache: dict[str, _Cached]) -> bool:
        cached = cache.get(keys[node_id])
        if cached is not None:
            if self._client_id is not None:
                self._show(node_id, cached.ui)
            self._finish(node_id)
            return True
        self._state.update(node_id)
        self._send("progress_state", self._state.message())
        if self._client_id is not None:
            self._executor.last_node_id = node_id
            data = {"node": node_id, "display_node": node_id, "prompt_id": self._prompt_id}
            self._send("executing", data)
        try:
            produced = self._call(node_id, keys, cache)
        except Interrupted:
            self._message("execution_interrupted", self._about(node_id))
            return False
        except Exception as fault:  # noqa: BLE001 -- whatever a node raises is a message to the client
            self._report_error(node_id, fault)
            return False
        ui = produced.output if isinstance(produced, Ui) else None
        outputs: Outputs = () if isinstance(produced, Ui) else produced
        if ui is not None:
            self._show(node_id, ui)
        cache[keys[node_id]] = _Cached(outputs, ui)
        self._finish(node_id)
        self._executed.append(node_id)
        return True

    def _call(self, node_id: str, keys: Mapping[str, str], cache: Mapping[str, _Cached]) -> Outputs | Ui:
        self._check_interrupt()
        self._apply_faults()
        node = self._graph[node_id]
        inputs = {
            name: cache[keys[value[0]]].outputs[value[1]] if isinstance(value, list) else value
            for name, value in node["inputs"].items()
        }
        return self._classes[node["class_type"]].run(self, inputs)

    def _apply_faults(self) -> None:
        if self.fault("die"):
            os._exit(1)
        if self.fault("error_next"):
            raise RuntimeError("a fault of the sandbox: error_next")
        while self._executor.faults.hang and not self._executor.stopping.wait(_POLL_SECONDS):
            pass

    def _show(self, node_id: str, ui: Mapping[str, Any] | None) -> None:
        if ui is not None:
            self._ui[node_id] = ui
        if self._client_id is not None:
            data = {"node": node_id, "display_node": node_id, "output": ui, "prompt_id": self._prompt_id}
            self._send("executed", data)

    def _finish(self, node_id: str) -> None:
        self._state.finish(node_id)
        self._send("progress_state", self._state.message())

    def _about(self, node_id: str) -> dict[str, Any]:
        return {
            "prompt_id": self._prompt_id,
            "node_id": node_id,
            "node_type": self._graph[node_id]["class_type"],
            "executed": list(self._executed),
        }

    def _report_error(self, node_id: str, fault: Exception) -> None:
        kind = type(fault)
        name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
        tips = _OOM_TIPS if name == "torch.OutOfMemoryError" else ""
        data = {
            **self._about(node_id),
            "exception_message": f"{fault}\n{tips}",
            "exception_type": name,
            "traceback": [],
            "current_inputs": {},
            "current_outputs": list(self._executed),
        }
        self._message("execution_error", data)

    # --- order and identity of nodes ---

    def _key(self, node_id: str, keys: dict[str, str]) -> str:
        """Identity of a node's result: its class, its values, the files it reads, all before it."""
        if node_id not in keys:
            node = self._graph[node_id]
            node_class = self._classes[node["class_type"]]
            parts: list[Any] = [node["class_type"]]
            for name, value in sorted(node.get("inputs", {}).items()):
                linked = isinstance(value, list) and len(value) == 2 and value[0] in self._graph
                parts.append([name, [self._key(value[0], keys), value[1]] if linked else value])
            if node_class.fingerprint is not None:
                parts.append(node_class.fingerprint(self.settings.folders, node["inputs"]))
            keys[node_id] = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        return keys[node_id]

    def _order(self, keys: Mapping[str, str], cache: Mapping[str, _Cached]) -> list[str]:
        """Nodes to visit: the outputs, and before each what it needs and the cache lacks."""
        order: list[str] = []
        stack = [(end, False) for end in reversed(self._ends)]
        while stack:
            node_id, ready = stack.pop()
            if node_id in order:
                continue
            links = [v[0] for v in self._graph[node_id]["inputs"].values() if isinstance(v, list)]
            missing = [source for source in links if keys[source] not in cache and source not in order]
            if ready or not missing or keys[node_id] in cache:
                order.append(node_id)
                continue
            stack.append((node_id, True))
            stack.extend((source, False) for source in reversed(missing))
        return order

    # --- sending ---

    def _check_interrupt(self) -> None:
        if self._executor.interrupted.is_set():
            self._executor.interrupted.clear()
            raise Interrupted

    def _send(self, kind: str, data: Mapping[str, Any]) -> None:
        self._executor.sockets.send(kind, data, self._client_id)

    def _send_image(self, image: bytes, content_type: str, *, metadata: bool) -> None:
        about = self._state.identity(self._node) if metadata else None
        self._executor.sockets.send_image(image, content_type, about, self._client_id)

    def _message(self, kind: str, data: dict[str, Any]) -> None:
        data = {**data, "timestamp": int(time.time() * 1000)}
        self._messages.append((kind, data))
        broadcast = kind == "execution_interrupted"
        if self._client_id is not None or broadcast:
            self._send(kind, data)
