"""A real gateway on a real port, a box that speaks the worker protocol, and people who ask for images."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from PIL import Image, ImageDraw

from gateway.services import Services
from ledger.clock import Clock
from rails.contract import PieceState, Rail, RailContext
from rails.fake import FakeNetwork, FakeRail
from tests.waiting import eventually


@dataclass
class FakePlugin:
    """The fake rail as an installed plugin, and the network behind it."""

    clock: Clock
    name: str = "fake"
    network: FakeNetwork = field(init=False)

    def __post_init__(self) -> None:
        self.network = FakeNetwork(self.clock, finality=PieceState.SETTLED)

    def configured(self, environ: Mapping[str, str]) -> bool:
        return True

    def build(self, environ: Mapping[str, str], context: RailContext) -> Rail:
        return FakeRail(self.network)


@dataclass
class Gateway:
    """A running gateway."""

    url: str
    app: FastAPI
    fake: FakePlugin
    opened: list[httpx.AsyncClient] = field(default_factory=list)

    @property
    def services(self) -> Services:
        services: Services = self.app.state.services
        return services

    def client(self, **headers: str) -> httpx.AsyncClient:
        client = httpx.AsyncClient(base_url=self.url, headers=headers, timeout=30)
        self.opened.append(client)
        return client

    async def close(self) -> None:
        """Close all clients."""
        for client in self.opened:
            await client.aclose()

    async def visitor(self) -> httpx.AsyncClient:
        """Somebody new, with today's free images."""
        client = self.client()
        token = (await client.post("/v1/visitors")).json()["token"]
        client.headers["Authorization"] = f"Bearer {token}"
        return client

    async def box(self, name: str = "box") -> Box:
        """A registered worker."""
        tokens = self.services.registry.tokens
        token = tokens.mint(valid_for=timedelta(minutes=5))
        client = self.client()
        message = {
            "token": token,
            "name": name,
            "version": "test",
            "protocol": 1,
            "capabilities": {"graphs": ["sketch@1"], "gpu": "none", "vram_mb": 0},
        }
        answer = await client.post("/v1/worker/register", json=message)
        client.headers["Authorization"] = f"Bearer {answer.json()['token']}"
        return Box(client, answer.json()["worker_id"])


@dataclass
class Box:
    """A worker that paints whatever it is told to."""

    client: httpx.AsyncClient
    worker_id: str

    async def claim(self, wait_seconds: float = 5) -> dict[str, Any] | None:
        answer = await self.client.post("/v1/worker/claim", json={"wait_seconds": wait_seconds})
        return answer.json()["job"] if answer.status_code == 200 else None

    async def upload(self, job: dict[str, Any], data: bytes) -> None:
        answer = await self.client.put(job["upload"]["url"], content=data, headers={"Authorization": ""})
        answer.raise_for_status()

    async def report(self, job: dict[str, Any], data: bytes, **changes: Any) -> httpx.Response:
        message = {
            "epoch": job["epoch"],
            "sha256": hashlib.sha256(data).hexdigest(),
            "size": len(data),
            "content_type": "image/png",
            "gpu_ms": 1200,
            **changes,
        }
        return await self.client.post(f"/v1/worker/jobs/{job['id']}/complete", json=message)

    async def paint(self, wait_seconds: float = 5) -> str:
        """Take a job and deliver it; returns its id."""
        job = await self.claim(wait_seconds)
        assert job is not None, "there was no job"
        data = picture()
        await self.upload(job, data)
        (await self.report(job, data)).raise_for_status()
        return str(job["id"])


def picture(side: int = 64, colour: str = "#b83f24") -> bytes:
    """A small image that is not blank."""
    image = Image.new("RGB", (side, side), "white")
    ImageDraw.Draw(image).ellipse((8, 8, side - 8, side - 8), fill=colour)
    output = io.BytesIO()
    image.save(output, "PNG")
    return output.getvalue()


def wish(prompt: str = "a llama", **more: Any) -> dict[str, Any]:
    """The body of POST /v1/generations."""
    data = base64.b64encode(picture()).decode()
    return {"prompt": prompt, "sketch": {"content_type": "image/png", "data": data}, **more}


async def serve(app: FastAPI, host: str, port: int) -> tuple[uvicorn.Server, asyncio.Task[None]]:
    """Start uvicorn in this loop and wait until it serves."""
    server = uvicorn.Server(
        uvicorn.Config(app, host=host, port=port, log_config=None, timeout_graceful_shutdown=1)
    )
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server.serve())
    await eventually(lambda: server.started or task.done(), "the gateway serves")
    if task.done():
        task.result()
    return server, task
