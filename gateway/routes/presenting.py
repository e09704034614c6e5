"""Accounts and generations in the API's words, for routes and for the stream alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from fastapi import Response
from pydantic import BaseModel

from gateway.routes.generation_shapes import CreditsOut, EtaOut, GenerationStateOut
from gateway.routes.shapes import (
    AccountStateOut,
    BalanceOut,
    FreeTodayOut,
    LotOut,
    SubscriptionOut,
    TopupOut,
    UsageOut,
)
from generation.domain.job import Job
from generation.domain.reasons import sentence
from generation.domain.states import JobState
from generation.jobs.service import Generations
from generation.queueing.estimating import Estimate
from ledger.domain.view import AccountView, LotView
from ledger.identifiers import AccountId, JobId
from rails.domain.topup import TopupView, money_json
from rails.payments.service import Payments

ShapeT = TypeVar("ShapeT", bound=BaseModel)


def shaped(shape: type[ShapeT], value: object) -> ShapeT:
    """A struct as the answer that has the same members."""
    return shape.model_validate(msgspec.to_builtins(value))


def written(answer: BaseModel | Mapping[str, Any], status: int = 200) -> Response:
    """An answer that is asked for often, sent as it is: it is, or has the members of, the route's `response_model`.

    `tests/gateway/test_answers.py` holds real answers against their models.
    """
    if isinstance(answer, BaseModel):
        sent = answer.__pydantic_serializer__.to_json(answer, exclude_unset=True, by_alias=True)
    else:
        sent = msgspec.json.encode(answer)
    return Response(sent, status, media_type="application/json")


def account_state(account_id: AccountId, view: AccountView) -> AccountStateOut:
    """An account, as `Ledger.account` shows it."""
    return AccountStateOut(
        id=account_id,
        plan=view.plan,
        plan_label=view.plan_label,
        priority=view.priority,
        paid=has_paid(view),
        credits=balance(view),
        free_today=FreeTodayOut(left=sum(lot.left for lot in view.lots if lot.source == "allowance")),
        usage=UsageOut.model_validate({**msgspec.to_builtins(view.usage), "overage_owed": view.overage_owed}),
        subscription=None if view.subscription is None else shaped(SubscriptionOut, view.subscription),
        subscriptions=[shaped(SubscriptionOut, seen) for seen in view.subscriptions],
        lots=[_lot(lot) for lot in view.lots],
    )


def has_paid(view: AccountView) -> bool:
    """Whether there are credits that somebody paid for."""
    return any(lot.consideration is not None for lot in view.lots)


def balance(view: AccountView) -> BalanceOut:
    """The four figures of an account."""
    return BalanceOut(posted=view.posted, held=view.held, available=view.available, debt=view.debt)


def _lot(lot: LotView) -> LotOut:
    return LotOut.model_validate(
        {
            "id": lot.lot_id,
            "source": lot.source,
            "granted": lot.granted,
            "left": lot.left,
            "held": lot.held,
            "spent": lot.spent,
            "granted_at": lot.granted_at.isoformat(),
            "expires_at": lot.expires_at.isoformat() if lot.expires_at else None,
            "reference": lot.reference,
            "claimable": lot.claimable,
        }
    )


def topup_shown(view: TopupView) -> TopupOut:
    """A top-up and where it stands."""
    return TopupOut.model_validate(view.to_json())


def image_prices(payments: Payments, credits_: int) -> list[dict[str, Any]]:
    """What an image of this price in credits costs now if it is paid for alone, as `ImagePriceOut`."""
    return [
        {"rail": price.rail, **money_json(price.due), "held": price.held}
        for price in payments.credit_prices(credits_)
    ]


async def generation_state(
    generations: Generations, payments: Payments, job_id: JobId, job: Job
) -> GenerationStateOut:
    """A job and where it stands: in the queue too while it waits, and with the payment made for it alone."""
    payment_id = await generations.payment_of(job_id, job)
    estimate = await generations.estimate(job_id) if job.state is JobState.QUEUED else None
    done = job.state is JobState.COMPLETED
    url = f"/v1/generations/{job_id}/image"
    held = 0 if job.state.final or job.hold_id is None else job.price_credits
    return GenerationStateOut(
        id=job_id,
        state=job.state.value,
        price_credits=job.price_credits,
        seed=await generations.seed(job_id),
        position=estimate.position if estimate else None,
        eta_seconds=eta(estimate),
        workers=estimate.workers if estimate else None,
        topup=None if payment_id is None else topup_shown(await payments.topup(payment_id)),
        expires_at=None if job.state.final or job.deadline is None else job.deadline.isoformat(),
        image_url=url if done else None,
        thumbnail_url=f"{url}?thumbnail=true" if done else None,
        credits=CreditsOut(held=held, captured=job.captured_credits),
        reason=job.reason,
        message=sentence(job),
    )


def eta(estimate: Estimate | None) -> EtaOut | None:
    """When the image should be there; None without evidence."""
    if estimate is None or estimate.low_seconds is None or estimate.high_seconds is None:
        return None
    return EtaOut(low=estimate.low_seconds, high=estimate.high_seconds)
