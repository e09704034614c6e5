"""A small gateway: the worker API and an object store on a real port, in this process."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web
from pydantic import BaseModel

from generation.worker.protocol import (
    ClaimRequest,
    CompleteRequest,
    FailRequest,
    GiveBackRequest,
    HeartbeatRequest,
    RegisterRequest,
)
from sandbox.embedded.running import free_port

ONE_TIME_TOKEN = "reg_" + "x" * 20


@dataclass
class FakeGateway:
    """Offers jobs, keeps what is reported. Hostile behaviour is switched on by its fields."""

    port: int = field(default_factory=free_port)
    jobs: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)
    reports: list[tuple[str, str, BaseModel]] = field(default_factory=list)
    beats: list[HeartbeatRequest] = field(default_factory=list)
    stored: dict[str, bytes] = field(default_factory=dict)
    registrations: list[RegisterRequest] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    failing: Counter[str] = field(default_factory=Counter)
    command: str = "continue"
    stale: bool = False
    token_seconds: float = 86_400
    used_tokens: set[str] = field(default_factory=set)
    tokens: set[str] = field(default_factory=set)
    leaked: list[str] = field(default_factory=list)
    drained: asyncio.Event = field(default_factory=asyncio.Event)
    reported: asyncio.Event = field(default_factory=asyncio.Event)
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    claiming: asyncio.Event = field(default_factory=asyncio.Event)
    sketches: dict[str, bytes] = field(default_factory=dict)
    _runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/worker/register", self._register)
        app.router.add_post("/v1/worker/renew", self._renew)
        app.router.add_post("/v1/worker/claim", self._claim)
        app.router.add_post("/v1/worker/drain", self._drain)
        app.router.add_post("/v1/worker/resume", self._resume)
        app.router.add_post("/v1/worker/jobs/{id}/{what}", self._job)
        app.router.add_get("/sketches/{name}", self._sketch)
        app.router.add_put("/store/{name}", self._store)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def offer(self, sketch: bytes, *, job_id: str = "job_1", epoch: int = 1, **changes: Any) -> str:
        """Queue a job; answers its id."""
        self.sketches[job_id] = sketch
        inputs = {"prompt": "a quiet llama", "seed": 7, "strength": 0.7, "width": 256, "height": 256}
        job = {
            "id": job_id,
            "epoch": epoch,
            "graph": "sketch@1",
            "inputs": inputs | changes.pop("inputs", {}),
            "sketch": {
                "url": f"/sketches/{job_id}",
                "sha256": hashlib.sha256(sketch).hexdigest(),
                "content_type": "image/png",
            },
            "upload": {
                "url": f"{self.url}/store/{job_id}-{epoch}",
                "headers": {"Content-Type": "image/png"},
                "max_bytes": 20_000_000,
            },
            "lease_seconds": 30,
            "deadline": (datetime.now(UTC) + timedelta(minutes=5)).isoformat(),
        }
        self.jobs.put_nowait(job | changes)
        return job_id

    async def report(self, seconds: float = 20.0) -> tuple[str, Any]:
        """The next report: what it was, and its body."""
        await asyncio.wait_for(self.reported.wait(), seconds)
        self.reported.clear()
        what, _, body = self.reports[-1]
        return what, body

    def _answer(self) -> web.Response:
        token = f"wrk_{len(self.tokens)}"
        self.tokens.add(token)
        expires = datetime.now(UTC) + timedelta(seconds=self.token_seconds)
        body = {
            "worker_id": "wrk",
            "token": token,
            "expires_at": expires.isoformat(),
            "heartbeat_seconds": 0.5,
        }
        return web.json_response(body | {"lease_seconds": 30}, status=201)

    async def _register(self, request: web.Request) -> web.Response:
        self.calls["register"] += 1
        wish = RegisterRequest.model_validate_json(await request.read())
        if self._breaks("register"):
            return web.json_response({"code": "unavailable"}, status=503)
        if wish.token != ONE_TIME_TOKEN or wish.token in self.used_tokens:
            return web.json_response({"code": "registration_token_refused"}, status=401)
        self.used_tokens.add(wish.token)
        self.registrations.append(wish)
        return self._answer()

    async def _renew(self, request: web.Request) -> web.Response:
        self.calls["renew"] += 1
        self._authenticate(request)
        self.token_seconds = 86_400
        return self._answer()

    async def _claim(self, request: web.Request) -> web.Response:
        self.calls["claim"] += 1
        self._authenticate(request)
        if self._breaks("claim"):
            return web.json_response({"code": "unavailable"}, status=503)
        wait = ClaimRequest.model_validate_json(await request.read()).wait_seconds
        self.claiming.set()
        next_job = asyncio.create_task(self.jobs.get())
        drained = asyncio.create_task(self.drained.wait())
        await asyncio.wait({next_job, drained}, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
        drained.cancel()
        if next_job.done():
            return web.json_response({"job": next_job.result()})
        next_job.cancel()
        return web.Response(status=204)

    async def _resume(self, request: web.Request) -> web.Response:
        self.calls["resume"] += 1
        self._authenticate(request)
        self.drained.clear()
        return web.json_response({"state": "active"})

    async def _drain(self, request: web.Request) -> web.Response:
        self.calls["drain"] += 1
        self._authenticate(request)
        self.drained.set()
        return web.json_response({})

    async def _job(self, request: web.Request) -> web.Response:
        self._authenticate(request)
        what, job_id = request.match_info["what"], request.match_info["id"]
        self.calls[what] += 1
        if self._breaks(what):
            return web.json_response({"code": "unavailable"}, status=503)
        body = await request.read()
        if what == "heartbeat":
            beat = HeartbeatRequest.model_validate_json(body)
            self.beats.append(beat)
            if beat.progress is not None:
                self.moved.set()
            return web.json_response({"command": self.command, "lease_expires_at": None})
        if self.stale:
            self.reported.set()
            return web.json_response({"code": "stale_lease"}, status=409)
        shapes: dict[str, type[BaseModel]] = {
            "complete": CompleteRequest,
            "fail": FailRequest,
            "give-back": GiveBackRequest,
        }
        self.reports.append((what, job_id, shapes[what].model_validate_json(body)))
        self.reported.set()
        return web.json_response({"state": what})

    async def _sketch(self, request: web.Request) -> web.Response:
        if self._breaks("sketch"):
            return web.Response(status=503)
        return web.Response(body=self.sketches[request.match_info["name"]], content_type="image/png")

    async def _store(self, request: web.Request) -> web.Response:
        self.calls["store"] += 1
        content = await request.read()
        if self._breaks("store"):
            return web.Response(status=503)
        self.stored[request.match_info["name"]] = content
        return web.Response(status=200)

    def _breaks(self, what: str) -> bool:
        if self.failing[what] <= 0:
            return False
        self.failing[what] -= 1
        return True

    def _authenticate(self, request: web.Request) -> None:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in self.tokens:
            raise web.HTTPUnauthorized(
                text='{"code":"worker_token_refused"}', content_type="application/problem+json"
            )
