"""The HTTP and WebSocket routes of a ComfyUI server, and the sandbox's own controls."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import json
import os
import platform
import sys
import threading
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from aiohttp import WSMsgType, web

from sandbox.comfyui.executor import Executor
from sandbox.comfyui.faults import Faults
from sandbox.comfyui.fluxnodes import flux_nodes
from sandbox.comfyui.inventory import Inventory
from sandbox.comfyui.jobs import describe_job, list_jobs
from sandbox.comfyui.nodeclass import Settings
from sandbox.comfyui.nodes import basic_nodes
from sandbox.comfyui.promptqueue import PromptQueue
from sandbox.comfyui.sockets import SERVER_FEATURES, Sockets
from sandbox.comfyui.validation import problem, validate_graph

VERSION = "0.25.0"
_UPLOAD_LIMIT = 104857600
PROMPT_ID_RULE = (
    "prompt_id must be a UUID string in canonical lowercase hyphenated form; "
    "omit it to let the server generate one"
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ComfyServer:
    """One server: routes on the event loop, execution on one thread."""

    def __init__(self, settings: Settings, argv: list[str]) -> None:
        self._settings = settings
        self._argv = argv
        classes = {node.name: node for node in (*basic_nodes(), *flux_nodes())}
        self._sockets = Sockets()
        self._queue = PromptQueue(self._queue_changed)
        self._faults = Faults()
        self._inventory = Inventory(classes, self._faults)
        self._executor = Executor(self._queue, self._sockets, classes, settings, self._faults)
        self._number = 0

    def application(self) -> web.Application:
        """The aiohttp application; its start-up starts the execution thread."""
        app = web.Application(client_max_size=_UPLOAD_LIMIT, middlewares=[refuse_foreign_origins])
        routes: list[tuple[str, str, Handler]] = [
            ("GET", "/ws", self._ws),
            ("GET", "/prompt", self._get_prompt),
            ("POST", "/prompt", self._post_prompt),
            ("GET", "/queue", self._get_queue),
            ("POST", "/queue", self._post_queue),
            ("POST", "/interrupt", self._interrupt),
            ("GET", "/history", self._get_history),
            ("POST", "/history", self._post_history),
            ("GET", "/history/{prompt_id}", self._get_history_entry),
            ("POST", "/free", self._free),
            ("GET", "/jobs", self._get_jobs),
            ("GET", "/jobs/{job_id}", self._get_job),
            ("GET", "/view", self._view),
            ("POST", "/upload/image", self._upload),
            ("GET", "/system_stats", self._system_stats),
            ("GET", "/object_info", self._object_info),
            ("GET", "/object_info/{node}", self._object_info),
            ("GET", "/features", self._features),
        ]
        for method, path, handler in routes:
            if not path.startswith("/jobs"):
                app.router.add_route(method, path, handler)
            app.router.add_route(method, "/api" + path, handler)
        app.router.add_get("/sandbox/health", self._health)
        app.router.add_get("/sandbox/faults", self._get_faults)
        app.router.add_post("/sandbox/faults", self._post_faults)
        app.cleanup_ctx.append(self._background)
        return app

    async def _background(self, app: web.Application) -> Any:
        delivery = asyncio.create_task(self._sockets.deliver())
        thread = threading.Thread(target=self._executor.work, name="execution", daemon=True)
        thread.start()
        yield
        self._executor.stopping.set()
        self._executor.interrupt()
        self._queue.close()
        delivery.cancel()
        await asyncio.gather(delivery, return_exceptions=True)
        await asyncio.to_thread(thread.join, 5.0)

    def _queue_changed(self) -> None:
        self._sockets.send("status", {"status": self._queue_info()})

    def _queue_info(self) -> dict[str, Any]:
        return {"exec_info": {"queue_remaining": self._queue.remaining()}}

    # --- sockets ---

    async def _ws(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        client_id = request.query.get("clientId", "") or uuid.uuid4().hex
        self._sockets.open(client_id, socket)
        try:
            self._sockets.send("status", {"status": self._queue_info(), "sid": client_id}, client_id)
            if self._executor.client_id == client_id and self._executor.last_node_id is not None:
                self._sockets.send("executing", {"node": self._executor.last_node_id}, client_id)
            first = True
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    if first:
                        self._greet(client_id, message.data)
                    first = False
        finally:
            self._sockets.closed(client_id)
        return socket

    def _greet(self, client_id: str, text: str) -> None:
        try:
            message = json.loads(text)
        except ValueError:
            return
        if message.get("type") == "feature_flags":
            self._sockets.remember_flags(client_id, message.get("data", {}))
            self._sockets.send("feature_flags", SERVER_FEATURES, client_id)

    # --- prompts and the queue ---

    async def _get_prompt(self, request: web.Request) -> web.Response:
        return web.json_response(self._queue_info())

    async def _post_prompt(self, request: web.Request) -> web.Response:
        body = await request.json()
        if "prompt" not in body:
            return _refused(problem("no_prompt", "No prompt provided", "No prompt provided"))
        if "number" in body:
            number = float(body["number"])
        else:
            number = -self._number if body.get("front") else self._number
            self._number += 1
        graph = body["prompt"]
        wanted = body.get("prompt_id")
        prompt_id = str(uuid.uuid4()) if wanted is None else wanted
        if not is_prompt_id(prompt_id):
            return _refused(problem("invalid_prompt_id", "prompt_id must be a valid UUID", PROMPT_ID_RULE))
        verdict = validate_graph(graph, self._inventory.classes(), self._settings.folders)
        if verdict.error is not None:
            return _refused(verdict.error, verdict.node_errors)
        extra = dict(body.get("extra_data", {}))
        if "client_id" in body:
            extra["client_id"] = body["client_id"]
        extra["create_time"] = int(time.time() * 1000)
        self._queue.put((number, prompt_id, graph, extra, verdict.outputs))
        if self._faults.take("lose_prompt_answer") and request.transport is not None:
            request.transport.close()
        accepted = {"prompt_id": prompt_id, "number": number, "node_errors": verdict.node_errors}
        return web.json_response(accepted)

    async def _get_queue(self, request: web.Request) -> web.Response:
        running, pending = self._queue.view()
        return web.json_response({"queue_running": running, "queue_pending": pending})

    async def _post_queue(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body.get("clear"):
            self._queue.clear()
        self._queue.delete(body.get("delete", []))
        return web.Response(status=200)

    async def _interrupt(self, request: web.Request) -> web.Response:
        try:
            wanted = (await request.json()).get("prompt_id")
        except ValueError:
            wanted = None
        if not self._faults.take("lose_interrupt") and (
            wanted is None or wanted in self._queue.running_ids()
        ):
            self._executor.interrupt()
        return web.Response(status=200)

    async def _get_history(self, request: web.Request) -> web.Response:
        return web.json_response(self._queue.history())

    async def _get_history_entry(self, request: web.Request) -> web.Response:
        return web.json_response(self._queue.history(request.match_info["prompt_id"]))

    async def _post_history(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body.get("clear"):
            self._queue.forget()
        self._queue.forget(body.get("delete", []))
        return web.Response(status=200)

    async def _free(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body.get("unload_models") or body.get("free_memory"):
            self._executor.unload.set()
        return web.Response(status=200)

    async def _get_jobs(self, request: web.Request) -> web.Response:
        try:
            return web.json_response(list_jobs(request.query, self._queue))
        except ValueError as fault:
            return web.json_response({"error": str(fault)}, status=400)

    async def _get_job(self, request: web.Request) -> web.Response:
        job = describe_job(request.match_info["job_id"], self._queue)
        if job is None:
            return web.json_response({"error": "Job not found"}, status=404)
        return web.json_response(job)

    # --- files ---

    async def _view(self, request: web.Request) -> web.StreamResponse:
        if ".." in request.query.get("filename", ""):
            return web.Response(status=400)
        path = self._file(
            request.query.get("filename", ""),
            request.query.get("subfolder", ""),
            request.query.get("type", "output"),
        )
        if path is None:
            return web.Response(status=400)
        if not path.is_file():
            return web.Response(status=404)
        disposition = f'filename="{path.name}"'
        return web.FileResponse(path, headers={"Content-Disposition": disposition})

    def _file(self, name: str, subfolder: str, kind: str) -> Path | None:
        root = self._settings.folders.of_type(kind)
        if root is None or not name or name.startswith("/"):
            return None
        path = (root / subfolder / name).resolve()
        return path if path.is_relative_to(root.resolve()) else None

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        image = form.get("image")
        if not isinstance(image, web.FileField):
            return web.Response(status=400)
        kind, subfolder = str(form.get("type", "input")), str(form.get("subfolder", ""))
        path = self._file(image.filename, subfolder, kind)
        if path is None:
            return web.Response(status=400)
        content = image.file.read()
        if str(form.get("overwrite")) not in {"true", "1"}:
            path = free_name(path, content)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return web.json_response({"name": path.name, "subfolder": subfolder, "type": kind})

    # --- about the server ---

    async def _system_stats(self, request: web.Request) -> web.Response:
        page = os.sysconf("SC_PAGE_SIZE")
        total, free = (page * os.sysconf(name) for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
        system = {
            "os": sys.platform,
            "ram_total": total,
            "ram_free": free,
            "comfyui_version": VERSION,
            "required_frontend_version": "1.45.15",
            "installed_templates_version": None,
            "required_templates_version": "0.10.0",
            "comfy_package_versions": [],
            "deploy_environment": "local-git",
            "python_version": sys.version,
            "pytorch_version": "sandbox",
            "embedded_python": False,
            "argv": self._argv,
        }
        device = {
            "name": f"cpu ({platform.machine()})",
            "type": "cpu",
            "index": None,
            "vram_total": total,
            "vram_free": free,
            "torch_vram_total": total,
            "torch_vram_free": free,
        }
        return web.json_response({"system": system, "devices": [device]})

    async def _object_info(self, request: web.Request) -> web.Response:
        wanted = request.match_info.get("node")
        classes = self._inventory.classes()
        names = list(classes) if wanted is None else [wanted] if wanted in classes else []
        folders = self._settings.folders
        return web.json_response({name: classes[name].describe(folders) for name in names})

    async def _features(self, request: web.Request) -> web.Response:
        return web.json_response(SERVER_FEATURES)

    async def _health(self, request: web.Request) -> web.Response:
        remaining, fail_word = self._queue.remaining(), self._settings.fail_word
        return web.json_response({"state": "ok", "queue_remaining": remaining, "fail_word": fail_word})

    async def _get_faults(self, request: web.Request) -> web.Response:
        return web.json_response(self._faults.all())

    async def _post_faults(self, request: web.Request) -> web.Response:
        try:
            return web.json_response(self._faults.change(await request.json()))
        except ValueError as fault:
            return web.json_response({"error": str(fault)}, status=400)


def _refused(error: dict[str, Any], node_errors: dict[str, Any] | None = None) -> web.Response:
    return web.json_response({"error": error, "node_errors": node_errors or {}}, status=400)


def is_prompt_id(wanted: Any) -> bool:
    """Whether this is a UUID in its canonical form: nothing else names a prompt."""
    try:
        return isinstance(wanted, str) and str(uuid.UUID(wanted)) == wanted
    except ValueError:
        return False


def free_name(path: Path, content: bytes) -> Path:
    """A name that is free, or one whose file already has this content."""
    digest = hashlib.sha256(content).digest()
    candidate, number = path, 0
    while candidate.exists() and hashlib.sha256(candidate.read_bytes()).digest() != digest:
        number += 1
        candidate = path.with_name(f"{path.stem} ({number}){path.suffix}")
    return candidate


@web.middleware
async def refuse_foreign_origins(request: web.Request, handler: Handler) -> web.StreamResponse:
    """On loopback an Origin of another host is refused with 403, as the original does."""
    origin = urlparse(request.headers.get("Origin", ""))
    host = urlparse("//" + request.headers.get("Host", ""))
    if origin.netloc and host.netloc and _is_loopback(host.hostname):
        expected = host.netloc if origin.port is not None else host.hostname or ""
        if expected.lower() != origin.netloc.lower():
            return web.Response(status=403)
    return await handler(request)


def _is_loopback(host: str | None) -> bool:
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"
