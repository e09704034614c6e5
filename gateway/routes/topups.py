"""`/v1/topups`, `/v1/rails`, `/v1/hooks`: paying in."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Annotated, Literal, Self, TypeAlias

import msgspec
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.auth.identity import Role
from gateway.http.idempotency import IdempotencyKey, IdempotencyKeys, Mapped
from gateway.http.problems import Problem
from gateway.routes.bounded import BoundedRoute
from gateway.routes.presenting import topup_shown
from gateway.routes.purchases import PurchasesDep
from gateway.routes.shapes import RailsOut, StoredOut, TopupOut, TopupsOut, answers
from gateway.wiring.dependencies import (
    Caller,
    IdempotencyKeysDep,
    IdentifiersDep,
    LogReaderDep,
    OwnershipDep,
    PaymentsDep,
    PeopleDep,
    SettingsDep,
)
from ledger.identifiers import AccountId, Identifiers, PaymentId, is_identifier
from ledger.log.postgres_reader import PostgresLogReader
from ledger.money import ASSETS, Money
from rails.contract import RailUnavailable
from rails.domain.purchases import Purchase
from rails.domain.refusals import TooManyOpenPayments
from rails.domain.topup import TopupView
from rails.payments.service import Payments

router = APIRouter(route_class=BoundedRoute, prefix="/v1", tags=["top-ups"])
ROUTE = "POST /v1/topups"
MINOR_MAX = 10**15
HOOK_BYTES_MAX = 256_000


class MoneyIn(BaseModel):
    """An amount in minor units of an asset: USD cents, millisatoshi for BTC, 10⁻⁸ for L-BTC and USDT."""

    model_config = ConfigDict(strict=True, extra="forbid")
    amount_minor: int = Field(ge=1, le=MINOR_MAX)
    asset: str = Field(max_length=12)


class RailIn(BaseModel):
    """By which rail, and in which of its assets."""

    model_config = ConfigDict(strict=True, extra="forbid")
    rail: str = Field(
        pattern=r"^[a-z0-9_-]{1,32}$", examples=["lightning"], description="A name from `GET /v1/rails`."
    )
    pay_asset: str | None = Field(
        default=None, max_length=12, description="One of the rail's assets; the first if left out."
    )
    credits: int | None = Field(default=None, ge=1, le=1_000_000, description="Either this, or `amount`.")
    amount: MoneyIn | None = None


class PurchaseIn(RailIn):
    """What to buy: `credits`, or for an `amount`."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.credits is None) == (self.amount is None):
            raise ValueError("give either credits or amount")
        return self


class TopupIn(RailIn):
    """What to buy: `credits`, for an `amount`, or a `pack` or `plan` of `GET /v1/plans` at its own price."""

    pack: str | None = Field(default=None, max_length=40, description="Name of a pack or pass.")
    plan: str | None = Field(
        default=None, max_length=40, description="Name of a plan, for one period; nothing renews by itself."
    )
    length: Literal["month", "year"] | None = Field(
        default=None, description="Of the plan's period; a month if left out."
    )
    attempt_of: str | None = Field(
        default=None, max_length=40, description="The top-up this is another try at."
    )

    @model_validator(mode="after")
    def _one_of_four(self) -> Self:
        if sum(given is not None for given in (self.credits, self.amount, self.pack, self.plan)) != 1:
            raise ValueError("give one of credits, amount, pack and plan")
        if self.length is not None and self.plan is None:
            raise ValueError("only a plan has a length")
        return self


OPENING_PROBLEMS = (
    "unknown_rail",
    "rail_closed",
    "rail_unavailable",
    "unsupported_asset",
    "asset_not_accepted",
    "amount_too_small",
    "amount_too_large",
    "too_many_open_payments",
    "idempotency_conflict",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopupOpening:
    """Opens top-ups, each once, however often it is asked for."""

    payments: Payments
    reader: PostgresLogReader
    keys: IdempotencyKeys
    identifiers: Identifiers

    async def open(
        self,
        request: Request,
        account_id: AccountId,
        body: PurchaseIn | TopupIn,
        *,
        key: str | None,
        route: str,
        return_url: str,
        link: str | None = None,
        purchase: Purchase | None = None,
    ) -> TopupView:
        """`key` is the client's, of this account and route; `link` as in `Payments.open_topup`. Raises as that does."""
        amount = None if body.amount is None else _money(body.amount)
        mapped = await self.keys.map(
            principal=account_id,
            route=route,
            key=key,
            body=await request.body(),
            new_id=self.identifiers.command(),
        )
        known = None if mapped.fresh else await self._opened_before(mapped)
        if known is not None:
            return known
        try:
            # The log records no refusal of this command: one that comes now leaves the key as it is.
            return await self.payments.open_topup(
                account_id,
                body.rail,
                return_url=return_url,
                wanted=body.credits,
                amount=amount,
                pay_asset=body.pay_asset,
                attempt_of=body.attempt_of if isinstance(body, TopupIn) else None,
                key=mapped.command_key,
                link=link,
                purchase=purchase,
            )
        except TooManyOpenPayments:
            # The same request, sent twice at once, may just have taken the last place.
            known = await self._opened_before(mapped)
            if known is None:
                raise
            return known

    async def _opened_before(self, mapped: Mapped) -> TopupView | None:
        """What this key has opened: shown again also while nothing new could be opened."""
        known = await self.reader.outcome(mapped.command_key)
        if known is None or known.refusal is not None:
            return None
        payment_id = PaymentId(msgspec.json.decode(known.detail)["payment_id"])
        with contextlib.suppress(RailUnavailable):
            await self.payments.open_request(payment_id)
        return await self.payments.topup(payment_id)


def _money(sent: MoneyIn) -> Money:
    asset = ASSETS.get(sent.asset)
    if asset is None:
        raise Problem("unsupported_asset", f"We do not take {sent.asset[:12]}.")
    return Money(sent.amount_minor, asset)


async def topup_opening(
    payments: PaymentsDep, reader: LogReaderDep, keys: IdempotencyKeysDep, identifiers: IdentifiersDep
) -> TopupOpening:
    """Dependency: what opens top-ups."""
    return TopupOpening(payments=payments, reader=reader, keys=keys, identifiers=identifiers)


TopupOpeningDep: TypeAlias = Annotated[TopupOpening, Depends(topup_opening)]


@router.get("/rails", summary="Payment methods", **answers(RailsOut))
async def rails(payments: PaymentsDep) -> RailsOut:
    """Which payment methods are open now, and if not, why not."""
    return RailsOut.model_validate(payments.rails())


@router.post(
    "/topups",
    status_code=201,
    summary="Open a top-up",
    **answers(
        TopupOut,
        *OPENING_PROBLEMS,
        "unknown_product",
        "sign_in_needed",
        "plan_renews",
        "plan_paid_ahead",
    ),
)
async def open_topup(
    request: Request,
    body: TopupIn,
    caller: Caller,
    opening: TopupOpeningDep,
    purchases: PurchasesDep,
    people: PeopleDep,
    settings: SettingsDep,
    idempotency_key: IdempotencyKey = None,
) -> TopupOut:
    """Gives instructions to pay. Whatever arrives there is credited, also late, twice or too much.

    A pack, a pass or a plan is granted whole when its price is there; what falls short of it, after waiting for
    the rest, and what is left over becomes plain credits. A plan paid again before its end is longer by a period.
    A guest's top-up carries `recovery_code`, the same each time: it opens this balance on another device.
    """
    purchase = None if body.pack is None else purchases.pack(body.pack)
    if body.plan is not None:
        purchase = await purchases.plan(caller, body.plan, body.length or "month")
    view = await opening.open(
        request,
        caller.account_id,
        body,
        key=idempotency_key,
        route=ROUTE,
        return_url=f"{settings.public_url}/topups/{{payment_id}}",
        purchase=purchase,
    )
    shown = topup_shown(view)
    # A token may be narrowed and ended, and the code can neither: whoever has it has the whole balance for good.
    guest = caller.role is Role.VISITOR and caller.token_id is None
    code = await people.recovery_code(caller.account_id) if guest else None
    return shown if code is None else shown.model_copy(update={"recovery_code": code})


@router.get("/topups", summary="Your top-ups", **answers(TopupsOut))
async def topups(caller: Caller, payments: PaymentsDep) -> TopupsOut:
    """The newest fifty."""
    found = await payments.topups_of(caller.account_id)
    return TopupsOut(topups=[topup_shown(view) for view in found])


async def own_topup(
    topup_id: str, caller: Caller, payments: PaymentsDep, ownership: OwnershipDep
) -> TopupView:
    """Dependency: the top-up of the path. Raises `Problem` 404 if it is not the caller's."""
    view = await payments.topup(PaymentId(topup_id)) if is_identifier(topup_id, "pay") else None
    if view is None or not await ownership.owns(caller.account_id, view.account_id):
        raise Problem("payment_not_found", "There is no such top-up.")
    return view


OwnTopup = Annotated[TopupView, Depends(own_topup)]


@router.get("/topups/{topup_id}", summary="Where a top-up stands", **answers(TopupOut, "payment_not_found"))
async def topup(own: OwnTopup) -> TopupOut:
    """State, what has arrived, what was credited."""
    return topup_shown(own)


@router.post(
    "/topups/{topup_id}/cancel",
    summary="Close an unpaid top-up",
    **answers(TopupOut, "payment_not_found", "rail_unavailable"),
)
async def cancel_topup(own: OwnTopup, payments: PaymentsDep) -> TopupOut:
    """Money that is already there wins, and money that still comes is credited all the same."""
    return topup_shown(await payments.cancel(own.payment_id))


@router.post(
    "/hooks/{rail}",
    summary="Notifications of a payment rail",
    **answers(
        StoredOut, "unknown_rail", "no_webhooks", "hint_rejected", "body_too_large", "notifications_full"
    ),
)
async def hook(request: Request, rail: str, payments: PaymentsDep) -> StoredOut:
    """Verified, stored and answered at once; 404 for rails that have none."""
    body = await request.body()
    if len(body) > HOOK_BYTES_MAX:
        raise Problem("body_too_large", "This notification is too large.")
    return StoredOut(stored=await payments.accept_notification(rail, dict(request.headers), body))
