"""A small gateway: the worker API and an object store on a real port, in this process.

Each of its answers is held against the real application's routes and models (`tests.worker.contract`),
and its problems are made by the application's own code.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from aiohttp import web
from pydantic import BaseModel

from gateway.http.problems import problem_of
from generation.domain.errors import StaleLease, WorkerNotAllowed
from ledger.errors import LogUnavailable
from sandbox.embedded.ports import free_port
from tests.waiting import SECONDS_MAX
from tests.worker.contract import wrong_with
from worker.protocol import (
    WORKER_STATE,
    ClaimRequest,
    CompleteRequest,
    FailRequest,
    GiveBackRequest,
    GraphsRequest,
    HeartbeatRequest,
    RegisterRequest,
    SelfTestRequest,
)

ONE_TIME_TOKEN = "reg_" + "x" * 20
Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]
ENDS = {"complete": "completed", "fail": "failed", "give-back": "queued"}
"""The job's state after each report."""


@dataclass
class FakeGateway:
    """Offers jobs, keeps what is reported. Hostile behaviour is switched on by its fields."""

    port: int = field(default_factory=free_port)
    jobs: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)
    reports: list[tuple[str, str, BaseModel]] = field(default_factory=list)
    beats: list[HeartbeatRequest] = field(default_factory=list)
    stored: dict[str, bytes] = field(default_factory=dict)
    registrations: list[RegisterRequest] = field(default_factory=list)
    offers: list[list[str]] = field(default_factory=list)
    """The graphs of each announcement."""
    calls: Counter[str] = field(default_factory=Counter)
    failing: Counter[str] = field(default_factory=Counter)
    command: str = "continue"
    stale: bool = False
    store_is_deaf: bool = False
    """Uploads are never answered."""
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    """An upload that was not answered was broken off."""
    token_seconds: float = 86_400
    used_tokens: set[str] = field(default_factory=set)
    tokens: set[str] = field(default_factory=set)
    leaked: list[str] = field(default_factory=list)
    drained: asyncio.Event = field(default_factory=asyncio.Event)
    quarantined: asyncio.Event = field(default_factory=asyncio.Event)
    self_tests: asyncio.Queue[SelfTestRequest] = field(default_factory=asyncio.Queue)
    reported: asyncio.Event = field(default_factory=asyncio.Event)
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    claiming: asyncio.Event = field(default_factory=asyncio.Event)
    sketches: dict[str, bytes] = field(default_factory=dict)
    drifted: list[str] = field(default_factory=list)
    """Answers that the application would never give."""
    _runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        app = web.Application(client_max_size=64 * 1024 * 1024, middlewares=[self._held_to_the_contract])
        app.router.add_post("/v1/worker/register", self._register)
        app.router.add_post("/v1/worker/renew", self._renew)
        app.router.add_post("/v1/worker/graphs", self._graphs)
        app.router.add_post("/v1/worker/claim", self._claim)
        app.router.add_post("/v1/worker/drain", self._drain)
        app.router.add_post("/v1/worker/resume", self._resume)
        app.router.add_post("/v1/worker/self-test", self._self_test)
        app.router.add_post("/v1/worker/jobs/{id}/{what}", self._job)
        app.router.add_get("/sketches/{name}", self._sketch)
        app.router.add_put("/store/{name}", self._store)
        app.router.add_post("/v1/worker/trial-upload", self._trial_target)
        app.router.add_post("/v1/worker/trial-upload/end", self._end_trial)
        app.router.add_put("/trial", self._trial)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
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

    async def report(self, seconds: float = SECONDS_MAX) -> tuple[str, Any]:
        """The next report: what it was, and its body."""
        await asyncio.wait_for(self.reported.wait(), seconds)
        self.reported.clear()
        what, _, body = self.reports[-1]
        return what, body

    @web.middleware
    async def _held_to_the_contract(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            answer = await handler(request)
        except WorkerNotAllowed as error:
            answer = problem(error)
        if request.path.startswith("/v1/"):
            assert isinstance(answer, web.Response)
            assert answer.body is None or isinstance(answer.body, bytes)
            wrong = wrong_with(
                request.method, request.path, answer.status, answer.content_type, answer.body or b""
            )
            if wrong is not None:
                self.drifted.append(f"{request.method} {request.path} {answer.status}: {wrong}")
        return answer

    def _answer(self, status: int) -> web.Response:
        token = f"wrk_{len(self.tokens)}"
        self.tokens.add(token)
        expires = datetime.now(UTC) + timedelta(seconds=self.token_seconds)
        body = {
            "worker_id": "wrk",
            "token": token,
            "expires_at": expires.isoformat(),
            "heartbeat_seconds": 0.5,
        }
        return web.json_response(body | {"lease_seconds": 30}, status=status)

    async def _register(self, request: web.Request) -> web.Response:
        self.calls["register"] += 1
        request_body = RegisterRequest.model_validate_json(await request.read())
        if self._breaks("register"):
            return problem(LogUnavailable())
        if request_body.token != ONE_TIME_TOKEN or request_body.token in self.used_tokens:
            raise WorkerNotAllowed
        self.used_tokens.add(request_body.token)
        self.registrations.append(request_body)
        return self._answer(201)

    async def _renew(self, request: web.Request) -> web.Response:
        self.calls["renew"] += 1
        self._authenticate(request)
        self.token_seconds = 86_400
        return self._answer(200)

    async def _graphs(self, request: web.Request) -> web.Response:
        self.calls["graphs"] += 1
        self._authenticate(request)
        self.offers.append(GraphsRequest.model_validate_json(await request.read()).graphs)
        return web.json_response({"state": "active"})

    async def _claim(self, request: web.Request) -> web.Response:
        self.calls["claim"] += 1
        self._authenticate(request)
        if self._breaks("claim"):
            return problem(LogUnavailable())
        wait = ClaimRequest.model_validate_json(await request.read()).wait_seconds
        self.claiming.set()
        if self.quarantined.is_set():
            return web.Response(status=204, headers={WORKER_STATE: "quarantined"})
        next_job = asyncio.create_task(self.jobs.get())
        drained = asyncio.create_task(self.drained.wait())
        await asyncio.wait({next_job, drained}, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
        drained.cancel()
        if next_job.done():
            return web.json_response({"job": next_job.result()})
        next_job.cancel()
        return web.Response(status=204)

    async def _self_test(self, request: web.Request) -> web.Response:
        self._authenticate(request)
        outcome = SelfTestRequest.model_validate_json(await request.read())
        if outcome.passed:
            self.quarantined.clear()
        self.self_tests.put_nowait(outcome)
        return web.json_response({"state": "active" if outcome.passed else "quarantined"})

    async def _resume(self, request: web.Request) -> web.Response:
        self.calls["resume"] += 1
        self._authenticate(request)
        self.drained.clear()
        return web.json_response({"state": "active"})

    async def _drain(self, request: web.Request) -> web.Response:
        self.calls["drain"] += 1
        self._authenticate(request)
        self.drained.set()
        return web.json_response({"state": "draining"})

    async def _job(self, request: web.Request) -> web.Response:
        self._authenticate(request)
        what, job_id = request.match_info["what"], request.match_info["id"]
        self.calls[what] += 1
        if self._breaks(what):
            return problem(LogUnavailable())
        body = await request.read()
        if what == "heartbeat":
            beat = HeartbeatRequest.model_validate_json(body)
            self.beats.append(beat)
            if beat.progress is not None:
                self.moved.set()
            return web.json_response({"command": self.command, "lease_expires_at": None})
        if self.stale:
            self.reported.set()
            return problem(StaleLease(state="running", epoch=2))
        shapes: dict[str, type[BaseModel]] = {
            "complete": CompleteRequest,
            "fail": FailRequest,
            "give-back": GiveBackRequest,
        }
        self.reports.append((what, job_id, shapes[what].model_validate_json(body)))
        self.reported.set()
        return web.json_response({"state": ENDS[what]})

    async def _sketch(self, request: web.Request) -> web.Response:
        if self._breaks("sketch"):
            return web.Response(status=503)
        return web.Response(body=self.sketches[request.match_info["name"]], content_type="image/png")

    async def _store(self, request: web.Request) -> web.Response:
        self.calls["store"] += 1
        content = await request.read()
        if self.store_is_deaf:
            try:
                await asyncio.Event().wait()
            finally:
                self.hung_up.set()
        if self._breaks("store"):
            return web.Response(status=503)
        self.stored[request.match_info["name"]] = content
        return web.Response(status=200)

    async def _trial_target(self, request: web.Request) -> web.Response:
        self._authenticate(request)
        return web.json_response({"url": "/trial", "headers": {}, "max_bytes": 4_194_304})

    async def _end_trial(self, request: web.Request) -> web.Response:
        self._authenticate(request)
        return web.json_response({"state": "active"})

    async def _trial(self, request: web.Request) -> web.Response:
        self.calls["trial"] += 1
        await request.read()
        if self.store_is_deaf:
            await asyncio.Event().wait()
        return web.Response(status=503 if self._breaks("trial") else 200)

    def _breaks(self, what: str) -> bool:
        if self.failing[what] <= 0:
            return False
        self.failing[what] -= 1
        return True

    def _authenticate(self, request: web.Request) -> None:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in self.tokens:
            raise WorkerNotAllowed


def problem(error: Exception) -> web.Response:
    """As the application words it."""
    answer = problem_of(error).response()
    return web.Response(body=answer.body, status=answer.status_code, content_type=answer.media_type)
