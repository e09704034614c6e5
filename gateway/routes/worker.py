"""`/v1/worker`: what GPU workers say. Every route but registration needs the worker's own token."""

from __future__ import annotations

import asyncio
import base64
import binascii
from datetime import datetime, timedelta
from typing import Annotated

import structlog
from fastapi import APIRouter, Request, Response
from pydantic import Field

from gateway.http.problems import Problem
from gateway.routes.bounded import BoundedRoute
from gateway.routes.paths import PathJob
from gateway.routes.shapes import answers
from gateway.wiring.dependencies import CallingWorker, ClockDep, DispatchDep, RegistryDep
from generation.delivery.dispatch import HEARTBEAT_SECONDS, LEASE, TRIAL_BYTES_MAX, Assignment, Report
from generation.domain.rows import JobProgress
from generation.fleet.quarantine import due
from generation.fleet.registry import Credentials, Worker
from generation.images.checking import RESULT_BYTES_MAX
from worker import protocol

router = APIRouter(route_class=BoundedRoute, prefix="/v1/worker", tags=["worker"])
COUNT_MAX = 1_000_000_000
PLAIN = r"^[^\x00-\x1f]*$"
Epoch = Annotated[int, Field(ge=1, le=COUNT_MAX)]
"""What a rented worker says is bounded more tightly here than the protocol has to: it ends in our tables."""


GraphLabel = Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,40}@[0-9]{1,4}$")]


class CapabilitiesIn(protocol.Capabilities):
    """What the worker can run."""

    graphs: list[GraphLabel] = Field(min_length=1, max_length=64)
    gpu: str = Field(max_length=120, pattern=PLAIN)
    vram_mb: int = Field(ge=0, le=COUNT_MAX)


class GraphsIn(protocol.GraphsRequest):
    """The graphs that the worker can run now."""

    graphs: list[GraphLabel] = Field(max_length=64)


class SelfTestIn(protocol.SelfTestRequest):
    """Whether the machine passed, and if not why."""

    reason: str = Field(default="", max_length=500, pattern=PLAIN)


class RegisterIn(protocol.RegisterRequest):
    """A one-time registration token and what the worker is."""

    name: str = Field(min_length=1, max_length=80, pattern=PLAIN)
    version: str = Field(max_length=40, pattern=PLAIN)
    capabilities: CapabilitiesIn


class ProgressIn(protocol.Progress):
    """Steps done of steps to do."""

    value: int = Field(ge=0, le=COUNT_MAX)
    max: int = Field(ge=1, le=COUNT_MAX)


class HeartbeatIn(protocol.HeartbeatRequest):
    """The lease's epoch, and what moved."""

    epoch: Epoch
    progress: ProgressIn | None = None
    moved: int = Field(default=0, ge=0, le=COUNT_MAX)


class CompleteIn(protocol.CompleteRequest):
    """What was uploaded."""

    epoch: Epoch
    size: int = Field(ge=1, le=RESULT_BYTES_MAX)
    content_type: str = Field(max_length=64)
    gpu_ms: int = Field(ge=0, le=86_400_000)


class FailIn(protocol.FailRequest):
    """Why there is no image. The code goes into the log and is shown: it is a word, not a sentence."""

    epoch: Epoch
    code: str = Field(pattern=r"^[a-z0-9_]{1,80}$")
    node: str | None = Field(default=None, max_length=120, pattern=PLAIN)


class GiveBackIn(protocol.GiveBackRequest):
    """The lease's epoch."""

    epoch: Epoch


def _credentials(credentials: Credentials) -> protocol.RegisterAnswer:
    return protocol.RegisterAnswer(
        worker_id=credentials.worker_id,
        token=credentials.token,
        expires_at=credentials.expires_at,
        heartbeat_seconds=HEARTBEAT_SECONDS,
        lease_seconds=LEASE.total_seconds(),
    )


@router.post(
    "/register",
    status_code=201,
    summary="Register a worker",
    **answers(protocol.RegisterAnswer, "worker_not_allowed", "protocol_mismatch"),
)
async def register(body: RegisterIn, registry: RegistryDep) -> protocol.RegisterAnswer:
    """Exchange a one-time registration token for the worker's own short-lived token."""
    if body.protocol != protocol.PROTOCOL_VERSION:
        detail = f"This gateway speaks worker protocol {protocol.PROTOCOL_VERSION}."
        raise Problem("protocol_mismatch", detail)
    credentials = await registry.register(
        body.token, name=body.name, version=body.version, capabilities=body.capabilities.model_dump()
    )
    return _credentials(credentials)


@router.post("/renew", summary="Fresh credentials", **answers(protocol.RegisterAnswer))
async def renew(worker: CallingWorker, registry: RegistryDep) -> protocol.RegisterAnswer:
    """A new token. The old one stops working when the new one is first used, so that a lost answer
    locks no worker out: it asks again."""
    return _credentials(await registry.renew(worker))


@router.post("/graphs", summary="What this worker can run now", **answers(protocol.StateAnswer))
async def graphs(worker: CallingWorker, body: GraphsIn, registry: RegistryDep) -> protocol.StateAnswer:
    """A worker that lost a model or a node withdraws the graphs that need it, and gets no such job."""
    await registry.offer(worker.worker_id, body.graphs)
    return protocol.StateAnswer(state=worker.state)


@router.post("/trial-upload", summary="Where to try an upload", **answers(protocol.UploadTarget))
async def trial_upload(worker: CallingWorker, dispatch: DispatchDep) -> protocol.UploadTarget:
    """Before it claims, a worker sends some bytes there and sees how long that takes."""
    target = await dispatch.trial_upload(worker)
    return protocol.UploadTarget(url=target.url, headers=dict(target.headers), max_bytes=TRIAL_BYTES_MAX)


@router.post("/trial-upload/end", summary="The upload was tried", **answers(protocol.StateAnswer))
async def end_trial(worker: CallingWorker, dispatch: DispatchDep) -> protocol.StateAnswer:
    """What was sent is deleted."""
    await dispatch.end_trial(worker)
    return protocol.StateAnswer(state=worker.state)


@router.post("/claim", summary="Take the next job", **answers(protocol.ClaimAnswer, s204="Nothing to do."))
async def claim(
    request: Request,
    body: protocol.ClaimRequest,
    worker: CallingWorker,
    dispatch: DispatchDep,
    clock: ClockDep,
) -> protocol.ClaimAnswer | Response:
    """Waits for a job up to `wait_seconds`. A draining or quarantined worker gets none.

    `Worker-State` of a 204 says which it is. A quarantined worker tests itself when `Retry-After` is over, and
    reports the outcome to `self-test`.
    """
    gone = asyncio.Event()
    watcher = asyncio.create_task(_hangs_up(request, gone))
    try:
        assignment = await dispatch.claim(worker, wait_seconds=body.wait_seconds, gone=gone)
    finally:
        watcher.cancel()
    if assignment is None:
        return Response(status_code=204, headers=_state_headers(worker, clock()))
    return protocol.ClaimAnswer(job=_claimed(assignment))


def _state_headers(worker: Worker, now: datetime) -> dict[str, str]:
    headers = {protocol.WORKER_STATE: worker.state}
    wait = due(worker.self_test_at, now) if worker.state == "quarantined" else None
    if wait:
        headers["Retry-After"] = str(-(-wait // timedelta(seconds=1)))
    return headers


@router.post("/self-test", summary="Outcome of a self-test", **answers(protocol.StateAnswer))
async def self_test(worker: CallingWorker, body: SelfTestIn, registry: RegistryDep) -> protocol.StateAnswer:
    """A quarantined worker that passes works again; one that fails is asked again, later each time."""
    state = await registry.quarantine.self_tested(worker.worker_id, passed=body.passed)
    log = structlog.get_logger("gateway.worker")
    log.info(
        "worker_self_tested", worker_id=worker.worker_id, passed=body.passed, state=state, reason=body.reason
    )
    return protocol.StateAnswer(state=state)


async def _hangs_up(request: Request, gone: asyncio.Event) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    gone.set()


def _claimed(assignment: Assignment) -> protocol.ClaimedJob:
    claimed, upload = assignment.claim, assignment.upload
    return protocol.ClaimedJob(
        id=claimed.job_id,
        epoch=claimed.epoch,
        graph=claimed.graph,
        inputs=protocol.JobInputs(
            prompt=assignment.prompt,
            seed=assignment.seed,
            strength=assignment.strength_permille / 1000,
            width=assignment.width,
            height=assignment.height,
        ),
        sketch=protocol.SketchSource(
            url=assignment.sketch_url, sha256=assignment.sketch_sha256, content_type="image/png"
        ),
        upload=protocol.UploadTarget(
            url=upload.url, headers=dict(upload.headers), max_bytes=RESULT_BYTES_MAX
        ),
        lease_seconds=LEASE.total_seconds(),
        deadline=claimed.deadline,
    )


@router.post(
    "/jobs/{job_id}/heartbeat",
    summary="Say that a job moves",
    **answers(protocol.HeartbeatAnswer, "job_not_found"),
)
async def heartbeat(
    worker: CallingWorker, job: PathJob, body: HeartbeatIn, dispatch: DispatchDep
) -> protocol.HeartbeatAnswer:
    """Extends the lease if anything moved. Answers `continue`, `cancel` or `lost`."""
    steps = (body.progress.value, body.progress.max) if body.progress else (0, 0)
    progress = JobProgress(*steps, moved=body.moved)
    command, expires = await dispatch.heartbeat(worker, job, body.epoch, progress, _preview(body.preview))
    return protocol.HeartbeatAnswer(command=command, lease_expires_at=expires)


def _preview(sent: str | None) -> bytes | None:
    """What cannot be decoded is no preview; the lease goes on all the same."""
    try:
        return base64.b64decode(sent, validate=True) if sent else None
    except (binascii.Error, ValueError):
        return None


@router.post(
    "/jobs/{job_id}/complete",
    summary="Report a delivered image",
    **answers(protocol.StateAnswer, "stale_lease", "job_not_found"),
)
async def complete(
    worker: CallingWorker, job: PathJob, body: CompleteIn, dispatch: DispatchDep
) -> protocol.StateAnswer:
    """The upload is verified first. Repeating a report is fine; 409 `stale_lease` is final."""
    report = Report(epoch=body.epoch, sha256=body.sha256, size_bytes=body.size, gpu_milliseconds=body.gpu_ms)
    return protocol.StateAnswer(state=await dispatch.complete(worker, job, report))


@router.post(
    "/jobs/{job_id}/fail",
    summary="Report a failure",
    **answers(protocol.StateAnswer, "stale_lease", "job_not_found"),
)
async def fail(
    worker: CallingWorker, job: PathJob, body: FailIn, dispatch: DispatchDep
) -> protocol.StateAnswer:
    """`input`: final, nothing is charged. `infrastructure`, `service`: tried again, three times at most."""
    state = await dispatch.fail(worker, job, body.epoch, failure=body.failure, code=body.code, node=body.node)
    return protocol.StateAnswer(state=state)


@router.post(
    "/jobs/{job_id}/give-back",
    summary="Return a job unharmed",
    **answers(protocol.StateAnswer, "stale_lease", "job_not_found"),
)
async def give_back(
    worker: CallingWorker, job: PathJob, body: GiveBackIn, dispatch: DispatchDep
) -> protocol.StateAnswer:
    """For a worker that shuts down."""
    return protocol.StateAnswer(state=await dispatch.give_back(worker, job, body.epoch))


@router.post("/drain", summary="No more jobs for this worker", **answers(protocol.StateAnswer))
async def drain(worker: CallingWorker, registry: RegistryDep) -> protocol.StateAnswer:
    """What the worker has, it finishes."""
    await registry.drain(worker.worker_id)
    return protocol.StateAnswer(state="draining")


@router.post("/resume", summary="Jobs for this worker again", **answers(protocol.StateAnswer))
async def resume(worker: CallingWorker, dispatch: DispatchDep) -> protocol.StateAnswer:
    """When the worker has started again. What it held before is painted anew; a quarantine stays."""
    await dispatch.resume(worker)
    return protocol.StateAnswer(state="quarantined" if worker.state == "quarantined" else "active")
