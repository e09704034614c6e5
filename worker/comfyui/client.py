"""An async client for one ComfyUI server on loopback (protocol: ComfyUI 0.8 to 0.33)."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from worker.comfyui.faults import GraphRefused, RunLost, ServerDied, ServerUnreachable, understood

JsonObject = dict[str, Any]
OWNER_MARK = "llamasketch_worker"
"""In a prompt's extra data: which worker put it there."""


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A file on the server, as `/upload/image` and outputs name it."""

    filename: str
    subfolder: str
    kind: str

    @property
    def reference(self) -> str:
        """What a LoadImage node takes."""
        return f"{self.subfolder}/{self.filename}" if self.subfolder else self.filename


@dataclass(frozen=True, slots=True)
class QueueView:
    """Ids of prompts, running and pending, and those of them that carry the owner's mark."""

    running: frozenset[str]
    pending: frozenset[str]
    own: frozenset[str] = frozenset()

    def __contains__(self, prompt_id: object) -> bool:
        return prompt_id in self.running or prompt_id in self.pending


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPause:
    """How long the client waits, in seconds, and how often it asks."""

    request: float = 10.0
    poll: float = 1.5
    stall: float = 120.0
    interrupt_attempts: int = 12
    interrupt_pause: float = 0.4
    submit_checks: int = 4
    lost_polls: int = 2
    dead_polls: int = 2


class ComfyClient:
    """Requests of a ComfyUI server. Faults of the connection raise `ServerUnreachable`."""

    def __init__(
        self,
        base_url: str,
        http: httpx.AsyncClient,
        *,
        wait_max: RetryPause | None = None,
        new_id: Callable[[], uuid.UUID] = uuid.uuid4,
        owner: str | None = None,
        sleep: Callable[[float], Any] = asyncio.sleep,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.wait_max = wait_max or RetryPause()
        self.new_id = new_id
        self.owner = owner or str(new_id())
        """Put on every prompt: whatever else is in the queue is not ours to touch."""
        self.sleep = sleep
        self._http = http

    async def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One request; any answer is returned, whatever its status."""
        try:
            return await self._http.request(
                method, self.base_url + path, timeout=self.wait_max.request, **options
            )
        except httpx.TransportError as fault:
            raise ServerUnreachable(f"{method} {path}: {type(fault).__name__}") from fault

    async def _object(self, path: str) -> JsonObject:
        answer = await self.request("GET", path)
        if answer.status_code != httpx.codes.OK:
            raise ServerUnreachable(f"GET {path}: {answer.status_code}")
        return _json_object(answer)

    async def system_stats(self) -> JsonObject:
        """`/system_stats`: versions, memory, devices."""
        return await self._object("/system_stats")

    async def object_info(self) -> JsonObject:
        """`/object_info`: every node class with its inputs."""
        return await self._object("/object_info")

    async def queue(self) -> QueueView:
        """Which prompts run and which wait."""
        body = await self._object("/queue")
        with understood("/queue"):
            running, pending = (
                {str(item[1]): item[3] for item in body.get(name, ())}
                for name in ("queue_running", "queue_pending")
            )
        marks = running | pending
        own = frozenset(
            prompt_id
            for prompt_id, extra in marks.items()
            if isinstance(extra, Mapping) and extra.get(OWNER_MARK) == self.owner
        )
        return QueueView(frozenset(running), frozenset(pending), own)

    async def history(self, prompt_id: str) -> JsonObject | None:
        """The history entry; None while the prompt is unknown, waiting or running."""
        entry = (await self._object(f"/history/{prompt_id}")).get(prompt_id)
        return entry if isinstance(entry, dict) else None

    async def free(self) -> None:
        """Unload all models and empty the caches; done when the queue comes to it. Older servers cannot."""
        await self.request("POST", "/free", json={"unload_models": True, "free_memory": True})

    async def forget(self, prompt_id: str) -> None:
        """Remove a history entry, so that the server's memory does not grow."""
        await self.request("POST", "/history", json={"delete": [prompt_id]})

    async def upload(self, content: bytes, name: str, content_type: str = "image/png") -> StoredImage:
        """Upload an input image; the returned name may differ from the wished one."""
        files = {"image": (name, content, content_type)}
        answer = await self.request("POST", "/upload/image", files=files)
        if answer.status_code != httpx.codes.OK:
            raise ServerUnreachable(f"upload answered {answer.status_code}")
        with understood("/upload/image"):
            return stored_image(answer.json(), "name", "input")

    async def download(self, image: StoredImage) -> bytes | None:
        """The content of a stored image; None when the file is gone."""
        where = {"filename": image.filename, "subfolder": image.subfolder, "type": image.kind}
        answer = await self.request("GET", "/view", params=where)
        return answer.content if answer.status_code == httpx.codes.OK else None

    async def submit(self, graph: Mapping[str, Any], prompt_id: str, client_id: str) -> None:
        """Queue a graph under this id, once.

        An answer that is lost or 5xx proves nothing: the prompt may be queued all the same. So
        the queue and the history are asked, and it is never posted a second time. Raises
        `GraphRefused`, `RunLost` (not queued) or `ServerDied`.
        """
        mark = {OWNER_MARK: self.owner}
        body = {"prompt": graph, "prompt_id": prompt_id, "client_id": client_id, "extra_data": mark}
        try:
            answer = await self.request("POST", "/prompt", json=body)
        except ServerUnreachable:
            await self._find_after_lost_answer(prompt_id)
            return
        if answer.is_server_error:
            await self._find_after_lost_answer(prompt_id)
            return
        verdict = _json_object(answer)
        refused_nodes = verdict.get("node_errors") or {}
        node_errors = refused_nodes if isinstance(refused_nodes, dict) else {"?": refused_nodes}
        if answer.status_code == httpx.codes.OK and not node_errors:
            return
        if answer.status_code == httpx.codes.OK:
            # Some outputs would run without the others: for us that is a failure.
            await self.remove(prompt_id)
        raise GraphRefused(describe_refusal(verdict), node_errors)

    async def _find_after_lost_answer(self, prompt_id: str) -> None:
        gone: ServerUnreachable | None = None
        for _ in range(self.wait_max.submit_checks):
            try:
                if prompt_id in await self.queue() or await self.history(prompt_id) is not None:
                    return
                gone = None
            except ServerUnreachable as fault:
                gone = fault
            await self.sleep(self.wait_max.interrupt_pause)
        if gone is not None:
            raise ServerDied(gone.detail) from gone
        raise RunLost("the prompt was not queued")

    async def remove(self, prompt_id: str) -> bool:
        """Take a prompt out of the queue or interrupt it; True once the server let go of it.

        `/interrupt` answers 200 and may still be lost when the run is just starting, and is
        ignored for a pending prompt, as is a queue delete for a running one. So: look, act, look.
        """
        for _ in range(self.wait_max.interrupt_attempts):
            view = await self.queue()
            if prompt_id in view.pending:
                await self.request("POST", "/queue", json={"delete": [prompt_id]})
            elif prompt_id in view.running:
                await self.request("POST", "/interrupt", json={"prompt_id": prompt_id})
            else:
                return True
            await self.sleep(self.wait_max.interrupt_pause)
        return prompt_id not in await self.queue()

    async def clear(self) -> None:
        """Take out and interrupt what this owner left in the queue, and nothing of anybody else's."""
        for prompt_id in (await self.queue()).own:
            await self.remove(prompt_id)


def stored_image(about: Mapping[str, Any], named: str, kind: str) -> StoredImage:
    """A file as an answer names it. Raises what `understood` is for."""
    image = StoredImage(about[named], about.get("subfolder", ""), about.get("type", kind))
    if not all(isinstance(part, str) for part in (image.filename, image.subfolder, image.kind)):
        raise TypeError("not the name of a file")
    return image


def describe_refusal(verdict: Mapping[str, Any]) -> str:
    """A line for people from a 400 body or a 200 with `node_errors`."""
    reported: list[str] = []
    error = verdict.get("error")
    if isinstance(error, Mapping):
        reported.append(f"{error.get('message', '')} {error.get('details', '')}".strip())
    with contextlib.suppress(ServerUnreachable), understood("the refusal"):
        for node_id, node in (verdict.get("node_errors") or {}).items():
            reasons: Sequence[Mapping[str, Any]] = node.get("errors", ())
            reported += [
                f"{node.get('class_type')}#{node_id}: {reason.get('message')} ({reason.get('details')})"
                for reason in reasons
            ]
    return "; ".join(reported)[:500] or "refused without a reason"


def _json_object(answer: httpx.Response) -> JsonObject:
    try:
        body = answer.json()
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}
