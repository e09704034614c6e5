"""What Prometheus reads: every name that operators build on, with the right value, after a known life."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from math import inf
from typing import Any

import pytest
import sqlalchemy as sa
from prometheus_client.parser import text_string_to_metric_families

from generation.store.tables import job_queue
from ledger.log.tables import account_merges
from processes.followups import KINDS
from rails.contract import Following
from rails.testing.fake_rail import FakeRail
from tests.gateway.conftest import Open
from tests.gateway.stack import FakeWorker, Gateway, generation_request, picture, soon


@pytest.fixture
async def studio(open_gateway: Open) -> AsyncIterator[Gateway]:
    """A gateway in which nothing has been counted yet."""
    async with open_gateway() as gateway:
        yield gateway


class Scrape:
    """One answer of `/metrics`."""

    def __init__(self, text: str) -> None:
        families = text_string_to_metric_families(text)
        self.samples = [sample for family in families for sample in family.samples]

    def value(self, name: str, /, **labels: str) -> float:
        (found,) = [s.value for s in self.samples if (s.name, s.labels) == (f"llamasketch_{name}", labels)]
        return float(found)

    def nonzero(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        return {
            tuple(sample.labels[label] for label in labels): sample.value
            for sample in self.samples
            if sample.name == f"llamasketch_{name}" and sample.value
        }


async def scrape(gateway: Gateway) -> Scrape:
    answer = await gateway.client().get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return Scrape(answer.text)


async def started(gateway: Gateway, worker: FakeWorker) -> dict[str, Any]:
    client = await gateway.visitor()
    assert (await client.post("/v1/generations", json=generation_request())).status_code == 202
    return await worker.take()


async def lapse(gateway: Gateway, job: dict[str, Any]) -> None:
    async with gateway.services.base.engine.begin() as connection:
        past = gateway.services.base.clock() - timedelta(seconds=1)
        mine = sa.update(job_queue).where(job_queue.c.job_id == job["id"])
        await connection.execute(mine.values(lease_expires_at=past))

    async def requeued() -> bool:
        row = await gateway.services.generation.queue.entry(job["id"])
        return row is None or row.state == "queued"

    await soon(requeued, "the lapsed lease was not noticed")


async def test_jobs_and_workers_are_counted_by_their_own_states(studio: Gateway) -> None:
    worker = await studio.worker()
    client = await studio.visitor()
    for _ in range(2):
        assert (await client.post("/v1/generations", json=generation_request())).status_code == 202
    await worker.take()
    seen = await scrape(studio)
    assert seen.nonzero("jobs", "name") == {("queued",): 1, ("running",): 1}
    assert seen.nonzero("workers", "name") == {("active",): 1}


async def test_waits_leases_outcomes_and_what_a_gpu_hour_earns(studio: Gateway) -> None:
    worker = await studio.worker()
    for gpu_ms in (1500, 2500):
        job = await started(studio, worker)
        data = picture()
        await worker.upload(job, data)
        await worker.report(job, data, gpu_ms=gpu_ms)
        # Repeating it counts nothing twice.
        await worker.report(job, data, gpu_ms=gpu_ms)
    failed = await started(studio, worker)
    await worker.say(failed, "fail", failure="input", code="blank_sketch")
    seen = await scrape(studio)
    assert seen.value("leases_total") == 3
    assert seen.value("job_wait_seconds_count") == 3
    assert 0 < seen.value("job_wait_seconds_sum") < 30
    assert seen.value("job_paint_seconds_count") == 2
    assert seen.nonzero("jobs_ended_total", "state") == {("completed",): 2, ("failed",): 1}
    assert seen.value("gpu_seconds_per_image_count") == 2
    assert seen.value("gpu_seconds_per_image_sum") == 4.0
    # 2 credits in 4 s: what the recording rule of docs/operators.md makes of these two.
    earned, seconds = seen.value("credits_captured_total"), seen.value("gpu_seconds_total")
    assert (earned, seconds, earned / seconds * 3600) == (2, 4, 1800)
    assert seen.value("images_per_gpu_hour") == 1800
    assert (seen.value("claim_batch_size_count"), seen.value("claim_batch_size_sum")) == (3, 3)


async def test_what_ends_while_it_waits_is_counted_once_however_often_it_is_asked(studio: Gateway) -> None:
    client = await studio.visitor()
    cancelled = (await client.post("/v1/generations", json=generation_request())).json()["id"]
    for _ in range(2):
        assert (await client.delete(f"/v1/generations/{cancelled}")).json()["state"] == "cancelled"
    for seq in (1, 2, 3):
        frame = generation_request(f"frame {seq}", live=True, session_id="sketch", seq=seq)
        for _ in range(2):  # the second is a repetition
            headers = {"Idempotency-Key": f"frame-{seq}"}
            answer = await client.post("/v1/generations", json=frame, headers=headers)
            assert answer.status_code == 202
    for _ in range(2):
        await client.patch("/v1/generations/sessions/sketch", json={"paused": True})
    # Two frames gave way to newer ones; the last was stopped with its session.
    seen = await scrape(studio)
    assert seen.nonzero("jobs_ended_total", "state") == {("cancelled",): 2, ("superseded",): 2}


async def test_attempts_without_an_image_are_counted_by_why(studio: Gateway) -> None:
    worker, other = await studio.worker(), await studio.worker("other")
    job = await started(studio, worker)
    await worker.say(job, "give-back")
    job = await worker.take()
    await lapse(studio, job)
    job = await other.take()
    await other.say(job, "fail", failure="infrastructure", code="out_of_memory")
    seen = await scrape(studio)
    assert seen.nonzero("jobs_requeued_total", "why") == {("given_back",): 1, ("lost",): 1, ("failed",): 1}


async def test_refused_reports_are_counted_by_their_cause(studio: Gateway) -> None:
    """A zombie, a replay, a forged epoch, another worker's job, no job at all."""
    worker, heir = await studio.worker(), await studio.worker("heir")
    job = await started(studio, worker)
    data = picture()
    for who, claimed in ((heir, job), (worker, {**job, "epoch": 7})):
        await who.say(claimed, "heartbeat")
        assert (await who.report(claimed, data)).status_code == 409
        assert (await who.say(claimed, "fail", failure="input", code="x")).status_code == 409
    await lapse(studio, job)
    again = await heir.take()
    assert (await worker.report(job, data)).status_code == 409
    assert (await heir.deliver(again)).status_code == 200
    assert (await heir.say(again, "fail", failure="input", code="x")).status_code == 409
    assert (await worker.say({"id": "job_" + "0" * 26, "epoch": 1}, "give-back")).status_code == 404
    seen = await scrape(studio)
    assert seen.nonzero("worker_reports_refused_total", "report", "cause") == {
        ("heartbeat", "other_worker"): 1,
        ("complete", "other_worker"): 1,
        ("end", "other_worker"): 1,
        ("heartbeat", "forged_epoch"): 1,
        ("complete", "forged_epoch"): 1,
        ("end", "forged_epoch"): 1,
        ("complete", "zombie"): 1,
        ("end", "replay"): 1,
        ("end", "unknown_job"): 1,
    }


async def test_a_follow_up_that_fails_is_seen(studio: Gateway) -> None:
    row = {"account_id": "acct_1", "into_account": "nobody_1", "due_at": studio.services.base.clock()}
    async with studio.services.base.engine.begin() as connection:
        await connection.execute(account_merges.insert().values(row))

    async def failing() -> bool:
        return (await scrape(studio)).nonzero("followups_failing", "name") == {("guest_merge",): 1}

    await soon(failing, "the failure was not shown")
    assert (await scrape(studio)).nonzero("followups_waiting", "name") == {("guest_merge",): 1}


async def test_every_series_is_there_before_anything_happened(studio: Gateway) -> None:
    seen = await scrape(studio)
    causes = {s.labels["cause"] for s in seen.samples if s.name == "llamasketch_worker_reports_refused_total"}
    assert causes == {"zombie", "replay", "forged_epoch", "other_worker", "unknown_job"}
    ends = {s.labels["state"] for s in seen.samples if s.name == "llamasketch_jobs_ended_total"}
    assert ends == {"completed", "failed", "cancelled", "superseded", "expired", "blocked"}
    kinds = {s.labels["name"] for s in seen.samples if s.name == "llamasketch_followups_failing"}
    assert kinds == {kind.kind for kind in KINDS}
    for name in (
        "credits_captured_total",
        "gpu_seconds_total",
        "leases_total",
        "claim_batch_size_count",
        "invariant_violations_total",
    ):
        assert seen.value(name) == 0


async def test_of_a_rail_that_follows_a_chain_it_is_told_how_far_behind_and_how_old_its_reading_is(
    studio: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = studio.services.base.clock
    never = Following(height=None, behind=0, as_of=None, fault="the node is away")
    monkeypatch.setattr(FakeRail, "following", lambda _: never, raising=False)
    seen = await scrape(studio)
    assert seen.value("rail_unread_seconds", name="fake") == inf
    shown = (await studio.client().get("/health")).json()["rails"]["fake"]["following"]
    assert shown == {"height": None, "behind": 0, "as_of": None, "fault": "the node is away"}
    lately = Following(height=7, behind=2, as_of=clock() - timedelta(minutes=3))
    monkeypatch.setattr(FakeRail, "following", lambda _: lately)
    seen = await scrape(studio)
    assert seen.value("rail_behind", name="fake") == 2
    assert 180 <= seen.value("rail_unread_seconds", name="fake") < 240
