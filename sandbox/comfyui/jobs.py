"""`GET /api/jobs/{id}`: the same facts as queue and history, put together for newer clients."""

from __future__ import annotations

from typing import Any

from sandbox.comfyui.promptqueue import PromptQueue


def describe_job(prompt_id: str, queue: PromptQueue) -> dict[str, Any] | None:
    """The job's view, or None when neither queue nor history knows it."""
    entry = queue.history(prompt_id).get(prompt_id)
    if entry is not None:
        return _finished(prompt_id, entry)
    running, pending = queue.view()
    for state, items in (("in_progress", running), ("pending", pending)):
        for item in items:
            if item[1] == prompt_id:
                created = item[3].get("create_time")
                return {
                    "id": prompt_id,
                    "status": state,
                    "priority": item[0],
                    "create_time": created,
                    "outputs_count": 0,
                }
    return None


def _finished(prompt_id: str, entry: dict[str, Any]) -> dict[str, Any]:
    number, _, graph, extra, _ = entry["prompt"]
    messages = dict(entry["status"]["messages"])
    ends = [messages[kind] for kind in messages if kind not in {"execution_start", "execution_cached"}]
    view: dict[str, Any] = {
        "id": prompt_id,
        "status": "completed" if entry["status"]["completed"] else "failed",
        "priority": number,
        "create_time": extra.get("create_time"),
        "execution_start_time": messages["execution_start"]["timestamp"],
        "execution_end_time": ends[-1]["timestamp"],
    }
    if "execution_error" in messages:
        view["execution_error"] = messages["execution_error"]
    images = [
        {**image, "nodeId": node_id, "mediaType": "images"}
        for node_id, output in entry["outputs"].items()
        for image in output.get("images", [])
    ]
    view["outputs_count"] = len(images)
    if images:
        view["preview_output"] = images[0]
    view["outputs"] = entry["outputs"]
    view["execution_status"] = entry["status"]
    view["workflow"] = {"prompt": graph, "extra_data": extra}
    return view
