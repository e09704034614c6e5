"""Workers of many versions are about: golden messages that the worker and the gateway must read and write."""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from pydantic import BaseModel

from gateway.routes import worker as gateway_side
from generation.delivery.dispatch import Assignment
from generation.fleet.registry import Credentials
from generation.images.object_store import UploadTarget
from generation.queueing.claiming import Claim
from ledger.identifiers import AccountId, JobId
from tests.gateway.golden import golden
from worker import protocol
from worker.api import WorkerApi
from worker.backoff import Backoff

MESSAGES: Mapping[str, Any] = golden("worker")
AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
JOB = "job_01"

Call = Callable[[WorkerApi], Awaitable[object]]


def reported(request: protocol.CompleteRequest | protocol.FailRequest | protocol.GiveBackRequest) -> Call:
    return lambda api: api.report(JOB, request, Backoff(random.Random(1)))


CALLS: Mapping[str, Call] = {
    "register": lambda api: api.register(
        protocol.RegisterRequest(
            token="reg_0123456789",
            name="box-1",
            version="0.1.0",
            capabilities=protocol.Capabilities(graphs=["sketch@1"], gpu="RTX 4090", vram_mb=24_564),
        )
    ),
    "renew": lambda api: api.renew(),
    "graphs": lambda api: api.offer(protocol.GraphsRequest(graphs=["sketch@1"])),
    "trial-upload": lambda api: api.trial_target(),
    "trial-upload end": lambda api: api.end_trial(),
    "self-test": lambda api: api.self_tested(
        protocol.SelfTestRequest(passed=False, reason="no picture in 60 s")
    ),
    "claim": lambda api: api.claim(20),
    "heartbeat": lambda api: api.heartbeat(
        JOB,
        protocol.HeartbeatRequest(
            epoch=2, progress=protocol.Progress(value=3, max=20), moved=41, preview="/9j/4AAQ"
        ),
    ),
    "lost heartbeat": lambda api: api.heartbeat(JOB, protocol.HeartbeatRequest(epoch=2)),
    "complete": reported(
        protocol.CompleteRequest(
            epoch=2, sha256=DIGEST, size=1_048_576, content_type="image/png", gpu_ms=1840
        )
    ),
    "fail": reported(
        protocol.FailRequest(
            epoch=2,
            failure="infrastructure",
            code="out_of_memory",
            detail="the driver said no",
            node="KSampler#3",
        )
    ),
    "give-back": reported(protocol.GiveBackRequest(epoch=2)),
    "drain": lambda api: api.drain(),
    "resume": lambda api: api.resume(),
}
"""What the worker does to send each message."""

CREDENTIALS = Credentials("wrk_01", "box_0123456789", AT)
ASSIGNMENT = Assignment(
    claim=Claim(
        job_id=JobId(JOB),
        account_id=AccountId("acct_01"),
        graph="sketch@1",
        epoch=2,
        deadline=datetime(2026, 1, 2, 3, 9, 5, tzinfo=UTC),
        requested_at=AT,
        inputs=None,
    ),
    prompt="a llama",
    seed=7,
    strength_permille=600,
    width=512,
    height=384,
    sketch_url="/v1/objects/sketches/a.png?signature=x",
    sketch_sha256=DIGEST,
    upload=UploadTarget(
        "https://objects.example/uploads/job_01/2?signature=y", {"Content-Type": "image/png"}
    ),
)
WRITTEN: Mapping[str, BaseModel] = {
    "register": gateway_side._credentials(CREDENTIALS),
    "renew": gateway_side._credentials(CREDENTIALS),
    "graphs": protocol.StateAnswer(state="active"),
    "self-test": protocol.StateAnswer(state="quarantined"),
    "trial-upload": protocol.UploadTarget(
        url="https://objects.example/uploads/wrk_01/0?signature=z",
        headers={"Content-Type": "image/png"},
        max_bytes=4_194_304,
    ),
    "trial-upload end": protocol.StateAnswer(state="active"),
    "claim": protocol.ClaimAnswer(job=gateway_side._claimed(ASSIGNMENT)),
    "heartbeat": protocol.HeartbeatAnswer(command="continue", lease_expires_at=AT + timedelta(seconds=30)),
    "lost heartbeat": protocol.HeartbeatAnswer(command="lost", lease_expires_at=None),
    "complete": protocol.StateAnswer(state="completed"),
    "fail": protocol.StateAnswer(state="queued"),
    "give-back": protocol.StateAnswer(state="queued"),
    "drain": protocol.StateAnswer(state="draining"),
    "resume": protocol.StateAnswer(state="active"),
}
"""What the gateway answers."""


def route_of(path: str) -> APIRoute:
    """The gateway's route for a path."""
    (found,) = (
        route
        for route in gateway_side.router.routes
        if isinstance(route, APIRoute) and route.path_format.replace("{job_id}", JOB) == path
    )
    return found


def test_every_route_of_workers_has_its_messages() -> None:
    paths = {
        route.path_format.replace("{job_id}", JOB)
        for route in gateway_side.router.routes
        if isinstance(route, APIRoute)
    }
    assert {message["path"] for message in MESSAGES.values()} == paths
    assert set(MESSAGES) == set(CALLS) == set(WRITTEN)


@pytest.mark.parametrize("name", MESSAGES)
async def test_the_worker_writes_the_request_and_reads_the_answer(name: str) -> None:
    message, sent = MESSAGES[name], []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append((request.method, request.url.path, json.loads(request.content)))
        return httpx.Response(message["status"], json=message["answer"])

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        read = await CALLS[name](WorkerApi("https://gateway.example", http))
    assert sent == [("POST", message["path"], message["request"])]
    if read is not None:
        expected = message["answer"].get("job", message["answer"])
        assert read.model_dump(mode="json") == expected


@pytest.mark.parametrize("name", MESSAGES)
def test_the_gateway_reads_the_request(name: str) -> None:
    message = MESSAGES[name]
    body = route_of(message["path"]).body_field
    if body is None:
        assert message["request"] == {}
        return
    read, errors = body.validate(message["request"], {}, loc=("body",))
    assert not errors
    assert read.model_dump(mode="json", exclude_unset=True) == message["request"]


@pytest.mark.parametrize("name", MESSAGES)
def test_the_gateway_writes_the_answer(name: str) -> None:
    message, written = MESSAGES[name], WRITTEN[name]
    assert isinstance(written, route_of(message["path"]).response_model)
    assert json.loads(written.model_dump_json(exclude_unset=True)) == message["answer"]


@pytest.mark.parametrize("name", MESSAGES)
def test_either_side_may_learn_a_new_member_first(name: str) -> None:
    message = MESSAGES[name]
    body = route_of(message["path"]).body_field
    if body is not None:
        _, errors = body.validate({**message["request"], "of_a_later_version": 1}, {}, loc=("body",))
        assert not errors
    shape = type(WRITTEN[name])
    newer = json.dumps({**message["answer"], "of_a_later_version": 1})
    assert shape.model_validate_json(newer) == shape.model_validate_json(json.dumps(message["answer"]))
