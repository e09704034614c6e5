"""What workers may do: only the holder of the present lease moves a job, and only a real image costs."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import sqlalchemy as sa
from PIL import Image

from generation.store.tables import job_queue
from tests.gateway.conftest import Open
from tests.gateway.stack import FakeWorker, Gateway, credits_of, generation_request, picture, soon
from tests.hostile.pictures import png_bomb


@pytest.fixture(scope="module")
async def studio(open_gateway: Open) -> AsyncIterator[Gateway]:
    """A gateway whose queue holds nothing but what these tests ask for."""
    async with open_gateway() as gateway:
        yield gateway


async def ask(client: httpx.AsyncClient, prompt: str = "a llama") -> str:
    answer = await client.post("/v1/generations", json=generation_request(prompt))
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def started(gateway: Gateway) -> tuple[httpx.AsyncClient, FakeWorker, dict[str, Any]]:
    """Somebody, a worker, and the job that it has taken."""
    client, worker = await gateway.visitor(), await gateway.worker()
    job_id = await ask(client)
    job = await worker.take()
    assert job["id"] == job_id
    return client, worker, job


async def state(client: httpx.AsyncClient, job: dict[str, Any]) -> tuple[str, dict[str, int]]:
    shown = (await client.get(f"/v1/generations/{job['id']}")).json()
    return shown["state"], shown["credits"]


async def columns(gateway: Gateway, job_id: str, **values: Any) -> None:
    """Change a queue row behind everybody's back, as time would."""
    async with gateway.services.base.engine.begin() as connection:
        await connection.execute(sa.update(job_queue).where(job_queue.c.job_id == job_id).values(**values))


def stale(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.json()["code"]) == (409, "stale_lease"), answer.text


FREE = {"posted": 20, "held": 0, "available": 20, "debt": 0}
HELD = {"posted": 20, "held": 1, "available": 19, "debt": 0}
USED = {"posted": 19, "held": 0, "available": 19, "debt": 0}


async def test_a_worker_gets_all_that_it_needs_and_nothing_about_the_person(studio: Gateway) -> None:
    client, worker, job = await started(studio)
    account = (await client.get("/v1/account")).json()["id"]
    assert account not in str(job)
    sketch = await studio.client().get(job["sketch"]["url"])
    assert hashlib.sha256(sketch.content).hexdigest() == job["sketch"]["sha256"]
    assert job["inputs"]["prompt"] == "a llama"
    assert (job["graph"], job["epoch"], job["lease_seconds"]) == ("sketch@1", 1, 30)
    assert (await worker.deliver(job)).json() == {"state": "completed"}


async def test_repeating_a_report_gives_the_same_answer_and_costs_nothing_more(studio: Gateway) -> None:
    client, worker, job = await started(studio)
    data = picture()
    assert (await worker.deliver(job, data)).json() == {"state": "completed"}
    for _ in range(3):
        assert (await worker.report(job, data)).json() == {"state": "completed"}
    assert await credits_of(client) == USED


async def test_reports_at_the_same_time_charge_once(studio: Gateway) -> None:
    client, worker, job = await started(studio)
    data = picture()
    await worker.upload(job, data)
    answers = await asyncio.gather(*(worker.report(job, data) for _ in range(6)))
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["state"] for answer in answers} == {"completed"}
    assert await credits_of(client) == USED


async def test_another_worker_and_another_epoch_can_do_nothing_to_a_job(studio: Gateway) -> None:
    client, worker, job = await started(studio)
    thief = await studio.worker("thief")
    data = picture()
    await worker.upload(job, data)
    for who, claimed in ((thief, job), (worker, {**job, "epoch": 2}), (thief, {**job, "epoch": 2})):
        assert (await who.say(claimed, "heartbeat")).json() == {"command": "lost", "lease_expires_at": None}
        stale(await who.report(claimed, data))
        stale(await who.say(claimed, "fail", failure="input", code="mine"))
        stale(await who.say(claimed, "give-back"))
    assert await state(client, job) == ("running", {"held": 1, "captured": 0})
    assert await credits_of(client) == HELD
    assert (await worker.report(job, data)).json() == {"state": "completed"}
    stale(await thief.report(job, data))
    assert await credits_of(client) == USED


async def test_a_job_that_does_not_exist_is_not_found(studio: Gateway) -> None:
    worker = await studio.worker()
    for job_id in ("job_" + "0" * 26, "nothing", "acct_" + "0" * 26):
        for what, message in (("fail", {"failure": "input", "code": "x"}), ("give-back", {})):
            answer = await worker.say({"id": job_id, "epoch": 1}, what, **message)
            assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")
        assert (await worker.report({"id": job_id, "epoch": 1}, b"x")).status_code == 404


async def test_a_zombie_can_neither_overwrite_an_image_nor_capture_a_hold(studio: Gateway) -> None:
    client, zombie, job = await started(studio)
    await lapse(studio, job)
    heir = await studio.worker("heir")
    again = await heir.take()
    assert (again["id"], again["epoch"]) == (job["id"], 2)
    assert again["upload"]["url"].partition("?")[0] != job["upload"]["url"].partition("?")[0]
    good, late = picture(colour="#225588"), picture(colour="#882255")
    await zombie.upload(job, late)
    stale(await zombie.report(job, late))
    assert (await heir.deliver(again, good)).json() == {"state": "completed"}
    await zombie.upload(job, late)
    stale(await zombie.report(job, late))
    shown = await client.get(f"/v1/generations/{job['id']}/image", follow_redirects=True)
    assert Image.open(io.BytesIO(shown.content)).getpixel((32, 32)) == (0x22, 0x55, 0x88)
    assert await credits_of(client) == USED


async def lapse(gateway: Gateway, job: dict[str, Any]) -> None:
    """The lease runs out; return when the sweeper has noticed."""
    await columns(gateway, job["id"], lease_expires_at=gateway.services.base.clock() - timedelta(seconds=1))

    async def requeued() -> bool:
        row = await gateway.services.generation.queue.entry(job["id"])
        return row is None or row.state != "running"

    await soon(requeued, "the lapsed lease was not noticed")


async def test_a_lost_worker_hands_its_job_to_another_and_never_to_itself(studio: Gateway) -> None:
    client, lost, job = await started(studio)
    await lapse(studio, job)
    assert await credits_of(client) == HELD
    assert await lost.claim(0) is None
    heir = await studio.worker("heir")
    again = await heir.take()
    assert again["id"] == job["id"]
    assert (await heir.deliver(again)).json() == {"state": "completed"}


async def test_three_infrastructure_failures_are_a_failure_that_costs_nothing(studio: Gateway) -> None:
    client = await studio.visitor()
    job_id = await ask(client)
    states = []
    for n in range(3):
        worker = await studio.worker(f"broken {n}")
        job = await worker.take()
        assert (job["id"], job["epoch"]) == (job_id, n + 1)
        answer = await worker.say(job, "fail", failure="infrastructure", code="out_of_memory", detail="CUDA")
        states.append(answer.json()["state"])
        assert (
            await worker.say(job, "fail", failure="infrastructure", code="out_of_memory")
        ).json() == answer.json()
    assert states == ["queued", "queued", "failed"]
    shown = (await client.get(f"/v1/generations/{job_id}")).json()
    assert (shown["state"], shown["reason"]) == ("failed", "out_of_memory")
    assert "not charged" in shown["message"]
    assert await credits_of(client) == FREE


async def test_a_failure_of_the_input_is_final_at_once(studio: Gateway) -> None:
    client, worker, job = await started(studio)
    answer = await worker.say(job, "fail", failure="input", code="blank_sketch")
    assert answer.json() == {"state": "failed"}
    assert await credits_of(client) == FREE
    late = await worker.deliver(job)
    assert late.status_code == 409 or late.json() == {"state": "failed"}
    assert await credits_of(client) == FREE


async def test_a_job_that_is_given_back_is_taken_again_also_by_the_same_worker(studio: Gateway) -> None:
    client, worker, job = await started(studio)
    assert (await worker.say(job, "give-back")).json() == {"state": "queued"}
    assert (await worker.say(job, "give-back")).status_code in (200, 409)
    again = await worker.take()
    assert (again["id"], again["epoch"]) == (job["id"], 2)
    assert (await worker.deliver(again)).json() == {"state": "completed"}
    assert await credits_of(client) == USED


async def test_a_worker_that_breaks_the_jobs_of_three_people_is_put_in_quarantine(studio: Gateway) -> None:
    bad = await studio.worker("bad")
    for n in range(3):
        client = await studio.visitor()
        job_id = await ask(client, f"{n}")
        job = await bad.take()
        assert job["id"] == job_id
        await bad.say(job, "fail", failure="infrastructure", code="broken")
        good = await studio.worker("good")
        assert await good.paint() == job_id
    await ask(client, "left alone")
    answer = await bad.client.post("/v1/worker/claim", json={"wait_seconds": 0})
    assert (answer.status_code, answer.headers["Worker-State"]) == (204, "quarantined")
    assert 50 < int(answer.headers["Retry-After"]) <= 60
    early = await bad.client.post("/v1/worker/self-test", json={"passed": True})
    assert early.json() == {"state": "quarantined"}, "it is not due yet"
    await (await studio.worker("good")).paint()


async def test_that_nobody_can_paint_is_said_to_those_who_wait_and_in_health(open_gateway: Open) -> None:
    async with open_gateway() as gateway:
        client, worker = await gateway.visitor(), await gateway.worker()
        await worker.client.post("/v1/worker/drain")
        asked = (await client.post("/v1/generations", json=generation_request())).json()
        assert (asked["workers"], asked["eta_seconds"]) == (0, None)
        state = (await client.get(f"/v1/generations/{asked['id']}")).json()
        assert state["workers"] == 0
        health = (await client.get("/health")).json()
        assert (health["workers"], health["workers_active"]) == (1, 0)
        await worker.client.post("/v1/worker/resume")
        assert (await client.get(f"/v1/generations/{asked['id']}")).json()["workers"] == 1


async def test_a_worker_that_hung_up_while_it_waited_takes_no_job_with_it(studio: Gateway) -> None:
    client, dead, heir = await studio.visitor(), await studio.worker("dead"), await studio.worker("heir")
    with pytest.raises(httpx.ReadTimeout):
        await dead.client.post("/v1/worker/claim", json={"wait_seconds": 20}, timeout=0.2)
    job_id = await ask(client)
    job = await heir.take()
    assert job["id"] == job_id
    assert (await heir.deliver(job)).json() == {"state": "completed"}
    names = [event.name for event in await studio.services.base.reader.events(job_id)]
    assert names[-1] == "generation.job_completed.v1"
    assert await credits_of(client) == USED


async def test_what_an_attempt_without_a_report_uploaded_is_deleted(studio: Gateway) -> None:
    _, worker, job = await started(studio)
    await worker.upload(job, picture())
    folder = studio.settings.data / "objects" / "uploads" / job["id"]
    assert [path.name for path in folder.iterdir()] == ["1"]
    await worker.say(job, "give-back")
    assert list(folder.glob("*")) == []
    assert await worker.paint() == job["id"]


async def test_a_draining_worker_gets_nothing_and_finishes_what_it_has(studio: Gateway) -> None:
    client, worker, job = await started(studio)
    assert (await worker.client.post("/v1/worker/drain", json={})).json() == {"state": "draining"}
    other = await ask(client, "next")
    assert await worker.claim(0) is None
    assert (await worker.deliver(job)).json() == {"state": "completed"}
    assert await (await studio.worker()).paint() == other


async def test_a_renewed_token_replaces_the_old_one_when_it_is_used(studio: Gateway) -> None:
    worker = await studio.worker()
    fresh = (await worker.client.post("/v1/worker/renew", json={})).json()
    assert fresh["worker_id"] == worker.worker_id
    assert await worker.claim(0) is None
    renewed = FakeWorker(studio.bearer(fresh["token"]), worker.worker_id)
    assert await renewed.claim(0) is None
    assert await allowed(worker) == 401


async def allowed(worker: FakeWorker) -> int:
    return (await worker.client.post("/v1/worker/claim", json={"wait_seconds": 0})).status_code


async def test_a_renewal_whose_answer_is_lost_locks_no_worker_out(studio: Gateway) -> None:
    _, worker, job = await started(studio)
    address = urlsplit(studio.url)
    for _ in range(2):
        # The gateway has answered, and nobody has read it.
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        head = (
            f"POST /v1/worker/renew HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: 2\r\n"
            f"Content-Type: application/json\r\nAuthorization: {worker.client.headers['authorization']}\r\n\r\n{{}}"
        )
        writer.write(head.encode())
        assert await reader.readexactly(12) == b"HTTP/1.1 200"
        writer.transport.abort()
    assert (await worker.say(job, "heartbeat", progress={"value": 1, "max": 4})).json()[
        "command"
    ] == "continue"
    unread = (await worker.client.post("/v1/worker/renew", json={})).json()["token"]
    taken = (await worker.client.post("/v1/worker/renew", json={})).json()["token"]
    heir = FakeWorker(studio.bearer(taken), worker.worker_id)
    answers = await asyncio.gather(*(allowed(heir) for _ in range(8)))
    assert set(answers) == {204}
    assert await allowed(worker) == 401
    assert await allowed(FakeWorker(studio.bearer(unread), worker.worker_id)) == 401
    again = (await heir.client.post("/v1/worker/renew", json={})).json()["token"]
    assert (await FakeWorker(studio.bearer(again), worker.worker_id).deliver(job)).json() == {
        "state": "completed"
    }


async def test_a_forged_renewal_opens_nothing(studio: Gateway) -> None:
    worker, other = await studio.worker(), await studio.worker("other")
    token = (await worker.client.post("/v1/worker/renew", json={})).json()["token"]
    _, expires, nonce, signature = token.split(".")
    forged = (
        f"{other.worker_id}.{expires}.{nonce}.{signature}",
        f"{worker.worker_id}.{int(expires) + 3600}.{nonce}.{signature}",
        f"{worker.worker_id}.{expires}.{nonce}.{signature[:-1]}",
        f"{worker.worker_id}.x.{nonce}.{signature}",
        f"wrk_{'0' * 26}.{expires}.{nonce}.{signature}",
        "...",
    )
    assert {await allowed(FakeWorker(studio.bearer(one), worker.worker_id)) for one in forged} == {401}
    assert (await allowed(worker), await allowed(other)) == (204, 204)


BAD_IMAGES = {
    "blank": lambda: _plain(64),
    "not an image": lambda: b"#!/bin/sh\necho pwned\n",
    "truncated": lambda: picture(256)[:400],
    "tiny": lambda: _plain(8),
    "a bomb": lambda: png_bomb(20_000),
    "huge": lambda: png_bomb(5_000),
}


def _plain(side: int) -> bytes:
    output = io.BytesIO()
    Image.new("RGB", (side, side), "grey").save(output, "PNG")
    return output.getvalue()


@pytest.mark.parametrize("made", BAD_IMAGES.values(), ids=BAD_IMAGES)
async def test_a_bad_image_is_not_charged_and_painted_again_elsewhere(studio: Gateway, made: Any) -> None:
    client, worker, job = await started(studio)
    assert (await worker.deliver(job, made())).json() == {"state": "queued"}
    assert await credits_of(client) == HELD
    assert (await client.get(f"/v1/generations/{job['id']}/image")).status_code == 404
    good = await studio.worker("good")
    assert await good.paint() == job["id"]
    assert await credits_of(client) == USED


async def test_an_image_that_was_not_uploaded_or_is_another_is_not_charged(studio: Gateway) -> None:
    client, worker, job = await started(studio)
    assert (await worker.report(job, picture())).json() == {"state": "queued"}
    second = await studio.worker("second")
    job = await second.take()
    await second.upload(job, picture(colour="#123456"))
    assert (await second.report(job, picture())).json() == {"state": "queued"}
    third = await studio.worker("third")
    assert await third.paint() == job["id"]
    assert await credits_of(client) == USED


async def test_an_upload_over_the_limit_is_refused_and_a_report_of_one_too(studio: Gateway) -> None:
    client, worker, job = await started(studio)
    limit = job["upload"]["max_bytes"]
    answer = await studio.client().put(job["upload"]["url"], content=b"x" * (limit + 1))
    assert answer.status_code == 413
    assert (await worker.report(job, picture(), size=limit + 1)).status_code == 422
    assert (await worker.deliver(job)).json() == {"state": "completed"}
    assert await credits_of(client) == USED


ODD_REPORTS: dict[str, tuple[str, dict[str, Any]]] = {
    "a huge epoch": ("give-back", {"epoch": 2**40}),
    "a bool epoch": ("give-back", {"epoch": True}),
    "huge progress": ("heartbeat", {"progress": {"value": 1, "max": 2**40}}),
    "negative progress": ("heartbeat", {"progress": {"value": -1, "max": 4}}),
    "a huge preview": ("heartbeat", {"preview": "A" * 100_000}),
    "a sentence for a code": ("fail", {"failure": "input", "code": "<b>your fault</b>"}),
    "an unknown failure": ("fail", {"failure": "mine", "code": "x"}),
    "endless work": (
        "complete",
        {"sha256": "0" * 64, "size": 1, "content_type": "image/png", "gpu_ms": 2**40},
    ),
    "no digest": ("complete", {"sha256": "zz", "size": 1, "content_type": "image/png", "gpu_ms": 1}),
}


@pytest.mark.parametrize(("what", "message"), ODD_REPORTS.values(), ids=ODD_REPORTS)
async def test_an_odd_report_is_refused_and_leaves_the_account_alone(
    studio: Gateway, what: str, message: dict[str, Any]
) -> None:
    client, worker, job = await started(studio)
    answer = await worker.say(job, what, **message)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert await credits_of(client) == HELD
    assert (await worker.deliver(job)).json() == {"state": "completed"}


async def test_cancelling_a_waiting_job_gives_its_credit_back_at_once(studio: Gateway) -> None:
    client = await studio.visitor()
    job_id = await ask(client)
    for _ in range(2):
        answer = await client.delete(f"/v1/generations/{job_id}")
        assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    assert await credits_of(client) == FREE
    assert await (await studio.worker()).claim(0) is None


async def test_a_worker_is_told_of_a_cancel_and_ends_the_job_without_a_charge(studio: Gateway) -> None:
    client, worker, job = await started(studio)
    assert (await worker.say(job, "heartbeat", progress={"value": 1, "max": 4})).json()[
        "command"
    ] == "continue"
    assert (await client.delete(f"/v1/generations/{job['id']}")).json()["state"] == "running"
    assert (await worker.say(job, "heartbeat")).json()["command"] == "cancel"
    answer = await worker.say(job, "fail", failure="infrastructure", code="cancelled")
    assert answer.json() == {"state": "cancelled"}
    assert await credits_of(client) == FREE


async def test_a_verified_image_wins_over_a_cancel(studio: Gateway) -> None:
    client, worker, job = await started(studio)
    await client.delete(f"/v1/generations/{job['id']}")
    assert (await worker.deliver(job)).json() == {"state": "completed"}
    assert await credits_of(client) == USED
    answer = await client.delete(f"/v1/generations/{job['id']}")
    assert (answer.status_code, answer.json()["code"]) == (409, "job_already_ended")


async def test_a_lease_is_extended_by_progress_and_not_by_talk(studio: Gateway) -> None:
    _, worker, job = await started(studio)
    first = (await worker.say(job, "heartbeat", progress={"value": 1, "max": 4})).json()["lease_expires_at"]
    same = (await worker.say(job, "heartbeat", progress={"value": 1, "max": 4})).json()["lease_expires_at"]
    more = (await worker.say(job, "heartbeat", progress={"value": 2, "max": 4})).json()["lease_expires_at"]
    assert first == same < more
    await worker.deliver(job)


async def test_the_newest_frame_wins_within_a_live_sketch(studio: Gateway) -> None:
    client, worker = await studio.visitor(), await studio.worker()

    async def frame(seq: int) -> httpx.Response:
        body = generation_request(f"frame {seq}", live=True, session_id="sketch", seq=seq)
        return await client.post("/v1/generations", json=body)

    first, second = (await frame(1)).json()["id"], (await frame(2)).json()["id"]
    assert (await client.get(f"/v1/generations/{first}")).json()["state"] == "superseded"
    assert await credits_of(client) == HELD
    out_of_order = await frame(1)
    assert (out_of_order.status_code, out_of_order.json()["code"]) == (409, "out_of_order")
    assert await worker.paint() == second
    assert await credits_of(client) == USED


async def test_an_operator_sells_images_of_a_graph_of_their_own(open_gateway: Open) -> None:
    async with open_gateway(graph="poster@2") as gateway:
        client, worker = await gateway.visitor(), await gateway.worker("at hand")
        refused = await client.post("/v1/generations", json=generation_request())
        assert refused.json()["code"] == "no_worker_can_serve"
        assert int(refused.headers["Retry-After"]) > 0
        await worker.client.post("/v1/worker/graphs", json={"graphs": ["poster@2"]})
        job_id = await ask(client)
        job = await worker.take()
        assert (job["id"], job["graph"]) == (job_id, "poster@2")
        assert (await worker.deliver(job)).json() == {"state": "completed"}


async def test_an_image_that_comes_as_webp_is_served_as_webp(studio: Gateway) -> None:
    client, worker, job = await started(studio)
    output = io.BytesIO()
    Image.open(io.BytesIO(picture(128))).save(output, "WEBP", quality=90)
    data = output.getvalue()
    await worker.upload(job, data)
    report = await worker.report(job, data, content_type="image/webp")
    assert report.json() == {"state": "completed"}
    for query, size in (("", 128), ("?thumbnail=true", 128)):
        path = f"/v1/generations/{job['id']}/image{query}"
        served = await client.get(path, follow_redirects=True)
        assert (served.status_code, served.headers["content-type"]) == (200, "image/webp")
        assert (served.content == data) is not bool(query)
        with Image.open(io.BytesIO(served.content)) as image:
            assert (image.format, image.width) == ("WEBP", size)
    # The same report again is answered as it was; another picture under the same lease is too late.
    assert (await worker.report(job, data, content_type="image/webp")).json() == {"state": "completed"}
    await worker.upload(job, picture(128))
    late = await worker.report(job, picture(128))
    assert late.status_code == 200
    assert (await client.get(f"/v1/generations/{job['id']}/image", follow_redirects=True)).content == data
