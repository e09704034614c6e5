"""Checks a graph as ComfyUI 0.25 does, with its error bodies to the letter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sandbox.comfyui.nodeclass import Folders, NodeClass

Reasons = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`error` is None when at least one output can run; `outputs` are those that can."""

    error: dict[str, Any] | None
    outputs: list[str] = field(default_factory=list)
    node_errors: dict[str, Any] = field(default_factory=dict)


def validate_graph(graph: dict[str, Any], classes: Mapping[str, NodeClass], folders: Folders) -> Verdict:
    """Check a graph. Input values are converted to their declared types in place."""
    ends = []
    for node_id, node in graph.items():
        name = node.get("class_type")
        if name not in classes:
            return Verdict(_missing_node_type(node_id, node))
        if classes[name].output_node:
            ends.append(node_id)
    if not ends:
        return Verdict(problem("prompt_no_outputs", "Prompt has no outputs"))
    return _check_outputs(graph, classes, folders, ends)


def problem(kind: str, message: str, details: str = "", **extra: Any) -> dict[str, Any]:
    """The `error` member of a 400 body."""
    return {"type": kind, "message": message, "details": details, "extra_info": extra}


def _missing_node_type(node_id: str, node: Mapping[str, Any]) -> dict[str, Any]:
    name = node.get("class_type")
    title = (node.get("_meta") or {}).get("title")
    if name is None:
        message = f"Node '{title or f'ID #{node_id}'}' has no class_type. "
        message += "The workflow may be corrupted or a custom node is missing."
        about = {"node_id": node_id, "class_type": None, "node_title": title}
    else:
        message = f"Node '{title or name}' not found. The custom node may not be installed."
        about = {"node_id": node_id, "class_type": name, "node_title": title or name}
    return problem("missing_node_type", message, f"Node ID '#{node_id}'", **about)


def _check_outputs(
    graph: dict[str, Any], classes: Mapping[str, NodeClass], folders: Folders, ends: Sequence[str]
) -> Verdict:
    good: list[str] = []
    node_errors: dict[str, Any] = {}
    checker = _Checker(graph, classes, folders)
    for end in ends:
        try:
            valid, reasons = checker.check(end)
        except Exception as fault:  # noqa: BLE001 -- whatever a node raises is a message to the client
            reasons = [_exception(fault, "exception_during_validation", "Exception when validating node")]
            valid = False
            checker.seen[end] = (False, reasons)
        if valid:
            good.append(end)
            continue
        for node_id, (node_valid, node_reasons) in checker.seen.items():
            if not node_valid and node_reasons:
                entry = node_errors.setdefault(
                    node_id,
                    {
                        "errors": node_reasons,
                        "dependent_outputs": [],
                        "class_type": graph[node_id]["class_type"],
                    },
                )
                entry["dependent_outputs"].append(end)
    if good:
        return Verdict(None, good, node_errors)
    message = "Prompt outputs failed validation"
    return Verdict(problem("prompt_outputs_failed_validation", message), [], node_errors)


class _Checker:
    def __init__(self, graph: dict[str, Any], classes: Mapping[str, NodeClass], folders: Folders) -> None:
        self._graph = graph
        self._classes = classes
        self._folders = folders
        self.seen: dict[str, tuple[bool, Reasons]] = {}

    def check(self, node_id: str) -> tuple[bool, Reasons]:
        """Check a node and everything before it."""
        if node_id in self.seen:
            return self.seen[node_id]
        node = self._graph[node_id]
        node_class = self._classes[node["class_type"]]
        inputs = node.get("inputs", {})
        reasons: Reasons = []
        valid = True
        required = node_class.declared(self._folders)
        for name, config in {**required, **node_class.optional}.items():
            if name not in inputs:
                if name not in required:
                    continue
                found = _reason("required_input_missing", "Required input is missing", name, name)
                reasons.append(found)
                continue
            if isinstance(inputs[name], list):
                upstream_valid, link_reasons = self._check_link(name, config, inputs[name])
                valid = valid and upstream_valid
                reasons += link_reasons
            else:
                reasons += _check_value(inputs, name, config, node_class.checks_itself)
        if node_class.complaint is not None and not reasons:
            complaint = node_class.complaint(self._folders, inputs)
            if complaint is not None:
                name = next(iter(node_class.checks_itself))
                message = "Custom validation failed for node"
                reasons.append(_reason("custom_validation_failed", message, f"{name} - {complaint}", name))
        self.seen[node_id] = (valid and not reasons, reasons)
        return self.seen[node_id]

    def _check_link(self, name: str, config: Sequence[Any], link: list[Any]) -> tuple[bool, Reasons]:
        if len(link) != 2:
            message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            extra = {"input_config": list(config), "received_value": link}
            return True, [_reason("bad_linked_input", message, name, name, **extra)]
        source, slot = link
        source_class = self._classes[self._graph[source]["class_type"]]
        received = source_class.outputs[slot]
        if received != config[0]:
            details = f"{name}, received_type({received}) mismatch input_type({config[0]})"
            extra = {"input_config": list(config), "received_type": received, "linked_node": link}
            message = "Return type mismatch between linked nodes"
            return True, [_reason("return_type_mismatch", message, details, name, **extra)]
        try:
            return self.check(source)[0], []
        except Exception as fault:  # noqa: BLE001 -- whatever a node raises is a message to the client
            message = "Exception when validating inner node"
            reason = _exception(fault, "exception_during_inner_validation", message)
            reason["extra_info"] |= {"input_name": name, "input_config": list(config), "linked_node": link}
            self.seen[source] = (False, [reason])
            return False, []


def _check_value(
    inputs: dict[str, Any], name: str, config: Sequence[Any], checks_itself: frozenset[str]
) -> Reasons:
    kind = config[0]
    options = config[1] if len(config) > 1 else {}
    value = inputs[name]
    extra = {"input_config": list(config)}
    try:
        value = inputs[name] = _converted(kind, value)
    except (TypeError, ValueError) as fault:
        message = f"Failed to convert an input value to a {kind} value"
        more = {**extra, "received_value": value, "exception_message": str(fault)}
        return [_reason("invalid_input_type", message, f"{name}, {value}, {fault}", name, **more)]
    extra["received_value"] = value
    if name in checks_itself:
        return []
    if "min" in options and value < options["min"]:
        message = f"Value {value} smaller than min of {options['min']}"
        return [_reason("value_smaller_than_min", message, name, name, **extra)]
    if "max" in options and value > options["max"]:
        message = f"Value {value} bigger than max of {options['max']}"
        return [_reason("value_bigger_than_max", message, name, name, **extra)]
    if isinstance(kind, list) and value not in kind:
        shown = str(kind) if len(kind) <= 20 else f"(list of length {len(kind)})"
        details = f"{name}: '{value}' not in {shown}"
        return [_reason("value_not_in_list", "Value not in list", details, name, **extra)]
    return []


def _converted(kind: Any, value: Any) -> Any:
    if kind == "INT":
        return int(value)
    if kind == "FLOAT":
        return float(value)
    if kind == "STRING":
        return str(value)
    if kind == "BOOLEAN":
        return bool(value)
    return value


def _reason(kind: str, message: str, details: str, input_name: str, **extra: Any) -> dict[str, Any]:
    info = {"input_name": input_name, **extra}
    return {"type": kind, "message": message, "details": details, "extra_info": info}


def _exception(fault: Exception, kind: str, message: str) -> dict[str, Any]:
    info = {"exception_type": type(fault).__name__, "traceback": []}
    return {"type": kind, "message": message, "details": str(fault), "extra_info": info}
