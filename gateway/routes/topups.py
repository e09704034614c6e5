"""`/v1/topups`, `/v1/rails`, `/v1/hooks`: paying in."""

from __future__ import annotations

import contextlib
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Header, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.authentication import Caller
from gateway.idempotency import Mapped
from gateway.identity import Principal, Role
from gateway.problems import Problem
from gateway.routes.shapes import RailsOut, StoredOut, TopupOut, TopupsOut, answers
from gateway.services import Services
from ledger.identifiers import PaymentId, is_identifier
from ledger.money import ASSETS, Money
from rails.contract import RailUnavailable
from rails.topup import TopupView

router = APIRouter(prefix="/v1", tags=["top-ups"])
ROUTE = "POST /v1/topups"
MINOR_MAX = 10**15
HOOK_BYTES_MAX = 256_000


class MoneyIn(BaseModel):
    """An amount in minor units of an asset: USD cents, millisatoshi for BTC, 10⁻⁸ for L-BTC and USDT."""

    model_config = ConfigDict(strict=True, extra="forbid")
    amount_minor: int = Field(ge=1, le=MINOR_MAX)
    asset: str = Field(max_length=12)


class TopupIn(BaseModel):
    """What to buy: `credits`, or for an `amount`."""

    model_config = ConfigDict(strict=True, extra="forbid")
    rail: str = Field(
        pattern=r"^[a-z0-9_-]{1,32}$", examples=["lightning"], description="A name from `GET /v1/rails`."
    )
    credits: int | None = Field(default=None, ge=1, le=1_000_000, description="Either this, or `amount`.")
    amount: MoneyIn | None = None
    pay_asset: str | None = Field(
        default=None, max_length=12, description="One of the rail's assets; the first if left out."
    )
    attempt_of: str | None = Field(
        default=None, max_length=40, description="The top-up this is another try at."
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> TopupIn:
        if (self.credits is None) == (self.amount is None):
            raise ValueError("give either credits or amount")
        return self


@router.get("/rails", summary="Ways to pay", **answers(RailsOut))
async def rails(request: Request) -> dict[str, Any]:
    """Which ways to pay are open now, and if not, why not."""
    services: Services = request.app.state.services
    return services.payments.rails()


@router.post(
    "/topups",
    status_code=201,
    summary="Open a top-up",
    **answers(
        TopupOut,
        "unknown_rail",
        "rail_closed",
        "rail_unavailable",
        "unsupported_asset",
        "asset_not_accepted",
        "amount_too_small",
        "amount_too_large",
        "too_many_open_payments",
        "idempotency_conflict",
        status=201,
    ),
)
async def open_topup(
    request: Request,
    body: TopupIn,
    caller: Caller,
    idempotency_key: Annotated[str | None, Header(max_length=255, description="See Sending again.")] = None,
) -> dict[str, Any]:
    """Gives instructions to pay. Whatever arrives there is credited, also late, twice or too much.

    A guest's first top-up carries `recovery_code`, once: it opens this balance on another device.
    """
    services: Services = request.app.state.services
    amount = None
    if body.amount is not None:
        asset = ASSETS.get(body.amount.asset)
        if asset is None:
            raise Problem(422, "unsupported_asset", f"We do not take {body.amount.asset[:12]}.")
        amount = Money(body.amount.amount_minor, asset)
    mapped = await services.idempotency.map(
        principal=caller.account_id,
        route=ROUTE,
        key=idempotency_key,
        body=await request.body(),
        new_id=services.identifiers.command(),
    )
    view = await _opened_before(services, mapped)
    if view is None:
        # The log records no refusal of this command: one that comes now leaves the key as it is.
        view = await services.payments.open_topup(
            caller.account_id,
            body.rail,
            return_url=f"{services.settings.public_url}/topups/{{payment_id}}",
            wanted=body.credits,
            amount=amount,
            pay_asset=body.pay_asset,
            attempt_of=body.attempt_of,
            key=mapped.command_key,
        )
    return await _with_recovery(services, caller, view)


async def _opened_before(services: Services, mapped: Mapped) -> TopupView | None:
    """What this key has opened: shown again also while nothing new could be opened."""
    known = None if mapped.fresh else await services.reader.outcome(mapped.command_key)
    if known is None or known.refusal is not None:
        return None
    payment_id = PaymentId(msgspec.json.decode(known.detail)["payment_id"])
    with contextlib.suppress(RailUnavailable):
        await services.payments.open_way(payment_id)
    return await services.payments.topup(payment_id)


async def _with_recovery(services: Services, caller: Principal, view: TopupView) -> dict[str, Any]:
    shown = view.to_json()
    if caller.role is Role.VISITOR:
        code = await services.people.first_recovery_code(caller.account_id)
        if code is not None:
            shown["recovery_code"] = code
    return shown


async def _own(services: Services, caller: Principal, topup_id: str) -> TopupView:
    view = await services.payments.topup(PaymentId(topup_id)) if is_identifier(topup_id, "pay") else None
    if view is None or view.account_id != caller.account_id:
        raise Problem(404, "payment_not_found", "There is no such top-up.")
    return view


@router.get("/topups", summary="Your top-ups", **answers(TopupsOut))
async def topups(request: Request, caller: Caller) -> dict[str, Any]:
    """The newest fifty."""
    services: Services = request.app.state.services
    found = await services.payments.topups_of(caller.account_id)
    return {"topups": [view.to_json() for view in found]}


@router.get("/topups/{topup_id}", summary="Where a top-up stands", **answers(TopupOut, "payment_not_found"))
async def topup(request: Request, topup_id: str, caller: Caller) -> dict[str, Any]:
    """State, what has arrived, what was credited."""
    services: Services = request.app.state.services
    return (await _own(services, caller, topup_id)).to_json()


@router.post(
    "/topups/{topup_id}/cancel",
    summary="Close an unpaid top-up",
    **answers(TopupOut, "payment_not_found", "rail_unavailable"),
)
async def cancel_topup(request: Request, topup_id: str, caller: Caller) -> dict[str, Any]:
    """Money that is already there wins, and money that still comes is credited all the same."""
    services: Services = request.app.state.services
    view = await _own(services, caller, topup_id)
    return (await services.payments.cancel(view.payment_id)).to_json()


@router.post(
    "/hooks/{rail}",
    summary="Notifications of a payment rail",
    **answers(StoredOut, "unknown_rail", "no_webhooks", "hint_rejected", "body_too_large"),
)
async def hook(request: Request, rail: str) -> dict[str, int]:
    """Verified, stored and answered at once; 404 for rails that have none."""
    services: Services = request.app.state.services
    body = await request.body()
    if len(body) > HOOK_BYTES_MAX:
        raise Problem(413, "body_too_large", "This notification is too large.")
    return {"stored": await services.payments.accept_hint(rail, dict(request.headers), body)}
