"""A real gateway on a real port, a worker that speaks the worker protocol, and people who ask for images."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import io
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from PIL import Image, ImageDraw

from gateway.app import NODE_MODULES, create_app
from gateway.server import Server, server_config
from gateway.settings import Settings
from gateway.wiring.services import Services
from ledger.clock import Clock, system_clock
from ledger.identifiers import AccountId
from ledger.money import ASSETS, Money
from rails.contract import (
    Capabilities,
    Health,
    Instructions,
    Notification,
    Observation,
    Order,
    Rail,
    RailContext,
    RailPlugin,
    ReceiptState,
)
from rails.testing.fake_rail import FakeNetwork, FakeRail
from sandbox.embedded.ports import free_port
from tests.waiting import SECONDS_MAX, eventually, until

SECRET_KEY = "only-for-tests-" + "x" * 32


@dataclass
class FakePlugin:
    """The fake rail as an installed plugin, and the network behind it."""

    clock: Clock
    name: str = "fake"
    network: FakeNetwork = field(init=False)

    def __post_init__(self) -> None:
        self.network = FakeNetwork(self.clock, finality=ReceiptState.SETTLED, name=self.name)

    def configured(self, environ: Mapping[str, str]) -> bool:
        return True

    def build(self, environ: Mapping[str, str], context: RailContext) -> Rail:
        return FakeRail(self.network)


class QuietRail:
    """The fake rail without webhooks."""

    name = "quiet"

    def __init__(self, rail: FakeRail) -> None:
        self._rail = rail
        self.capabilities: Capabilities = rail.capabilities

    async def open(self, order: Order) -> Instructions:
        return await self._rail.open(order)

    async def observe(self, reference: str) -> Observation:
        return await self._rail.observe(reference)

    def listen(self, cursor: str | None) -> AsyncIterator[Notification]:
        return self._rail.listen(cursor)

    async def health(self) -> Health:
        return await self._rail.health()

    async def close(self) -> None:
        await self._rail.close()


class QuietPlugin(FakePlugin):
    """The quiet rail as an installed plugin."""

    def build(self, environ: Mapping[str, str], context: RailContext) -> Rail:
        return QuietRail(FakeRail(self.network))


@dataclass
class LateClock:
    """The system's clock, put forward by as much as a test wants."""

    ahead: timedelta = timedelta(0)

    def __call__(self) -> datetime:
        return system_clock() + self.ahead


@dataclass
class Gateway:
    """A running gateway."""

    url: str
    app: FastAPI
    fake: FakePlugin
    quiet: FakePlugin
    settings: Settings
    server: uvicorn.Server
    # Only plain HTTP is spoken here, and reading the certificates of the world takes long.
    tls: ssl.SSLContext = field(default_factory=lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    opened: list[httpx.AsyncClient] = field(default_factory=list)
    secrets: set[str] = field(default_factory=set)
    """What was given out and must never be read in a log."""

    @property
    def services(self) -> Services:
        services: Services = self.app.state.services
        return services

    def client(self, **headers: str) -> httpx.AsyncClient:
        client = httpx.AsyncClient(base_url=self.url, headers=headers, timeout=SECONDS_MAX, verify=self.tls)
        self.opened.append(client)
        return client

    async def close(self) -> None:
        """Close all clients."""
        for client in self.opened:
            await client.aclose()

    async def visitor(self) -> httpx.AsyncClient:
        """Somebody new, with today's free images."""
        token = (await self.client().post("/v1/visitors")).json()["token"]
        return self.bearer(token)

    def bearer(self, token: str) -> httpx.AsyncClient:
        """Whoever this token stands for."""
        self.secrets.add(token)
        return self.client(Authorization=f"Bearer {token}")

    def token_of(self, email: str) -> str:
        """A person's token, as the built-in issuer makes it."""
        issuer = self.services.identity.people.issuer
        assert issuer is not None
        return issuer.token(email)

    async def person(self, email: str) -> httpx.AsyncClient:
        """Somebody who is signed in."""
        return self.bearer(self.token_of(email))

    def browser(self) -> httpx.AsyncClient:
        """A browser on our own pages: cookies, and the headers that it sends by itself."""
        return self.client(Origin=self.url)

    async def top_up(self, client: httpx.AsyncClient, amount: int = 100) -> dict[str, Any]:
        """Open a top-up and pay it; returns the answer that opened it."""
        opened = await self.open_topup(client, amount)
        await self.pay(opened)

        async def paid() -> bool:
            return bool((await client.get(f"/v1/topups/{opened['id']}")).json()["state"] == "paid")

        await soon(paid, "the top-up was never paid")
        return opened

    async def open_topup(self, client: httpx.AsyncClient, amount: int = 100) -> dict[str, Any]:
        """A payment request, open."""
        body = {"rail": "fake", "credits": amount, "pay_asset": "USD"}
        answer = await client.post("/v1/topups", json=body)
        assert answer.status_code == 201, answer.text
        opened: dict[str, Any] = answer.json()
        if "recovery_code" in opened:
            self.secrets.add(opened["recovery_code"])
        return opened

    async def pay(self, topup: dict[str, Any]) -> None:
        """Pay what is due."""
        due = topup["amount_due"]
        amount = Money(due["amount_minor"], ASSETS[due["asset"]])
        await self.fake.network.pay(topup["instructions"]["text"], amount)

    async def spend_allowance(self, client: httpx.AsyncClient, left: int = 0) -> None:
        """Use up today's free images but so many, as images would, without painting them."""
        view = (await client.get("/v1/account")).json()
        await self.spend(view["id"], view["free_today"]["left"] - left)

    async def spend(self, account_id: str, images: int) -> None:
        """Use up so many credits as images would, without painting them."""
        base, ledger = self.services.base, self.services.ledger.ledger
        account, deadline = AccountId(account_id), base.clock() + timedelta(minutes=5)
        hold = await ledger.hold(account, images, job_id=base.identifiers.job(), deadline=deadline)
        await ledger.capture(account, hold)

    def registration_token(self) -> str:
        """What a worker registers with, once."""
        token = self.services.generation.registry.tokens.mint(valid_for=timedelta(minutes=5))
        self.secrets.add(token)
        return token

    async def worker(self, name: str = "worker") -> FakeWorker:
        """A registered worker."""
        token = self.registration_token()
        answer = await self.client().post("/v1/worker/register", json=registration(token, name=name))
        assert answer.status_code == 201, answer.text
        return FakeWorker(self.bearer(answer.json()["token"]), answer.json()["worker_id"])


def registration(token: str, **changes: Any) -> dict[str, Any]:
    """The body of POST /v1/worker/register."""
    return {
        "token": token,
        "name": "worker",
        "version": "test",
        "protocol": 1,
        "capabilities": {"graphs": ["sketch@1"], "gpu": "none", "vram_mb": 0},
        **changes,
    }


@dataclass
class FakeWorker:
    """A worker that paints whatever it is told to."""

    client: httpx.AsyncClient
    worker_id: str

    async def claim(self, wait_seconds: float = 30) -> dict[str, Any] | None:
        answer = await self.client.post("/v1/worker/claim", json={"wait_seconds": wait_seconds})
        assert answer.status_code in (200, 204), answer.text
        return answer.json()["job"] if answer.status_code == 200 else None

    async def take(self) -> dict[str, Any]:
        job = await self.claim()
        assert job is not None, "there was no job"
        return job

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

    async def say(self, job: dict[str, Any], what: str, **message: Any) -> httpx.Response:
        """Any other report about a job: heartbeat, fail, give-back."""
        body = {"epoch": job["epoch"], **message}
        return await self.client.post(f"/v1/worker/jobs/{job['id']}/{what}", json=body)

    async def deliver(self, job: dict[str, Any], data: bytes | None = None) -> httpx.Response:
        """Upload and report."""
        data = picture() if data is None else data
        await self.upload(job, data)
        return await self.report(job, data)

    async def paint(self) -> str:
        """Take a job and deliver it; returns its id."""
        job = await self.take()
        (await self.deliver(job)).raise_for_status()
        return str(job["id"])

    async def drain_queue(self) -> None:
        """Deliver whatever waits, so that the next job is the one that a test asks for."""
        while (job := await self.claim(0)) is not None:
            (await self.deliver(job)).raise_for_status()


def picture(side: int = 64, colour: str = "#b83f24") -> bytes:
    """A small image that is not blank."""
    image = Image.new("RGB", (side, side), "white")
    ImageDraw.Draw(image).ellipse((8, 8, side - 8, side - 8), fill=colour)
    output = io.BytesIO()
    image.save(output, "PNG")
    return output.getvalue()


def generation_request(prompt: str = "a llama", **more: Any) -> dict[str, Any]:
    """The body of POST /v1/generations."""
    return {"prompt": prompt, "sketch": sketch(picture()), **more}


def sketch(data: bytes, content_type: str = "image/png") -> dict[str, str]:
    """A drawing, as the API takes it."""
    return {"content_type": content_type, "data": base64.b64encode(data).decode()}


async def soon(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Return as soon as the condition holds; fail, saying what, if it never does."""
    await until(condition, lambda holds: holds, what, seconds_max=SECONDS_MAX)


async def operator_of(gateway: Gateway, email: str = "operator@example.com") -> httpx.AsyncClient:
    """Somebody whom the command line let in."""
    client = await gateway.person(email)
    account_id = (await client.get("/v1/account")).json()["id"]
    await gateway.services.identity.operators.add(account_id, "test")
    return client


async def credits_of(client: httpx.AsyncClient) -> dict[str, int]:
    """Posted, held, available and debt."""
    shown: dict[str, int] = (await client.get("/v1/account")).json()["credits"]
    return shown


def settings_for(database_url: str, redis_url: str, data: Path, **more: Any) -> Settings:
    """Settings of a gateway on a free port, with generous limits."""
    return Settings.model_validate(
        {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "environment": "embedded",
            "secret_key": SECRET_KEY,
            "public_url": f"http://127.0.0.1:{free_port()}",
            "data": data,
            "requests_per_minute": 100_000,
            "requests_per_minute_network": 100_000,
            "network_allowance_address": 100_000,
            "recovery_attempts_per_minute": 100_000,
            "refusals_per_second": 100_000,
            "idle_seconds": 75,  # longer than a client keeps one: it must not send on what is being closed
            **more,
        }
    )


@contextlib.asynccontextmanager
async def running(
    settings: Settings,
    *,
    clock: Clock = system_clock,
    plugins: Sequence[RailPlugin] | None = None,
    environ: Mapping[str, str] | None = None,
) -> AsyncIterator[Gateway]:
    """A gateway that serves as long as the context lasts, with other rails than the fake ones if given."""
    fake, quiet = FakePlugin(clock), QuietPlugin(clock, "quiet")
    app = create_app(
        settings,
        clock=clock,
        environ=environ or {},
        plugins=[fake, quiet] if plugins is None else plugins,
        node_modules=NODE_MODULES,
    )
    # People's https ends at a proxy before it; here nobody stands between.
    behind_tls = settings.public_url.startswith("https")
    url = f"http://127.0.0.1:{free_port()}" if behind_tls else settings.public_url
    host, _, port = url.removeprefix("http://").partition(":")
    server, task = await serve(app, host, int(port), settings)
    gateway = Gateway(url, app, fake, quiet, settings, server)
    try:
        yield gateway
    finally:
        await gateway.close()
        server.should_exit = True
        gateway.services.base.signals.close()
        await task


async def serve(
    app: FastAPI, host: str, port: int, settings: Settings
) -> tuple[uvicorn.Server, asyncio.Task[None]]:
    """Start uvicorn in this loop and wait until it serves."""
    server = Server(server_config(app, host, port, settings))
    task = asyncio.create_task(server._serve())
    await eventually(lambda: server.started or task.done(), "the server started")
    if task.done():
        task.result()
    return server, task
