"""`/v1/worker`: what GPU boxes say. Every route but registration needs the box's own token."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from gateway.authentication import unauthenticated
from gateway.problems import Problem
from gateway.routes.shapes import ClaimOut, CommandOut, CredentialsOut, StateOut, answers
from gateway.services import Services
from generation.dispatch import HEARTBEAT_SECONDS, LEASE, Assignment, Report
from generation.images import RESULT_BYTES_MAX
from generation.workers import Credentials, Worker
from ledger.identifiers import JobId, is_identifier

router = APIRouter(prefix="/v1/worker", tags=["worker"])
PROTOCOL = 1


class Message(BaseModel):
    """Base of what a box sends."""

    model_config = ConfigDict(strict=True, extra="ignore")


class CapabilitiesIn(Message):
    """What the box can run."""

    graphs: list[Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,40}@[0-9]{1,4}$")]] = Field(max_length=32)
    gpu: str = Field(default="", max_length=100)
    vram_mb: int = Field(default=0, ge=0)


class RegisterIn(Message):
    """A one-time registration token and what the box is."""

    token: str = Field(max_length=300)
    name: str = Field(min_length=1, max_length=80)
    version: str = Field(max_length=40)
    protocol: int
    capabilities: CapabilitiesIn


class ClaimIn(Message):
    """How long to wait for a job."""

    wait_seconds: float = Field(default=20, ge=0, le=30, strict=False)


class ProgressIn(Message):
    """Steps done of steps to do."""

    value: int = Field(ge=0, le=1_000_000)
    max: int = Field(ge=0, le=1_000_000)


class HeartbeatIn(Message):
    """The lease's epoch, and what moved."""

    epoch: int = Field(ge=1)
    progress: ProgressIn | None = None
    preview: str | None = Field(default=None, max_length=24_000, description="Base64 JPEG, 128 px at most.")


class CompleteIn(Message):
    """What was uploaded."""

    epoch: int = Field(ge=1)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=1, le=RESULT_BYTES_MAX)
    content_type: str = Field(default="image/png", max_length=64)
    gpu_ms: int = Field(ge=0, le=86_400_000)


class FailIn(Message):
    """Why there is no image."""

    epoch: int = Field(ge=1)
    failure: Literal["input", "infrastructure"]
    code: str = Field(pattern=r"^[a-z0-9_]{1,60}$")
    detail: str = Field(default="", max_length=2_000)
    node: str | None = Field(default=None, max_length=100)


class EpochIn(Message):
    """The lease's epoch."""

    epoch: int = Field(ge=1)


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
    **answers(CredentialsOut, "worker_not_allowed", "protocol_mismatch", status=201),
)
async def register(request: Request, body: RegisterIn) -> dict[str, Any]:
    """Exchange a one-time registration token for the box's own short-lived token."""
    if body.protocol != PROTOCOL:
        raise Problem(426, "protocol_mismatch", f"This gateway speaks worker protocol {PROTOCOL}.")
    services: Services = request.app.state.services
    credentials = await services.registry.register(
        body.token, name=body.name, version=body.version, capabilities=body.capabilities.model_dump()
    )
    return _credentials(credentials)


@router.post("/renew", summary="Fresh credentials", **answers(CredentialsOut))
async def renew(request: Request, box: Box) -> dict[str, Any]:
    """A new token; the old one stops working."""
    services: Services = request.app.state.services
    return _credentials(await services.registry.renew(box))


@router.post("/claim", summary="Take the next job", **answers(ClaimOut, s204="Nothing to do."))
async def claim(request: Request, body: ClaimIn, box: Box) -> Response:
    """Waits for a job up to `wait_seconds`. A draining or quarantined box gets none."""
    services: Services = request.app.state.services
    assignment = await services.dispatch.claim(box, wait_seconds=body.wait_seconds)
    if assignment is None:
        return Response(status_code=204)
    return services.json({"job": _assignment(assignment)})


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
    **answers(CommandOut, "job_not_found"),
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
    **answers(StateOut, "stale_lease", "job_not_found"),
)
async def complete(request: Request, job_id: str, body: CompleteIn, box: Box) -> dict[str, str]:
    """The upload is verified first. Repeating a report is fine; 409 `stale_lease` is final."""
    services: Services = request.app.state.services
    report = Report(epoch=body.epoch, sha256=body.sha256, size_bytes=body.size, gpu_milliseconds=body.gpu_ms)
    return {"state": await services.dispatch.complete(box, _job(job_id), report)}


@router.post(
    "/jobs/{job_id}/fail",
    summary="Report a failure",
    **answers(StateOut, "stale_lease", "job_not_found"),
)
async def fail(request: Request, job_id: str, body: FailIn, box: Box) -> dict[str, str]:
    """`input`: final, nothing is charged. `infrastructure`: tried elsewhere, three times at most."""
    services: Services = request.app.state.services
    state = await services.dispatch.fail(box, _job(job_id), body.epoch, failure=body.failure, code=body.code)
    return {"state": state}


@router.post(
    "/jobs/{job_id}/give-back",
    summary="Return a job unharmed",
    **answers(StateOut, "stale_lease", "job_not_found"),
)
async def give_back(request: Request, job_id: str, body: EpochIn, box: Box) -> dict[str, str]:
    """For a box that shuts down."""
    services: Services = request.app.state.services
    return {"state": await services.dispatch.give_back(box, _job(job_id), body.epoch)}


@router.post("/drain", summary="No more jobs for this box", **answers(StateOut))
async def drain(request: Request, box: Box) -> dict[str, str]:
    """What the box has, it finishes."""
    services: Services = request.app.state.services
    await services.registry.drain(box.worker_id)
    return {"state": "draining"}
