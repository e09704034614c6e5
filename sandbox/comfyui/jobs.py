"""`GET /api/jobs` and `/api/jobs/{id}`: the facts of queue and history, put together for newer clients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sandbox.comfyui.promptqueue import PromptQueue

STATES = ("pending", "in_progress", "completed", "failed", "cancelled")
_IN_LISTS = ("outputs", "execution_status", "workflow")
"""Shown of one job alone."""


def list_jobs(query: Mapping[str, str], queue: PromptQueue) -> dict[str, Any]:
    """All jobs that the query wants, newest first unless it says otherwise. Raises `ValueError` with the reason."""
    states = [state.strip().lower() for state in query.get("status", "").split(",") if state.strip()]
    unknown = [state for state in states if state not in STATES]
    if unknown:
        valid = ", ".join(STATES)
        raise ValueError(f"Invalid status value(s): {', '.join(unknown)}. Valid values: {valid}")
    by, order = query.get("sort_by", "created_at").lower(), query.get("sort_order", "desc").lower()
    if by not in {"created_at", "execution_duration"}:
        raise ValueError("sort_by must be 'created_at' or 'execution_duration'")
    if order not in {"asc", "desc"}:
        raise ValueError("sort_order must be 'asc' or 'desc'")
    limit = _whole("limit", query.get("limit"))
    if limit is not None and limit <= 0:
        raise ValueError("limit must be a positive integer")
    offset = max(0, _whole("offset", query.get("offset")) or 0)
    running, pending = queue.view()
    ids = [*queue.history(), *(item[1] for item in (*running, *pending))]
    jobs = [job for job in (describe_job(prompt_id, queue) for prompt_id in ids) if job is not None]
    wanted = [job for job in jobs if not states or job["status"] in states]
    wanted.sort(key=_duration if by == "execution_duration" else _created, reverse=order == "desc")
    page = wanted[offset:] if limit is None else wanted[offset : offset + limit]
    shown = [{name: value for name, value in job.items() if name not in _IN_LISTS} for job in page]
    more = offset + len(page) < len(wanted)
    about = {"offset": offset, "limit": limit, "total": len(wanted), "has_more": more}
    return {"jobs": shown, "pagination": about}


def _whole(name: str, text: str | None) -> int | None:
    try:
        return None if text is None else int(text)
    except ValueError:
        raise ValueError(f"{name} must be an integer") from None


def _created(job: Mapping[str, Any]) -> int:
    return int(job.get("create_time") or 0)


def _duration(job: Mapping[str, Any]) -> int:
    return int(job.get("execution_end_time", 0)) - int(job.get("execution_start_time", 0))


def describe_job(prompt_id: str, queue: PromptQueue) -> dict[str, Any] | None:
    """The job's view, or None when neither queue nor history knows it."""
    entry = queue.history(prompt_id).get(prompt_id)
    if entry is not None:
        return _finished(prompt_id, entry)
    running, pending = queue.view()
    for state, items in (("in_progress", running), ("pending", pending)):
        for item in items:
            if item[1] == prompt_id:
                about = {"id": prompt_id, "status": state, "priority": item[0]}
                return {**about, "create_time": item[3].get("create_time"), "outputs_count": 0}
    return None


def _state(entry: Mapping[str, Any]) -> str:
    if entry["status"]["completed"]:
        return "completed"
    interrupted = any(kind == "execution_interrupted" for kind, _ in entry["status"]["messages"])
    return "cancelled" if interrupted else "failed"


def _finished(prompt_id: str, entry: dict[str, Any]) -> dict[str, Any]:
    number, _, graph, extra, _ = entry["prompt"]
    messages = dict(entry["status"]["messages"])
    ends = [messages[kind] for kind in messages if kind not in {"execution_start", "execution_cached"}]
    view: dict[str, Any] = {
        "id": prompt_id,
        "status": _state(entry),
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
