"""`/v1/topup-link`: what whoever has a link to top up an account may do, and that is all that they may."""

from __future__ import annotations

from fastapi import APIRouter, Request

from gateway.auth.topup_links import TopupLink
from gateway.http.idempotency import IdempotencyKey
from gateway.http.problems import Problem
from gateway.routes.bounded import BoundedRoute
from gateway.routes.presenting import topup_shown
from gateway.routes.shapes import TopupLinkOut, TopupOut, answers
from gateway.routes.topups import OPENING_PROBLEMS, PurchaseIn, TopupOpeningDep
from gateway.wiring.dependencies import (
    ClockDep,
    LedgerDep,
    LimiterDep,
    LinkHolder,
    OwnershipDep,
    PaymentsDep,
    SettingsDep,
)
from ledger.clock import Clock
from ledger.identifiers import PaymentId, is_identifier

router = APIRouter(route_class=BoundedRoute, prefix="/v1/topup-link", tags=["top-up links"])
ROUTE = "POST /v1/topup-link/topups"
LETTERS_SHOWN = 4
"""Of the account's id: enough to tell two apart, and of no other use."""
LINK_PROBLEMS = ("topup_link_not_valid", "topup_link_expired")


@router.get("", summary="What a link is for", **answers(TopupLinkOut, *LINK_PROBLEMS))
async def topup_link(
    link: LinkHolder, ledger: LedgerDep, ownership: OwnershipDep, clock: ClockDep
) -> TopupLinkOut:
    """Which account is topped up, by the end of its id, and how many credits it still lacks for what was refused."""
    _check_open(link, clock)
    account = await ledger.account(await ownership.owner_of(link.account_id))
    return TopupLinkOut(
        account=link.account_id[-LETTERS_SHOWN:],
        needed_credits=link.needed_credits,
        missing_credits=max(link.needed_credits + account.debt - account.available, 0),
        expires_at=link.expires_at.isoformat(),
    )


@router.post(
    "/topups",
    status_code=201,
    summary="Open a top-up by a link",
    **answers(TopupOut, *OPENING_PROBLEMS, *LINK_PROBLEMS, "rate_limited"),
)
async def open_by_link(
    request: Request,
    body: PurchaseIn,
    link: LinkHolder,
    opening: TopupOpeningDep,
    limiter: LimiterDep,
    ownership: OwnershipDep,
    settings: SettingsDep,
    clock: ClockDep,
    idempotency_key: IdempotencyKey = None,
) -> TopupOut:
    """As `POST /v1/topups`, for the link's account: the credits are that account's, and nothing of it is shown.

    Links have five places of their own for unpaid top-ups of one account, and open at most thirty an hour.
    """
    _check_open(link, clock)
    account_id = await ownership.owner_of(link.account_id)
    await limiter.link_opening(account_id)
    view = await opening.open(
        request,
        account_id,
        body,
        key=idempotency_key,
        route=ROUTE,
        # The token stays where it is: neither the rail nor our tables learn it.
        return_url=f"{settings.public_url}/topup?payment={{payment_id}}",
        link=link.digest,
    )
    return topup_shown(view)


@router.get(
    "/topups/{topup_id}",
    summary="Where a link's top-up stands",
    **answers(TopupOut, "payment_not_found", *LINK_PROBLEMS),
)
async def topup_by_link(topup_id: str, link: LinkHolder, payments: PaymentsDep) -> TopupOut:
    """Only what this very link has opened; also for a day after the link has ended."""
    view = await payments.topup(PaymentId(topup_id)) if is_identifier(topup_id, "pay") else None
    if view is None or view.link != link.digest:
        raise Problem("payment_not_found", "There is no such top-up.")
    return topup_shown(view)


def _check_open(link: TopupLink, clock: Clock) -> None:
    if clock() >= link.expires_at:
        raise Problem("topup_link_expired")
