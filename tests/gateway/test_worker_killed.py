"""kill -9 of a real worker at its worst moments: whatever it held is painted once, charged once, and nothing is left."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from subprocess import Popen
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import sqlalchemy as sa

from generation.images.object_store import DiskStore
from generation.store.tables import job_queue
from ledger.identifiers import JobId
from sandbox.embedded.ports import free_port
from tests.gateway.conftest import Open
from tests.gateway.stack import Gateway, credits_of, generation_request, sketch
from tests.waiting import SECONDS_MAX, eventually, until
from tests.worker.comfyui.pictures import sketch as drawing
from tests.worker.comfyui.server import ComfyServer
from tests.worker.program import program

SLOW = 40.0
"""How many times longer than anybody waits a picture takes that must not be finished."""


class Uplink:
    """The way from the worker to the object store. It can break off an upload, and say when that has happened."""

    def __init__(self, host: str, port: int) -> None:
        self._to = (host, port)
        self.port = free_port()
        self.stops_at: str | None = None
        self.stopped = asyncio.Event()
        self.closed = asyncio.Event()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Uplink]:
        async with await asyncio.start_server(self._pass_on, "127.0.0.1", self.port):
            yield self

    async def _pass_on(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        far, onward = await asyncio.open_connection(*self._to)
        try:
            head = await near.readuntil(b"\r\n\r\n")
            # One request per connection: what stops must be the upload and nothing else.
            onward.write(head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            # A worker's trial before its first claim passes.
            upload = head.startswith(b"PUT ") and b"/job_" in head.split(b"\r\n", 1)[0]
            if upload and self.stops_at == "half":
                onward.write(await near.readexactly(1000))
                await onward.drain()
                await self._stop(near)
            else:
                await self._whole(near, onward, head)
                answer = await far.read()
                if upload and self.stops_at == "answer":
                    await self._stop(near)
                else:
                    back.write(answer)
                    await back.drain()
        finally:
            onward.close()
            back.close()

    async def _whole(self, near: asyncio.StreamReader, onward: asyncio.StreamWriter, head: bytes) -> None:
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:] if line)
        length = int({name.lower(): value for name, value in fields.items()}.get("content-length", "0"))
        onward.write(await near.readexactly(length))
        await onward.drain()

    async def _stop(self, near: asyncio.StreamReader) -> None:
        """Until the worker hangs up, as it does when it dies."""
        self.stops_at = None
        self.stopped.set()
        try:
            while await near.read(65536):
                pass
        finally:
            self.closed.set()


@pytest.fixture(scope="module")
async def studio(open_gateway: Open) -> AsyncIterator[Gateway]:
    """A gateway with no worker but the one of these tests."""
    async with open_gateway() as gateway:
        yield gateway


@pytest.fixture(scope="module")
async def comfyui(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ComfyServer]:
    server = ComfyServer(tmp_path_factory.mktemp("comfyui"), "--paint-seconds", "0.2")
    await server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
async def uplink(studio: Gateway) -> AsyncIterator[Uplink]:
    address = urlsplit(studio.url)
    assert address.hostname is not None
    assert address.port is not None
    async with Uplink(address.hostname, address.port).open() as uplink:
        store = studio.services.generation.store
        assert isinstance(store, DiskStore)
        store._base_url = f"http://127.0.0.1:{uplink.port}"
        yield uplink


@pytest.fixture(scope="module")
def environment(
    studio: Gateway, comfyui: ComfyServer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """One worker for all tests: with another one about, it would not get back what it dropped."""
    token = studio.services.generation.registry.tokens.mint(valid_for=timedelta(minutes=5))
    return {
        "LLAMASKETCH_API_URL": studio.url,
        "LLAMASKETCH_WORKER_REGISTRATION_TOKEN": token,
        "LLAMASKETCH_WORKER_DATA_DIR": str(tmp_path_factory.mktemp("worker")),
        "LLAMASKETCH_WORKER_GATE_GRAPH": "invert@1",
        "COMFYUI_URL": comfyui.url,
        "COMFYUI_FOLDER": str(comfyui.folder),
    }


def kill(process: Popen[bytes]) -> None:
    assert process.poll() is None, "the worker ended by itself"
    process.send_signal(signal.SIGKILL)
    process.wait()


async def ask(client: httpx.AsyncClient) -> str:
    answer = await client.post(
        "/v1/generations", json=generation_request("a llama", sketch=sketch(drawing()))
    )
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def ends_delivered_once(
    studio: Gateway, comfyui: ComfyServer, client: httpx.AsyncClient, job_id: str
) -> None:
    """Wait for the image; then look into every corner."""

    async def shown() -> Any:
        return (await client.get(f"/v1/generations/{job_id}")).json()

    ended = await until(shown, lambda now: now["state"] not in ("queued", "running"), "the image is there")
    assert ended["state"] == "completed"
    assert (await client.get(f"/v1/generations/{job_id}/image", follow_redirects=True)).status_code == 200
    history = await studio.services.base.reader.events(job_id)
    assert [envelope.name for envelope in history] == [
        "generation.job_requested.v1",
        "generation.job_started.v1",
        "generation.job_requeued.v1",
        "generation.job_started.v1",
        "generation.job_completed.v1",
    ]
    entries = (await client.get("/v1/statement")).json()["entries"]
    assert Counter(entry["kind"] for entry in entries) == {"granted": 1, "held": 1, "captured": 1}
    assert await credits_of(client) == {"posted": 19, "held": 0, "available": 19, "debt": 0}
    async with studio.services.base.engine.connect() as connection:
        assert (await connection.execute(sa.select(job_queue.c.job_id))).all() == []
    queue = httpx.get(f"{comfyui.url}/queue").json()
    assert (queue["queue_running"], queue["queue_pending"]) == ([], [])
    objects = studio.settings.data / "objects"
    assert [str(path) for path in objects.glob(f"uploads/{job_id}/*")] == []
    await eventually(
        lambda: not list(comfyui.folder.glob(f"*/**/*{job_id}*")), "the worker keeps no picture of it"
    )


async def test_killed_while_it_paints(
    studio: Gateway, comfyui: ComfyServer, environment: dict[str, str], tmp_path: Path
) -> None:
    client = await studio.visitor()
    with program(tmp_path / "first.log", environment) as first:
        await eventually(lambda: '"ready"' in (tmp_path / "first.log").read_text(), "the worker is ready")
        comfyui.faults(slow=SLOW)
        job_id = await ask(client)

        async def progress() -> int:
            row = await studio.services.generation.queue.entry(JobId(job_id))
            return 0 if row is None else int(row.progress_max)

        await until(progress, lambda steps: steps > 0, "the picture has been begun")
        kill(first)
    assert len(httpx.get(f"{comfyui.url}/queue").json()["queue_running"]) == 1
    comfyui.faults(reset=True)
    with program(tmp_path / "second.log", environment):
        await ends_delivered_once(studio, comfyui, client, job_id)


@pytest.mark.parametrize("moment", [pytest.param("half", marks=pytest.mark.thorough), "answer"])
async def test_killed_while_it_uploads(
    studio: Gateway,
    comfyui: ComfyServer,
    uplink: Uplink,
    environment: dict[str, str],
    tmp_path: Path,
    moment: str,
) -> None:
    """`half`: the store has some of the image. `answer`: it has all of it, and the worker does not know."""
    client = await studio.visitor()
    uplink.stops_at = moment
    uplink.stopped.clear()
    uplink.closed.clear()
    with program(tmp_path / "first.log", environment) as first:
        job_id = await ask(client)
        async with asyncio.timeout(SECONDS_MAX):
            await uplink.stopped.wait()
        kill(first)
        async with asyncio.timeout(SECONDS_MAX):
            await uplink.closed.wait()
    assert await credits_of(client) == {"posted": 20, "held": 1, "available": 19, "debt": 0}
    with program(tmp_path / "second.log", environment):
        await ends_delivered_once(studio, comfyui, client, job_id)
