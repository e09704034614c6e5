"""`/v1/generations`: ask for images, follow them, cancel them, fetch them."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from gateway.authentication import Caller
from gateway.idempotency import Mapped
from gateway.identity import Principal
from gateway.networks import quotas
from gateway.problems import Problem, leaves_key_open, problem_of
from gateway.routes.live import CAP_MAX, SESSION_ID, session_digest
from gateway.routes.shapes import PROBLEMS_FIELD
from gateway.services import Services
from generation.errors import SketchRejected
from generation.hands import Hands, WorkKilled
from generation.images import SKETCH_BYTES_MAX, Sketch, read_sketch
from generation.job import Job, JobState
from generation.queue import FREE, PAID, PRIORITY, Tier
from generation.reasons import sentence
from generation.service import Accepted, Wish, price_of
from ledger.identifiers import HoldId, JobId, is_identifier

router = APIRouter(prefix="/v1/generations", tags=["generations"])
ROUTE = "POST /v1/generations"
PROMPT_MAX = 2_000
SEED_MAX = 2**53 - 1


class SketchIn(BaseModel):
    """A drawing: PNG, JPEG or WebP, at most 4 MB and 4096 × 4096 pixels."""

    model_config = ConfigDict(strict=True, extra="forbid")
    content_type: str = Field(max_length=64, examples=["image/png"])
    data: str = Field(description="Base64.")


class FundingIn(BaseModel):
    """A payment for one image alone."""

    model_config = ConfigDict(strict=True, extra="forbid")
    rail: str = Field(pattern=r"^[a-z0-9_-]{1,32}$", examples=["lightning"])
    pay_asset: str | None = Field(
        default=None, pattern=r"^[A-Z0-9-]{1,12}$", description="The rail's first if left out."
    )

    @property
    def method(self) -> str:
        """As `PaymentFunding` reads it."""
        return self.rail if self.pay_asset is None else f"{self.rail}/{self.pay_asset}"


class GenerationIn(BaseModel):
    """What to paint."""

    model_config = ConfigDict(strict=True, extra="forbid")
    prompt: str = Field(
        min_length=1,
        max_length=PROMPT_MAX,
        pattern=r"^[^\x00]*$",
        examples=["a watercolour llama at sunset"],
    )
    sketch: SketchIn
    seed: int | None = Field(
        default=None, ge=0, le=SEED_MAX, description="The same inputs and seed give the same picture."
    )
    strength: float | None = Field(
        default=None, ge=0, le=1, description="How closely the lines are kept; 0.6 if left out."
    )
    live: bool = Field(
        default=False, description="A frame of a live session: only the newest waiting one is painted."
    )
    session_id: str | None = Field(
        default=None, pattern=SESSION_ID, description="Of a live session; you choose it."
    )
    seq: int | None = Field(
        default=None, ge=0, le=SEED_MAX, description="The frame's number; an older one is out of order."
    )
    variation: bool = Field(
        default=False, description="A picture beside a session's frames, at lower priority; 16 per session."
    )
    session_cap: int | None = Field(
        default=None,
        ge=1,
        le=CAP_MAX,
        description="Your own spending limit for this session, in credits: set or lowered; PATCH raises it.",
    )
    funding: FundingIn | None = Field(
        default=None, description="Pay for this image alone, instead of with credits."
    )


class EtaOut(BaseModel):
    """Between how many seconds from now the image should be there."""

    low: int
    high: int


class GenerationOut(BaseModel):
    """A generation as accepted."""

    id: str
    state: str
    price_credits: int
    position: int | None
    eta_seconds: EtaOut | None
    topup: dict[str, Any] | None = Field(
        default=None, description="How to pay, where a payment for this image alone was asked for."
    )


class CreditsOut(BaseModel):
    """What it holds or has cost."""

    held: int
    captured: int


class GenerationStateOut(GenerationOut):
    """A generation and where it stands."""

    image_url: str | None
    thumbnail_url: str | None
    credits: CreditsOut
    reason: str | None = Field(
        description="Why it did not come, as a short code; for `superseded` the newer one."
    )
    message: str | None = Field(description="The same for a person.")


@router.post(
    "",
    status_code=202,
    summary="Ask for an image",
    response_description="A generation as accepted.",
    openapi_extra={
        PROBLEMS_FIELD: [
            "insufficient_credits",
            "allowance_shared_out",
            "account_in_debt",
            "session_paused",
            "session_spend_cap_reached",
            "too_many_variations",
            "unknown_rail",
            "rail_closed",
            "amount_too_small",
            "idempotency_conflict",
            "out_of_order",
            "sketch_too_large",
            "sketch_type",
            "sketch_unreadable",
            "too_many_in_flight",
            "queue_full",
            "no_worker_can_serve",
        ]
    },
)
async def request_generation(
    request: Request,
    body: GenerationIn,
    caller: Caller,
    idempotency_key: Annotated[str | None, Header(max_length=255, description="See Sending again.")] = None,
) -> GenerationOut:
    """Holds the price and queues the job. Nothing is charged unless an image is delivered.

    Answers 402 with the balance and a link to top up if there are not enough credits. The same
    `Idempotency-Key` and body always mean the same image, however often they are sent.
    """
    services: Services = request.app.state.services
    sketch = await _sketch(services.hands, body.sketch)
    if body.live and (body.session_id is None or body.seq is None):
        raise Problem(422, "invalid_request", "A live frame needs session_id and seq.")
    if body.variation and (body.live or body.session_id is None):
        raise Problem(422, "invalid_request", "A variation needs session_id and is no live frame.")
    if body.funding is not None and (body.live or body.variation):
        raise Problem(422, "invalid_request", "A payment for one image alone cannot pay for a session.")
    raw = await request.body()
    mapped = await services.idempotency.map(
        principal=caller.account_id,
        route=ROUTE,
        key=idempotency_key,
        body=raw,
        new_id=services.identifiers.job(),
    )
    accepted = await _run(services, request, caller, body, sketch, mapped, idempotency_key)
    estimate = await services.generations.estimate(accepted.job_id)
    return GenerationOut(
        id=accepted.job_id,
        state=accepted.state,
        price_credits=accepted.price_credits,
        position=estimate.position if estimate else None,
        eta_seconds=_eta(estimate),
        topup=dict(accepted.opened.instructions) if accepted.opened else None,
    )


async def _run(
    services: Services,
    request: Request,
    caller: Principal,
    body: GenerationIn,
    sketch: Sketch,
    mapped: Mapped,
    key: str | None,
) -> Accepted:
    # A key that was used before may hold an old refusal that was left open: then try once more.
    for again in (not mapped.fresh, False):
        try:
            return await services.generations.request(
                await _wish(services, request, caller, body, sketch, mapped)
            )
        except Exception as error:
            problem = problem_of(error)
            if leaves_key_open(error):
                await services.idempotency.reopen(
                    principal=caller.account_id, route=ROUTE, key=key, attempt=mapped.attempt
                )
                if again:
                    mapped = mapped._replace(attempt=mapped.attempt + 1)
                    continue
            if problem.status == 402:
                raise await _payment_required(services, caller, problem, sketch) from error
            raise
    raise AssertionError("the second attempt either answers or raises")


async def _payment_required(
    services: Services, caller: Principal, problem: Problem, sketch: Sketch
) -> Problem:
    view = await services.account_view(caller.account_id)
    return Problem(
        402,
        problem.code,
        problem.detail,
        **{
            **problem.extra,
            "balance": view["credits"],
            "needed_credits": price_of(sketch.width, sketch.height),
            "topup_url": f"{services.settings.public_url}/?topup=1",
        },
    )


async def _wish(
    services: Services,
    request: Request,
    caller: Principal,
    body: GenerationIn,
    sketch: Sketch,
    mapped: Mapped,
) -> Wish:
    strength = 600 if body.strength is None else round(body.strength * 1000)
    job_id = JobId(mapped.resource_id)
    # Without a seed the job's own random tail is one: the same request gives the same picture.
    seed = body.seed if body.seed is not None else int.from_bytes(job_id[-8:].encode(), "big") & 0xFFFFFFFF
    return Wish(
        key=mapped.command_key,
        job_id=job_id,
        hold_id=HoldId("hold_" + job_id.removeprefix("job_")),
        account_id=caller.account_id,
        tier=await tier_of(services, caller),
        prompt=body.prompt,
        sketch=sketch,
        seed=seed,
        strength_permille=strength,
        live=body.live,
        session_id=session_digest(services.settings, caller.account_id, body.session_id),
        seq=body.seq,
        variation=body.variation,
        session_cap=body.session_cap,
        funding=body.funding.method if body.funding else None,
        repeated=not mapped.fresh,
        networks=quotas(
            services.origins.address(request),
            services.network_keys,
            services.clock(),
            narrow=services.settings.network_allowance_address,
            wide=services.settings.network_allowance_site,
        ),
    )


async def tier_of(services: Services, caller: Principal) -> Tier:
    """How the caller's plan is served."""
    view = await services.account_view(caller.account_id)
    if view["priority"]:
        return PRIORITY
    return PAID if view["paid"] else FREE


async def _sketch(hands: Hands, sent: SketchIn) -> Sketch:
    if len(sent.data) > SKETCH_BYTES_MAX * 4 // 3 + 8:
        raise SketchRejected("sketch_too_large", f"A sketch may have {SKETCH_BYTES_MAX} bytes at most.")
    try:
        data = base64.b64decode(sent.data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise SketchRejected("sketch_unreadable", "The sketch's data is not base64.") from error
    try:
        return await hands.run(read_sketch, data, sent.content_type)
    except WorkKilled as error:
        raise SketchRejected("sketch_unreadable", "The sketch is not a picture that can be read.") from error


def _job_id(text: str) -> JobId:
    if not is_identifier(text, "job"):
        raise Problem(404, "job_not_found", "There is no such generation.")
    return JobId(text)


@router.get(
    "/{job_id}",
    summary="Where an image stands",
    response_description="A generation and where it stands.",
    openapi_extra={PROBLEMS_FIELD: ["job_not_found"]},
)
async def generation(request: Request, job_id: str, caller: Caller) -> GenerationStateOut:
    """State, place in the queue, links to the image, and what it holds or has cost."""
    services: Services = request.app.state.services
    job = await services.generations.job(caller.account_id, _job_id(job_id))
    return await present(services, caller, _job_id(job_id), job)


@router.delete(
    "/{job_id}",
    summary="Cancel",
    response_description="The generation as it now stands.",
    openapi_extra={PROBLEMS_FIELD: ["job_not_found"]},
)
async def cancel(request: Request, job_id: str, caller: Caller) -> GenerationStateOut:
    """Waiting: cancelled at once. Being painted: the painter is told; an image that is faster wins."""
    services: Services = request.app.state.services
    job = await services.generations.cancel(caller.account_id, _job_id(job_id))
    return await present(services, caller, _job_id(job_id), job)


@router.get(
    "/{job_id}/image",
    summary="The image",
    status_code=307,
    response_class=Response,
    response_description="A redirect to the image.",
    openapi_extra={PROBLEMS_FIELD: ["job_not_found", "no_image"]},
)
async def image(request: Request, job_id: str, caller: Caller, thumbnail: bool = False) -> Response:
    """Redirects to a link that expires in an hour."""
    services: Services = request.app.state.services
    url = await services.generations.image_url(caller.account_id, _job_id(job_id), thumbnail=thumbnail)
    if url is None:
        raise Problem(404, "no_image", "There is no image (yet, or any more).")
    return RedirectResponse(url, status_code=307, headers={"Cache-Control": "private, max-age=600"})


async def present(services: Services, caller: Principal, job_id: JobId, job: Job) -> GenerationStateOut:
    """A job in the API's words."""
    waiting = job.state is JobState.QUEUED
    estimate = await services.generations.estimate(job_id) if waiting else None
    done = job.state is JobState.COMPLETED
    url = f"/v1/generations/{job_id}/image"
    held = 0 if job.state.final or job.hold_id is None else job.price_credits
    return GenerationStateOut(
        id=job_id,
        state=job.state.value,
        price_credits=job.price_credits,
        position=estimate.position if estimate else None,
        eta_seconds=_eta(estimate),
        image_url=url if done else None,
        thumbnail_url=f"{url}?thumbnail=true" if done else None,
        credits=CreditsOut(held=held, captured=job.captured_credits),
        reason=job.reason,
        message=sentence(job),
    )


def _eta(estimate: Any) -> EtaOut | None:
    if estimate is None or estimate.low_seconds is None:
        return None
    return EtaOut(low=estimate.low_seconds, high=estimate.high_seconds)
