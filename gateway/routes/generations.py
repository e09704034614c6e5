"""`/v1/generations`: ask for images, follow them, cancel them, fetch them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import RedirectResponse, Response

from gateway.http.idempotency import IdempotencyKey
from gateway.http.problems import Problem
from gateway.routes.bounded import BoundedRoute
from gateway.routes.generation_requests import Requests, requests_of, seed_of
from gateway.routes.generation_shapes import (
    GenerationIn,
    GenerationOut,
    GenerationsOut,
    GenerationStateOut,
)
from gateway.routes.paths import PathJob
from gateway.routes.presenting import eta, generation_state, written
from gateway.routes.shapes import PROBLEMS_FIELD, TopupOut, answers
from gateway.wiring.dependencies import Caller, GenerationsDep, PaymentsDep

router = APIRouter(route_class=BoundedRoute, prefix="/v1/generations", tags=["generations"])


@router.post(
    "",
    status_code=202,
    summary="Ask for an image",
    **answers(
        GenerationOut,
        "insufficient_credits",
        "allowance_shared_out",
        "account_in_debt",
        "payment_required",
        "l402_not_valid",
        "l402_not_allowed",
        "too_many_challenges",
        "session_paused",
        "session_spend_cap_reached",
        "too_many_variations",
        "unknown_rail",
        "rail_closed",
        "payment_retracted",
        "amount_too_small",
        "idempotency_conflict",
        "out_of_order",
        "sketch_too_large",
        "sketch_type",
        "sketch_unreadable",
        "sketch_size",
        "sketch_animated",
        "blank_sketch",
        "sketch_too_complex",
        "too_many_uploads",
        "upload_quota_used_up",
        "uploads_busy",
        "too_many_in_flight",
        "too_many_paid_apart",
        "queue_too_long_to_hold",
        "queue_full",
        "no_worker_can_serve",
    ),
)
async def request_generation(
    request: Request,
    body: GenerationIn,
    caller: Caller,
    requests: Annotated[Requests, Depends(requests_of)],
    generations: GenerationsDep,
    idempotency_key: IdempotencyKey = None,
) -> GenerationOut:
    """Holds the price and queues the job. Nothing is charged unless an image is delivered.

    Answers 402 with the balance and a link to top up if there are not enough credits. The same
    `Idempotency-Key` and body always mean the same image, however often they are sent.
    """
    accepted = await requests.accept(request, caller, body, idempotency_key)
    estimate = await generations.estimate_accepted(accepted, requests.settings.graph)
    opened = accepted.opened
    return GenerationOut(
        id=accepted.job_id,
        state=accepted.state,
        price_credits=accepted.price_credits,
        seed=seed_of(accepted.job_id) if body.seed is None else body.seed,
        position=estimate.position if estimate else None,
        eta_seconds=eta(estimate),
        workers=estimate.workers if estimate else None,
        topup=TopupOut.model_validate(opened.instructions) if opened else None,
    )


@router.get("", summary="Images under way", **answers(GenerationsOut))
async def under_way(caller: Caller, generations: GenerationsDep, payments: PaymentsDep) -> Response:
    """The ten newest that have not ended, also those that wait to be paid for; without frames of live sessions."""
    found = await generations.in_flight(caller.account_id)
    shown = [await generation_state(generations, payments, job_id, job) for job_id, job in found]
    return written(GenerationsOut(generations=shown))


@router.get("/{job_id}", summary="Where an image stands", **answers(GenerationStateOut, "job_not_found"))
async def generation(
    caller: Caller, job_id: PathJob, generations: GenerationsDep, payments: PaymentsDep
) -> Response:
    """State, place in the queue, links to the image, and what it holds or has cost."""
    job = await generations.job(caller.account_id, job_id)
    return written(await generation_state(generations, payments, job_id, job))


@router.delete("/{job_id}", summary="Cancel", **answers(GenerationStateOut, "job_not_found"))
async def cancel(
    caller: Caller, job_id: PathJob, generations: GenerationsDep, payments: PaymentsDep
) -> GenerationStateOut:
    """Waiting: cancelled at once. Being painted: the worker is told; an image that is faster wins."""
    job = await generations.cancel(caller.account_id, job_id)
    return await generation_state(generations, payments, job_id, job)


@router.get(
    "/{job_id}/image",
    summary="The image",
    status_code=307,
    response_class=Response,
    response_description="A redirect to the image.",
    openapi_extra={PROBLEMS_FIELD: ["job_not_found", "no_image"]},
)
async def image(
    caller: Caller, job_id: PathJob, generations: GenerationsDep, thumbnail: bool = False
) -> Response:
    """Redirects to a link that expires in an hour."""
    url = await generations.image_url(caller.account_id, job_id, thumbnail=thumbnail)
    if url is None:
        raise Problem("no_image", "There is no image (yet, or any more).")
    # A browser in which somebody else is signed in now asks again.
    headers = {"Cache-Control": "private, max-age=600", "Vary": "Cookie, Authorization"}
    return RedirectResponse(url, status_code=307, headers=headers)
