"""The live stream: durable frames are never missed, progress is only for the moment."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from urllib.parse import urlsplit

import pytest

from generation.queueing.signals import WATCHED_MAX
from tests.gateway.conftest import Logged, Open
from tests.gateway.stack import Gateway, generation_request
from tests.gateway.streaming import jpeg, watching
from tests.waiting import SECONDS_MAX, eventually


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
    client, worker = await gateway.visitor(), await gateway.worker()
    await worker.drain_queue()
    async with watching(client) as stream:
        await stream.next()
        job_id = (await client.post("/v1/generations", json=generation_request())).json()["id"]
        frames = await stream.until("generation", id=job_id, state="queued")
        job = await worker.take()
        frames += await stream.until("generation", id=job_id, state="running")
        preview = jpeg(128)
        await worker.say(job, "heartbeat", progress={"value": 1, "max": 4}, preview=preview)
        frames += await stream.until("progress", id=job_id, value=1)
        await worker.deliver(job)
        frames += await stream.until("generation", id=job_id, state="completed")
    assert all((frame.id is None) == (frame.event == "progress") for frame in frames)
    # One about its place in the queue may have come before.
    progress = next(frame for frame in frames if frame.event == "progress" and "value" in frame.data)
    assert (progress.data["value"], progress.data["max"]) == (1, 4)
    assert progress.data["preview"] == f"data:image/jpeg;base64,{preview}"
    assert frames[-1].data["image_url"] == f"/v1/generations/{job_id}/image"


async def test_what_is_not_a_small_jpeg_is_never_shown_as_a_preview(gateway: Gateway) -> None:
    client, worker = await gateway.visitor(), await gateway.worker()
    await worker.drain_queue()
    await client.post("/v1/generations", json=generation_request())
    job = await worker.take()
    async with watching(client) as stream:
        await stream.next()
        large = base64.b64encode(b"\xff\xd8\xff\xe0 not a picture").decode()
        for preview in ("bm90IGEganBlZw==", "!!!", large, jpeg(136)):
            await worker.say(job, "heartbeat", progress={"value": 1, "max": 4}, preview=preview)
            frame = (await stream.until("progress"))[-1]
            assert not frame.data.get("preview")
    await worker.deliver(job)


async def test_a_stream_that_resumes_misses_nothing_that_lasts(gateway: Gateway) -> None:
    client, worker = await gateway.visitor(), await gateway.worker()
    await worker.drain_queue()
    async with watching(client) as stream:
        last = (await stream.next()).id
    done = (await client.post("/v1/generations", json=generation_request("done meanwhile"))).json()["id"]
    assert await worker.paint() == done
    gone = (await client.post("/v1/generations", json=generation_request("cancelled meanwhile"))).json()["id"]
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
        later = (await client.post("/v1/generations", json=generation_request("later"))).json()["id"]
        frames = await stream.until("generation", id=later)
    assert not [frame for frame in frames if frame.data.get("id") == done]
    await client.delete(f"/v1/generations/{later}")


async def test_two_streams_of_one_account_see_the_same_and_a_third_persons_nothing(gateway: Gateway) -> None:
    client, stranger = await gateway.visitor(), await gateway.visitor()
    async with watching(client) as one, watching(client) as two, watching(stranger) as other:
        for stream in (one, two, other):
            await stream.next()
        job_id = (await client.post("/v1/generations", json=generation_request())).json()["id"]
        theirs = (await stranger.post("/v1/generations", json=generation_request())).json()["id"]
        for stream in (one, two):
            frames = await stream.until("generation", id=job_id)
            assert theirs not in json.dumps([frame.data for frame in frames])
        frames = await other.until("generation", id=theirs)
        assert job_id not in json.dumps([frame.data for frame in frames])
    await client.delete(f"/v1/generations/{job_id}")
    await stranger.delete(f"/v1/generations/{theirs}")


async def test_one_account_cannot_open_streams_without_end(gateway: Gateway) -> None:
    client = await gateway.visitor()
    async with asyncio.timeout(SECONDS_MAX), asyncio.TaskGroup() as group:
        held = [asyncio.Event() for _ in range(gateway.settings.streams_account)]
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
        client, worker = await gateway.visitor(), await gateway.worker()
        async with watching(client) as stream:
            await stream.next()
            claim = asyncio.create_task(worker.claim(30))
            await eventually(lambda: len(gateway.server.server_state.tasks) == 2, "both wait at the server")
            gateway.services.base.signals.close()
            gateway.server.should_exit = True
            async with asyncio.timeout(25):
                assert await claim is None
                with pytest.raises(EOFError):
                    await stream.until("never")


async def test_a_waiting_job_is_told_its_place_and_again_when_it_moves_up(gateway: Gateway) -> None:
    first, second, worker = await gateway.visitor(), await gateway.visitor(), await gateway.worker()
    await worker.drain_queue()
    await first.post("/v1/generations", json=generation_request("evidence of how long it takes"))
    await worker.paint()
    # Whoever has had nothing yet goes first.
    ahead = (await second.post("/v1/generations", json=generation_request())).json()["id"]
    job_id = (await first.post("/v1/generations", json=generation_request())).json()["id"]
    async with watching(first) as stream:
        returned = (await stream.until("progress", id=job_id))[-1]
        polled = (await first.get(f"/v1/generations/{job_id}")).json()
        assert (returned.id, returned.data["state"], returned.data["position"]) == (None, "queued", 2)
        assert 0 < returned.data["eta_seconds"]["low"] <= returned.data["eta_seconds"]["high"]
        # Who polls sees the same.
        assert (polled["state"], polled["position"]) == ("queued", 2)
        assert polled["eta_seconds"] == returned.data["eta_seconds"]
        assert await worker.paint() == ahead
        moved = (await stream.until("progress", id=job_id))[-1]
        assert (moved.data["position"], moved.data["state"]) == (1, "queued")
    assert await worker.paint() == job_id
    polled = (await first.get(f"/v1/generations/{job_id}")).json()
    assert (polled["state"], polled["image_url"]) == ("completed", f"/v1/generations/{job_id}/image")


async def test_a_new_connection_is_told_how_far_a_running_job_is(gateway: Gateway) -> None:
    client, worker = await gateway.visitor(), await gateway.worker()
    await worker.drain_queue()
    job_id = (await client.post("/v1/generations", json=generation_request())).json()["id"]
    job = await worker.take()
    await worker.say(job, "heartbeat", progress={"value": 3, "max": 4})
    for _ in range(2):
        async with watching(client) as stream:
            returned = (await stream.until("progress", id=job_id))[-1]
            assert returned.id is None
            assert returned.data == {"id": job_id, "state": "running", "value": 3, "max": 4}
    await worker.deliver(job)


async def test_a_reader_who_does_not_read_is_cut_off_and_piles_up_nothing(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    monkeypatch.setattr("gateway.routes.events.SEND_SECONDS_MAX", 0.5)
    client = await gateway.visitor()
    account_id = (await client.get("/v1/account")).json()["id"]
    services, address = gateway.services, urlsplit(gateway.url)
    with socket.socket() as sleeper:
        # A small window, so that little is under way.
        sleeper.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sleeper.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sleeper, (address.hostname, address.port))
        head = f"GET /v1/events HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: {client.headers['authorization']}\r\n\r\n"
        await asyncio.get_running_loop().sock_sendall(sleeper, head.encode())
        await eventually(lambda: account_id in services.base.signals.watched(), "the stream is open")
        (waiting,) = services.base.signals._watchers[account_id]
        longest, sent = 0, 0
        async with asyncio.timeout(SECONDS_MAX):
            while services.streams.of(account_id):
                message = {
                    "event": "progress",
                    "id": f"job {sent}",
                    "state": "running",
                    "preview": "x" * 16_000,
                }
                services.base.signals.deliver(account_id, message)
                longest, sent = max(longest, waiting.qsize()), sent + 1
                await asyncio.sleep(0)
    assert sent > longest
    assert longest <= WATCHED_MAX
    assert account_id not in services.base.signals._watchers
    cut_off = "slow_reader_cut_off"
    await eventually(lambda: any(cut_off in line for line in logged.lines), "the log says why")


async def test_a_slow_reader_gets_the_newest_progress_and_not_all_of_it(gateway: Gateway) -> None:
    client = await gateway.visitor()
    account_id = (await client.get("/v1/account")).json()["id"]
    async with watching(client) as stream:
        await stream.next()
        for value in range(1, 501):
            progress = {"event": "progress", "id": "job", "state": "running", "value": value, "max": 500}
            gateway.services.base.signals.deliver(account_id, progress)
        frames = await stream.until("progress", value=500)
    assert len(frames) < 5
