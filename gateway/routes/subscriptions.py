"""`/v1/subscriptions`: plans that a payment method charges again by itself."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Depends, Request
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from gateway.auth.identity import Role
from gateway.http.idempotency import IdempotencyKey
from gateway.http.problems import Problem
from gateway.routes.bounded import BoundedRoute
from gateway.routes.shapes import MoneyOut, answers
from gateway.routes.subscription_shapes import (
    ChangePreviewOut,
    PaymentDueOut,
    PortalOut,
    RecurringOut,
    SubscriptionsOut,
)
from gateway.wiring.dependencies import (
    Caller,
    CatalogueDep,
    IdempotencyKeysDep,
    IdentifiersDep,
    LogReaderDep,
    OwnershipDep,
    SettingsDep,
    SubscriptionsDep,
)
from ledger.catalogue import Catalogue
from ledger.identifiers import is_identifier
from ledger.money import Money
from ledger.plans import label_of
from rails.recurring import ChangePreview, Offer
from rails.subscriptions.record import SubscriptionRecord

router = APIRouter(route_class=BoundedRoute, prefix="/v1/subscriptions", tags=["subscriptions"])
Length = Literal["month", "year"]
CHANGE_PROBLEMS = (
    "subscription_unknown",
    "subscription_not_running",
    "subscription_change_refused",
    "rail_unavailable",
)


class PlanIn(BaseModel):
    """Which plan, for how long."""

    model_config = ConfigDict(strict=True, extra="forbid")
    plan: str = Field(pattern=r"^[a-z0-9_-]{1,40}$", description="A name from `GET /v1/plans`.")
    length: Length = "month"

    @property
    def offer(self) -> Offer:
        """As the rails name it."""
        return Offer(plan=self.plan, length=self.length)


class SubscribeIn(PlanIn):
    """Which plan, for how long, by which payment method."""

    rail: str = Field(
        default="card",
        pattern=r"^[a-z0-9_-]{1,32}$",
        description="One of `rails` in `GET /v1/subscriptions`.",
    )


def _text(value: object) -> object:
    """Times are sent as text: a number is none."""
    if not isinstance(value, str):
        raise ValueError("should be text")  # noqa: TRY004 - what Pydantic answers by name
    return value


class PreviewIn(PlanIn):
    """Which plan, for how long, instead."""

    at_period_end: bool = Field(
        default=False,
        description="Begin after the period, although it could begin at once. What is smaller or shorter always does.",
    )


class ChangeIn(PreviewIn):
    """Which plan instead, at what was shown for it."""

    prorated_at: Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_text)] | None = Field(
        default=None, description="From the preview; needed for what begins at once."
    )


@router.post(
    "",
    status_code=201,
    summary="Subscribe to a plan",
    **answers(
        RecurringOut,
        "sign_in_needed",
        "unknown_rail",
        "cannot_subscribe",
        "plan_unknown",
        "subscription_exists",
        "too_many_subscription_pages",
        "subscription_change_refused",
        "rail_unavailable",
        "idempotency_conflict",
    ),
)
async def subscribe(
    request: Request,
    body: SubscribeIn,
    caller: Caller,
    subscriptions: SubscriptionsDep,
    keys: IdempotencyKeysDep,
    identifiers: IdentifiersDep,
    reader: LogReaderDep,
    settings: SettingsDep,
    catalogue: CatalogueDep,
    idempotency_key: IdempotencyKey = None,
) -> RecurringOut:
    """Gives the address of a page to subscribe on. Coming back from it grants nothing: the payment does."""
    if caller.role is Role.VISITOR:
        # A plan outlives a browser's cookie, and its owner must be able to change and cancel it.
        raise Problem("sign_in_needed")
    mapped = await keys.map(
        principal=caller.account_id,
        route="POST /v1/subscriptions",
        key=idempotency_key,
        body=await request.body(),
        new_id=identifiers.command(),
    )
    return_url = f"{settings.public_url}/account?subscription={{subscription_id}}"
    known = None if mapped.fresh else await reader.outcome(mapped.command_key)
    if known is not None and known.refusal is None:
        # What this key has opened is shown again, also now that nothing new could be.
        opened = msgspec.json.decode(known.detail, type=str)
        return shown(await subscriptions.page(opened, return_url), catalogue)
    record = await subscriptions.subscribe(
        caller.account_id, body.rail, body.offer, return_url=return_url, key=mapped.command_key
    )
    return shown(record, catalogue)


@router.get("", summary="Your subscriptions", **answers(SubscriptionsOut))
async def subscriptions_of(
    caller: Caller, subscriptions: SubscriptionsDep, catalogue: CatalogueDep
) -> SubscriptionsOut:
    """The newest twenty, those that are over too."""
    found = await subscriptions.of_account(caller.account_id)
    return SubscriptionsOut(
        subscriptions=[shown(record, catalogue) for record in found], rails=list(subscriptions.rails())
    )


async def own_subscription(
    subscription_id: str, caller: Caller, subscriptions: SubscriptionsDep, ownership: OwnershipDep
) -> SubscriptionRecord:
    """Dependency: the subscription of the path. Raises `Problem` 404 if it is not the caller's."""
    if is_identifier(subscription_id, "subscr"):
        found = await subscriptions.find(subscription_id)
        if found is not None and await ownership.owns(caller.account_id, found.account_id):
            return found
    raise Problem("subscription_unknown", "There is no such subscription.")


OwnSubscription = Annotated[SubscriptionRecord, Depends(own_subscription)]


@router.get(
    "/{subscription_id}",
    summary="Where a subscription stands",
    **answers(RecurringOut, "subscription_unknown"),
)
async def subscription(own: OwnSubscription, catalogue: CatalogueDep) -> RecurringOut:
    """As of when the payment method was last asked."""
    return shown(own, catalogue)


@router.post(
    "/{subscription_id}/preview",
    summary="What a change of plan would cost",
    **answers(
        ChangePreviewOut,
        *CHANGE_PROBLEMS,
        "plan_unknown",
        "plan_unchanged",
        "change_waits_for_payment",
        "overage_by_the_month",
    ),
)
async def preview(body: PreviewIn, own: OwnSubscription, subscriptions: SubscriptionsDep) -> ChangePreviewOut:
    """Changes nothing. A larger plan or a year instead of a month begins at once, what is smaller or shorter with the
    next period."""
    found, credits_now, at_once = await subscriptions.preview(
        own.subscription_id, body.offer, later=body.at_period_end
    )
    return preview_shown(body.offer, found, credits_now, at_once=at_once)


@router.post(
    "/{subscription_id}/change",
    summary="Change the plan",
    **answers(
        RecurringOut,
        *CHANGE_PROBLEMS,
        "plan_unknown",
        "plan_unchanged",
        "change_waits_for_payment",
        "overage_by_the_month",
        "preview_stale",
        "idempotency_conflict",
    ),
)
async def change(
    request: Request,
    body: ChangeIn,
    own: OwnSubscription,
    caller: Caller,
    subscriptions: SubscriptionsDep,
    keys: IdempotencyKeysDep,
    identifiers: IdentifiersDep,
    catalogue: CatalogueDep,
    idempotency_key: IdempotencyKey = None,
) -> RecurringOut:
    """A larger plan, or a year instead of a month, at once for what the preview showed; it takes effect when that is
    paid. What is smaller or shorter after the period, for nothing now."""
    mapped = await keys.map(
        principal=caller.account_id,
        route="POST /v1/subscriptions/{subscription_id}/change",
        key=idempotency_key,
        body=own.subscription_id.encode() + await request.body(),
        new_id=identifiers.command(),
    )
    key, at = mapped.resource_id, body.prorated_at
    changed = await subscriptions.change(
        own.subscription_id, body.offer, at=at, key=key, later=body.at_period_end
    )
    return shown(changed, catalogue)


@router.post(
    "/{subscription_id}/cancel",
    summary="Cancel at the end of the period",
    **answers(RecurringOut, *CHANGE_PROBLEMS),
)
async def cancel(
    own: OwnSubscription, subscriptions: SubscriptionsDep, catalogue: CatalogueDep
) -> RecurringOut:
    """What is paid for stays until then. Sending it again changes nothing."""
    return shown(await subscriptions.cancel(own.subscription_id), catalogue)


@router.post(
    "/{subscription_id}/resume",
    summary="Take back a cancellation, a smaller plan to come, or a pause",
    **answers(RecurringOut, *CHANGE_PROBLEMS),
)
async def resume(
    own: OwnSubscription, subscriptions: SubscriptionsDep, catalogue: CatalogueDep
) -> RecurringOut:
    """It goes on as it is. Sending it again changes nothing."""
    return shown(await subscriptions.resume(own.subscription_id), catalogue)


@router.post(
    "/{subscription_id}/portal",
    summary="A page for card and invoices",
    **answers(PortalOut, *CHANGE_PROBLEMS),
)
async def portal(own: OwnSubscription, subscriptions: SubscriptionsDep, settings: SettingsDep) -> PortalOut:
    """The payment provider's own page, for a few minutes. What is done there arrives here."""
    return PortalOut(url=await subscriptions.portal(own.subscription_id, f"{settings.public_url}/account"))


def shown(record: SubscriptionRecord, catalogue: Catalogue) -> RecurringOut:
    """A subscription in the API's words."""
    is_due = record.pay_url is not None or record.next_attempt_at is not None
    due = PaymentDueOut(url=record.pay_url, next_attempt_at=_time(record.next_attempt_at))
    return RecurringOut.model_validate(
        {
            "id": record.subscription_id,
            "rail": record.rail,
            "status": record.status.value,
            "plan": record.plan,
            "plan_label": label_of(record.plan, catalogue.plans),
            "length": record.length,
            "page_url": record.page_url,
            "period_start": _time(record.period_start),
            "period_end": _time(record.period_end),
            "cancels": record.cancels,
            "next_plan": record.next_plan,
            "next_length": record.next_length,
            "pending_plan": record.pending_plan,
            "pending_length": record.pending_length,
            "payment_due": due if is_due else None,
            "opened_at": record.opened_at.isoformat(),
        }
    )


def preview_shown(offer: Offer, found: ChangePreview, credits_now: int, *, at_once: bool) -> ChangePreviewOut:
    """A preview in the API's words."""
    return ChangePreviewOut.model_validate(
        {
            "plan": offer.plan,
            "length": offer.length,
            "when": "now" if at_once else "period_end",
            "due_now": _money(found.due_now),
            "due_next": _money(found.due_next),
            "next_at": found.next_at.isoformat(),
            "credits_now": credits_now,
            "prorated_at": found.at.isoformat(),
        }
    )


def _money(amount: Money) -> MoneyOut:
    return MoneyOut(amount_minor=amount.minor, asset=amount.asset.code)


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
