"""The live stream: durable frames are never missed, progress is only for the moment."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.gateway.conftest import Open
from tests.gateway.stack import Gateway, wish


@dataclass
class Frame:
    """One server-sent event."""

    event: str
    id: str | None
    data: Any


class Stream:
    """An open stream, frame by frame."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self._lines = answer.aiter_lines()

    async def next(self) -> Frame:
        fields: dict[str, str] = {}
        async with asyncio.timeout(15):
            async for line in self._lines:
                if line.startswith(":"):
                    continue
                if not line and fields:
                    return Frame(fields["event"], fields.get("id"), json.loads(fields["data"]))
                name, _, value = line.partition(": ")
                if name:
                    fields[name] = value
        raise EOFError

    async def until(self, event: str, **wanted: Any) -> list[Frame]:
        """All frames up to one of this kind with these members."""
        found = [await self.next()]
        while found[-1].event != event or any(found[-1].data.get(k) != v for k, v in wanted.items()):
            found.append(await self.next())
        return found


@asynccontextmanager
async def watching(client: httpx.AsyncClient, last: str | None = None) -> AsyncIterator[Stream]:
    headers = {"Last-Event-ID": last} if last else {}
    async with client.stream("GET", "/v1/events", headers=headers) as answer:
        assert answer.status_code == 200
        yield Stream(answer)


def jpeg(side: int) -> str:
    """A preview as a box sends it."""
    output = io.BytesIO()
    Image.new("RGB", (side, side), "#b83f24").save(output, "JPEG", quality=40)
    return base64.b64encode(output.getvalue()).decode()


async def test_a_stream_begins_with_the_account_and_is_kept_by_no_proxy(gateway: Gateway) -> None:
    client = await gateway.visitor()
    async with watching(client) as stream:
        headers = stream.answer.headers
        assert headers["content-type"].startswith("text/event-stream")
        assert headers["cache-control"] == "no-store"
        assert headers["x-accel-buffering"] == "no"
        assert "content-encoding" not in headers
        first = await stream.next()
    assert first.event == "account"
    assert first.id
    assert first.data["id"] == (await client.get("/v1/account")).json()["id"]


async def test_durable_frames_have_ids_and_progress_has_none(gateway: Gateway) -> None:
    client, box = await gateway.visitor(), await gateway.box()
    await box.drain_queue()
    async with watching(client) as stream:
        await stream.next()
        job_id = (await client.post("/v1/generations", json=wish())).json()["id"]
        frames = await stream.until("generation", id=job_id, state="queued")
        job = await box.take()
        frames += await stream.until("generation", id=job_id, state="running")
        preview = jpeg(128)
        await box.say(job, "heartbeat", progress={"value": 1, "max": 4}, preview=preview)
        frames += await stream.until("progress", id=job_id)
        await box.deliver(job)
        frames += await stream.until("generation", id=job_id, state="completed")
    assert all((frame.id is None) == (frame.event == "progress") for frame in frames)
    progress = next(frame for frame in frames if frame.event == "progress")
    assert (progress.data["value"], progress.data["max"]) == (1, 4)
    assert progress.data["preview"] == f"data:image/jpeg;base64,{preview}"
    assert frames[-1].data["image_url"] == f"/v1/generations/{job_id}/image"


async def test_what_is_not_a_small_jpeg_is_never_shown_as_a_preview(gateway: Gateway) -> None:
    client, box = await gateway.visitor(), await gateway.box()
    await box.drain_queue()
    await client.post("/v1/generations", json=wish())
    job = await box.take()
    async with watching(client) as stream:
        await stream.next()
        large = base64.b64encode(b"\xff\xd8\xff\xe0 not a picture").decode()
        for preview in ("bm90IGEganBlZw==", "!!!", large, jpeg(136)):
            await box.say(job, "heartbeat", progress={"value": 1, "max": 4}, preview=preview)
            frame = (await stream.until("progress"))[-1]
            assert not frame.data.get("preview")
    await box.deliver(job)


async def test_a_stream_that_resumes_misses_nothing_that_lasts(gateway: Gateway) -> None:
    client, box = await gateway.visitor(), await gateway.box()
    await box.drain_queue()
    async with watching(client) as stream:
        last = (await stream.next()).id
    done = (await client.post("/v1/generations", json=wish("done meanwhile"))).json()["id"]
    assert await box.paint() == done
    gone = (await client.post("/v1/generations", json=wish("cancelled meanwhile"))).json()["id"]
    await client.delete(f"/v1/generations/{gone}")
    paid = await gateway.top_up(client, 100)
    ends: dict[str, str] = {}
    async with watching(client, last) as stream:
        first = await stream.next()
        assert first.event == "account"
        while len(ends) < 3:
            frame = await stream.next()
            if frame.event in ("generation", "topup"):
                ends[frame.data["id"]] = frame.data["state"]
                last = frame.id
    assert ends == {done: "completed", gone: "cancelled", paid["id"]: "paid"}
    async with watching(client, last) as stream:
        await stream.next()
        later = (await client.post("/v1/generations", json=wish("later"))).json()["id"]
        frames = await stream.until("generation", id=later)
    assert not [frame for frame in frames if frame.data.get("id") == done]
    await client.delete(f"/v1/generations/{later}")


async def test_two_streams_of_one_account_see_the_same_and_a_third_persons_nothing(gateway: Gateway) -> None:
    client, stranger = await gateway.visitor(), await gateway.visitor()
    async with watching(client) as one, watching(client) as two, watching(stranger) as other:
        for stream in (one, two, other):
            await stream.next()
        job_id = (await client.post("/v1/generations", json=wish())).json()["id"]
        theirs = (await stranger.post("/v1/generations", json=wish())).json()["id"]
        for stream in (one, two):
            frames = await stream.until("generation", id=job_id)
            assert theirs not in json.dumps([frame.data for frame in frames])
        frames = await other.until("generation", id=theirs)
        assert job_id not in json.dumps([frame.data for frame in frames])
    await client.delete(f"/v1/generations/{job_id}")
    await stranger.delete(f"/v1/generations/{theirs}")


async def test_one_account_cannot_open_streams_without_end(gateway: Gateway) -> None:
    client = await gateway.visitor()
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        held = [asyncio.Event() for _ in range(20)]
        leave = asyncio.Event()

        async def hold(opened: asyncio.Event) -> None:
            async with watching(client) as stream:
                await stream.next()
                opened.set()
                await leave.wait()

        for opened in held:
            group.create_task(hold(opened))
        for opened in held:
            await opened.wait()
        answer = await client.get("/v1/events")
        assert (answer.status_code, answer.json()["code"]) == (429, "too_many_streams")
        leave.set()


async def test_streams_and_long_polls_end_when_the_server_stops(open_gateway: Open) -> None:
    async with open_gateway() as gateway:
        client, box = await gateway.visitor(), await gateway.box()
        async with watching(client) as stream:
            await stream.next()
            claim = asyncio.create_task(box.claim(30))
            gateway.services.signals.close()
            gateway.server.should_exit = True
            async with asyncio.timeout(4):
                assert await claim is None
                with pytest.raises(EOFError):
                    await stream.until("never")
