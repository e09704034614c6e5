"""Messages between workers and the gateway, version 1: `/v1/worker/…`, JSON, bearer token.

Both sides import these models. Unknown members are ignored, so that either side may learn new
ones first; a breaking change raises `PROTOCOL_VERSION`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema

PROTOCOL_VERSION = 1
PREVIEW_SIDE_PIXELS = 128
PREVIEW_LIMIT_BYTES = 12_000

Sha256: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Epoch: TypeAlias = Annotated[int, Field(ge=1)]
Moment: TypeAlias = Annotated[
    datetime,
    Field(strict=False),
    PlainSerializer(datetime.isoformat, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""An aware time; written with its offset, `2026-01-02T03:04:05.678901+00:00`."""


class WireModel(BaseModel):
    """Strict, immutable, and tolerant of members it does not know."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class Capabilities(WireModel):
    """What a worker can do. `gpu` is a name for people."""

    graphs: list[Annotated[str, Field(max_length=80)]] = Field(min_length=1, max_length=64)
    gpu: str = Field(max_length=120)
    vram_mb: int = Field(ge=0)


class RegisterRequest(WireModel):
    """`POST /v1/worker/register`: the one-time registration token buys a worker token."""

    token: str = Field(min_length=8, max_length=512)
    name: str = Field(min_length=1, max_length=80)
    version: str = Field(max_length=40)
    protocol: int = PROTOCOL_VERSION
    capabilities: Capabilities


class RegisterAnswer(WireModel):
    """201 of `register`, 200 of `renew`."""

    worker_id: str
    token: str
    expires_at: Moment
    heartbeat_seconds: float = 5
    lease_seconds: float = 30


class GraphsRequest(WireModel):
    """`POST /v1/worker/graphs`: what this worker can run now; none while it can run nothing. Safe to repeat."""

    graphs: list[Annotated[str, Field(max_length=80)]] = Field(max_length=64)


class SelfTestRequest(WireModel):
    """`POST /v1/worker/self-test`: what came of the test that a claim's `Worker-State` header asked for."""

    passed: bool
    reason: str = Field(default="", max_length=500)


WORKER_STATE = "Worker-State"
"""Header of a claim's 204: the worker's state. With `quarantined`, a self-test is due once `Retry-After` is over."""


class ClaimRequest(WireModel):
    """`POST /v1/worker/claim`: wait this long for a job."""

    wait_seconds: float = Field(default=20, ge=0, le=60)


class JobInputs(WireModel):
    """What every graph may read."""

    prompt: str
    seed: int = Field(ge=0, le=2**64 - 1)
    strength: float | None = Field(default=None, ge=0, le=1)
    width: int = Field(ge=16, le=4096)
    height: int = Field(ge=16, le=4096)


class SketchSource(WireModel):
    """Where to fetch the sketch; a path is relative to the API."""

    url: str
    sha256: Sha256
    content_type: str


class UploadTarget(WireModel):
    """A presigned PUT for this job and epoch."""

    url: str
    headers: dict[str, str] = Field(default_factory=dict)
    max_bytes: int = Field(ge=1)


class ClaimedJob(WireModel):
    """A leased job. `deadline` is when nobody waits for it any more."""

    id: str
    epoch: Epoch
    graph: str
    inputs: JobInputs
    sketch: SketchSource
    upload: UploadTarget
    lease_seconds: float = Field(gt=0)
    deadline: Moment


class ClaimAnswer(WireModel):
    """200 of `claim`; 204 without a body means that there is nothing to do."""

    job: ClaimedJob


class Progress(WireModel):
    """Steps done and steps in all."""

    value: int = Field(ge=0)
    max: int = Field(ge=1)


class HeartbeatRequest(WireModel):
    """`POST /v1/worker/jobs/{id}/heartbeat`. `preview` is a base64 JPEG of at most 128 pixels.

    `moved` counts everything that moved since the job began: steps, nodes that began or ended, parts of the
    sketch and of the image that were transferred, and, for a bounded time, models that are being loaded. The
    lease is extended if it grew, or if the progress changed.
    """

    epoch: Epoch
    progress: Progress | None = None
    moved: int = Field(default=0, ge=0)
    preview: str | None = Field(default=None, max_length=PREVIEW_LIMIT_BYTES * 4 // 3 + 4)


class HeartbeatAnswer(WireModel):
    """`lost`: the lease is someone else's now, stop and report nothing."""

    command: Literal["continue", "cancel", "lost"]
    lease_expires_at: Moment | None = None


class CompleteRequest(WireModel):
    """`POST /v1/worker/jobs/{id}/complete`: the upload is in place. Safe to repeat."""

    epoch: Epoch
    sha256: Sha256
    size: int = Field(ge=1)
    content_type: str
    gpu_ms: int = Field(ge=0)


class FailRequest(WireModel):
    """`POST /v1/worker/jobs/{id}/fail`. `code` is stable; `detail` holds no prompt. Safe to repeat.

    `input`: the request's own, final. `infrastructure`: this worker's. `service`: the platform's (its store
    refused a download or an upload). The last two are tried again.
    """

    epoch: Epoch
    failure: Literal["input", "infrastructure", "service"]
    code: str = Field(max_length=80)
    detail: str = Field(default="", max_length=500)
    node: str | None = Field(default=None, max_length=120)


class GiveBackRequest(WireModel):
    """`POST /v1/worker/jobs/{id}/give-back`: unharmed, for another worker. Safe to repeat."""

    epoch: Epoch


class StateAnswer(WireModel):
    """200 of `complete`, `fail` and `give-back`: the job's state now."""

    state: str
