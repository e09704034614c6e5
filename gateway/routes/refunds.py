"""`/v1/topups/{id}/refund`: a person asks for the money of credits that were not used."""

from __future__ import annotations

from datetime import timedelta

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from gateway.http.idempotency import IdempotencyKey
from gateway.http.problems import Problem
from gateway.routes.bounded import BoundedRoute
from gateway.routes.presenting import topup_shown
from gateway.routes.shapes import RefundOfferOut, RefundOffersOut, TopupOut, answers
from gateway.routes.topups import OwnTopup
from gateway.wiring.dependencies import (
    Caller,
    ClockDep,
    IdempotencyKeysDep,
    IdentifiersDep,
    LogReaderDep,
    OwnershipDep,
    PaymentsDep,
    SettingsDep,
)
from generation.domain.job import Job
from ledger.identifiers import AccountId
from ledger.log.postgres_reader import PostgresLogReader
from rails.domain.topup import TopupView
from rails.payments.refunds import RefundAsked

router = APIRouter(route_class=BoundedRoute, prefix="/v1/topups/{topup_id}/refund", tags=["top-ups"])
ROUTE = "POST /v1/topups/{topup_id}/refund"
REASON = "asked for by its owner"
DESTINATION = r"^[A-Za-z0-9:?=&.,_%+/@-]{6,2000}$"
"""An invoice, an address (of a chain, or one with an @) or a payment URI."""
REFUND_PROBLEMS = (
    "payment_not_found",
    "refund_not_offered",
    "nothing_to_refund",
    "refund_unclear",
    "refund_under_way",
    "refund_too_late",
    "refund_too_large",
    "lot_disputed",
    "lot_not_found",
    "destination_missing",
    "destination_not_taken",
    "destination_unusable",
    "idempotency_conflict",
)


class RefundIn(BaseModel):
    """Which unspent credits are to be refunded; all of the only ones if nothing is named."""

    model_config = ConfigDict(strict=True, extra="forbid")
    lot_id: str | None = Field(default=None, max_length=80, description="One of the offers.")
    credits: int | None = Field(default=None, ge=1, le=1_000_000, description="All if left out.")
    destination: str | None = Field(
        default=None, pattern=DESTINATION, description="Where to, unless it goes back to its origin."
    )


@router.get("", summary="What can be refunded", **answers(RefundOffersOut, "payment_not_found"))
async def refund_offers(
    own: OwnTopup,
    payments: PaymentsDep,
    reader: LogReaderDep,
    ownership: OwnershipDep,
    settings: SettingsDep,
    clock: ClockDep,
) -> RefundOffersOut:
    """Unspent credits of this top-up, each with the money that is sent back for them, within the time for it."""
    to = payments.refunds.goes_to(own.rail)
    days = settings.refund_days
    if not await _is_offered(own, to is not None and days > 0, reader):
        return RefundOffersOut(days=days, to=None, offers=[])
    owner = await ownership.owner_of(AccountId(own.account_id))
    now = clock()
    found = await payments.refunds.refundable(own.payment_id, (await reader.state(owner)).state, now)
    return RefundOffersOut(
        days=days,
        to=None if to is None else to.value,
        offers=[
            RefundOfferOut(
                lot_id=lot.lot_id,
                credits=lot.credits,
                amount_minor=amount.minor,
                asset=lot.amount.asset.code,
                until=until.isoformat(),
            )
            for lot in found
            if now <= (until := lot.lot.terms.granted_at + timedelta(days=days))
            and (amount := payments.refunds.on_request(own.rail, lot.amount)).minor > 0
        ],
    )


@router.post(
    "", status_code=202, summary="Ask for a refund of unspent credits", **answers(TopupOut, *REFUND_PROBLEMS)
)
async def ask_for_refund(
    request: Request,
    body: RefundIn,
    own: OwnTopup,
    caller: Caller,
    payments: PaymentsDep,
    reader: LogReaderDep,
    ownership: OwnershipDep,
    keys: IdempotencyKeysDep,
    identifiers: IdentifiersDep,
    settings: SettingsDep,
    idempotency_key: IdempotencyKey = None,
) -> TopupOut:
    """The credits are held at once and the money is sent afterwards: see `refunds` of the top-up.

    It is at most what was paid for those credits. Of bitcoin whole satoshi are sent.
    """
    to = payments.refunds.goes_to(own.rail)
    if not await _is_offered(own, to is not None and settings.refund_days > 0, reader):
        raise Problem("refund_not_offered")
    mapped = await keys.map(
        principal=caller.account_id,
        route=ROUTE.format(topup_id=own.payment_id),
        key=idempotency_key,
        body=await request.body(),
        new_id=identifiers.command(),
    )
    asked = RefundAsked(
        payment_id=own.payment_id,
        lot_id=body.lot_id,
        credits=body.credits,
        destination=body.destination,
        reason=REASON,
        days_max=settings.refund_days,
    )
    owner = await ownership.owner_of(AccountId(own.account_id))
    await payments.refunds.request(owner, asked, actor=caller.actor, key=mapped.command_key)
    return topup_shown(await payments.topup(own.payment_id))


async def _is_offered(own: TopupView, by_the_rules: bool, reader: PostgresLogReader) -> bool:
    """Not what somebody else paid by a link, nor what an image that is being made is to be paid with."""
    if not by_the_rules or own.link is not None:
        return False
    if own.job_id is None:
        return True
    job: Job = (await reader.state(own.job_id)).state
    return job.state.final
