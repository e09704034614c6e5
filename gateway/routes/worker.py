"""`/v1/worker`: what GPU boxes say. Every route but registration needs the box's own token."""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import Field

from gateway.authentication import unauthenticated
from gateway.problems import Problem
from gateway.routes.shapes import answers
from gateway.services import Services
from generation.dispatch import HEARTBEAT_SECONDS, LEASE, Assignment, Report
from generation.images import RESULT_BYTES_MAX
from generation.worker import protocol
from generation.workers import Credentials, Worker
from ledger.identifiers import JobId, is_identifier

router = APIRouter(prefix="/v1/worker", tags=["worker"])
COUNT_MAX = 1_000_000_000
PLAIN = r"^[^\x00-\x1f]*$"
Epoch = Annotated[int, Field(ge=1, le=COUNT_MAX)]
"""What a rented box says is bounded more tightly here than the protocol has to: it ends in our tables."""


class CapabilitiesIn(protocol.Capabilities):
    """What the box can run."""

    graphs: list[Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,40}@[0-9]{1,4}$")]] = Field(
        min_length=1, max_length=64
    )
    gpu: str = Field(max_length=120, pattern=PLAIN)
    vram_mb: int = Field(ge=0, le=COUNT_MAX)


class RegisterIn(protocol.RegisterRequest):
    """A one-time registration token and what the box is."""

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


async def authenticated(request: Request) -> Worker:
    """Dependency: the box that is asking."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not token:
        raise unauthenticated("Workers need their bearer token.")
    services: Services = request.app.state.services
    return await services.registry.authenticate(token.strip())


Box = Annotated[Worker, Depends(authenticated)]


def _credentials(credentials: Credentials) -> dict[str, Any]:
    return {
        "worker_id": credentials.worker_id,
        "token": credentials.token,
        "expires_at": credentials.expires_at.isoformat(),
        "heartbeat_seconds": HEARTBEAT_SECONDS,
        "lease_seconds": int(LEASE.total_seconds()),
    }


@router.post(
    "/register",
    status_code=201,
    summary="Take a box in",
    **answers(protocol.RegisterAnswer, "worker_not_allowed", "protocol_mismatch", status=201),
)
async def register(request: Request, body: RegisterIn) -> dict[str, Any]:
    """Exchange a one-time registration token for the box's own short-lived token."""
    if body.protocol != protocol.PROTOCOL_VERSION:
        raise Problem(
            426, "protocol_mismatch", f"This gateway speaks worker protocol {protocol.PROTOCOL_VERSION}."
        )
    services: Services = request.app.state.services
    credentials = await services.registry.register(
        body.token, name=body.name, version=body.version, capabilities=body.capabilities.model_dump()
    )
    return _credentials(credentials)


@router.post("/renew", summary="Fresh credentials", **answers(protocol.RegisterAnswer))
async def renew(request: Request, box: Box) -> dict[str, Any]:
    """A new token. The old one stops working when the new one is first used, so that a lost answer
    locks no box out: it asks again."""
    services: Services = request.app.state.services
    return _credentials(await services.registry.renew(box))


@router.post("/claim", summary="Take the next job", **answers(protocol.ClaimAnswer, s204="Nothing to do."))
async def claim(request: Request, body: protocol.ClaimRequest, box: Box) -> Response:
    """Waits for a job up to `wait_seconds`. A draining or quarantined box gets none."""
    services: Services = request.app.state.services
    gone = asyncio.Event()
    watcher = asyncio.create_task(_hangs_up(request, gone))
    try:
        assignment = await services.dispatch.claim(box, wait_seconds=body.wait_seconds, gone=gone)
    finally:
        watcher.cancel()
    if assignment is None:
        return Response(status_code=204)
    return services.json({"job": _assignment(assignment)})


async def _hangs_up(request: Request, gone: asyncio.Event) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    gone.set()


def _assignment(assignment: Assignment) -> dict[str, Any]:
    claimed = assignment.claim
    return {
        "id": claimed.job_id,
        "epoch": claimed.epoch,
        "graph": claimed.graph,
        "inputs": {
            "prompt": assignment.prompt,
            "seed": assignment.seed,
            "strength": assignment.strength_permille / 1000,
            "width": assignment.width,
            "height": assignment.height,
        },
        "sketch": {
            "url": assignment.sketch_url,
            "sha256": assignment.sketch_sha256,
            "content_type": "image/png",
        },
        "upload": {
            "url": assignment.upload.url,
            "headers": dict(assignment.upload.headers),
            "max_bytes": RESULT_BYTES_MAX,
        },
        "lease_seconds": int(LEASE.total_seconds()),
        "deadline": claimed.deadline.isoformat(),
    }


def _job(text: str) -> JobId:
    if not is_identifier(text, "job"):
        raise Problem(404, "job_not_found", "There is no such generation.")
    return JobId(text)


@router.post(
    "/jobs/{job_id}/heartbeat",
    summary="Say that a job moves",
    **answers(protocol.HeartbeatAnswer, "job_not_found"),
)
async def heartbeat(request: Request, job_id: str, body: HeartbeatIn, box: Box) -> dict[str, Any]:
    """Extends the lease if progress moved. Answers `continue`, `cancel` or `lost`."""
    services: Services = request.app.state.services
    progress = (body.progress.value, body.progress.max) if body.progress else (0, 0)
    try:
        preview = base64.b64decode(body.preview, validate=True) if body.preview else None
    except (binascii.Error, ValueError):
        preview = None
    word, expires = await services.dispatch.heartbeat(box, _job(job_id), body.epoch, progress, preview)
    return {"command": word, "lease_expires_at": expires.isoformat() if expires else None}


@router.post(
    "/jobs/{job_id}/complete",
    summary="Report a delivered image",
    **answers(protocol.StateAnswer, "stale_lease", "job_not_found"),
)
async def complete(request: Request, job_id: str, body: CompleteIn, box: Box) -> dict[str, str]:
    """The upload is verified first. Repeating a report is fine; 409 `stale_lease` is final."""
    services: Services = request.app.state.services
    report = Report(epoch=body.epoch, sha256=body.sha256, size_bytes=body.size, gpu_milliseconds=body.gpu_ms)
    return {"state": await services.dispatch.complete(box, _job(job_id), report)}


@router.post(
    "/jobs/{job_id}/fail",
    summary="Report a failure",
    **answers(protocol.StateAnswer, "stale_lease", "job_not_found"),
)
async def fail(request: Request, job_id: str, body: FailIn, box: Box) -> dict[str, str]:
    """`input`: final, nothing is charged. `infrastructure`: tried elsewhere, three times at most."""
    services: Services = request.app.state.services
    state = await services.dispatch.fail(
        box, _job(job_id), body.epoch, failure=body.failure, code=body.code, node=body.node
    )
    return {"state": state}


@router.post(
    "/jobs/{job_id}/give-back",
    summary="Return a job unharmed",
    **answers(protocol.StateAnswer, "stale_lease", "job_not_found"),
)
async def give_back(request: Request, job_id: str, body: GiveBackIn, box: Box) -> dict[str, str]:
    """For a box that shuts down."""
    services: Services = request.app.state.services
    return {"state": await services.dispatch.give_back(box, _job(job_id), body.epoch)}


@router.post("/drain", summary="No more jobs for this box", **answers(protocol.StateAnswer))
async def drain(request: Request, box: Box) -> dict[str, str]:
    """What the box has, it finishes."""
    services: Services = request.app.state.services
    await services.registry.drain(box.worker_id)
    return {"state": "draining"}


@router.post("/resume", summary="Jobs for this box again", **answers(protocol.StateAnswer))
async def resume(request: Request, box: Box) -> dict[str, str]:
    """When the box has started again. What it held before is painted anew; a quarantine stays."""
    services: Services = request.app.state.services
    await services.dispatch.resume(box)
    return {"state": "quarantined" if box.state == "quarantined" else "active"}
