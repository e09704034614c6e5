"""`/v1/account`, `/v1/statement`, `/v1/plans`, `/v1/visitors`: what somebody has, and what happened to it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query, Request, Response

from gateway.auth.authentication import new_visitor, set_visitor_cookie
from gateway.auth.identity import Role
from gateway.http.problems import Problem
from gateway.routes.bounded import BoundedRoute
from gateway.routes.plan_shapes import PlansOut
from gateway.routes.presenting import account_state, image_prices, written
from gateway.routes.shapes import (
    AccountOut,
    PersonOut,
    StatementOut,
    VisitorOut,
    answers,
)
from gateway.wiring.dependencies import (
    Caller,
    CatalogueDep,
    IdentifiersDep,
    LedgerDep,
    LimiterDep,
    OptionalCaller,
    PaymentsDep,
    PeopleDep,
    ProjectionsDep,
    SettingsDep,
    StatementsDep,
    VisitorTokensDep,
)
from rails.domain.topup import money_json

router = APIRouter(route_class=BoundedRoute, prefix="/v1", tags=["account"])
ReferenceType = Literal["generation", "topup", "plan", "adjustment", "refund", "account"]
EntryKind = Literal[
    "granted",
    "held",
    "captured",
    "released",
    "hold_expired",
    "lapsed",
    "reversed",
    "debt_incurred",
    "debt_repaid",
    "debt_forgiven",
    "refund_opened",
    "refund_sent",
    "refund_failed",
    "withdrawn",
    "moved_out",
    "moved_in",
]
"""See `ledger.domain.movements`."""
STATEMENT_PARAMETERS = frozenset({"cursor", "limit", "type", "kind", "reference"})


@router.post("/visitors", status_code=201, summary="Begin as a visitor", **answers(VisitorOut))
async def create_visitor(
    request: Request, limiter: LimiterDep, identifiers: IdentifiersDep, visitors: VisitorTokensDep
) -> VisitorOut:
    """A bearer token for a fresh visitor with today's free images. Keep it: it is the only key."""
    await limiter.check(request, None)
    account_id, token = new_visitor(identifiers, visitors)
    return VisitorOut(account_id=account_id, token=token)


@router.get("/account", summary="Balance, plan and lots", **answers(AccountOut))
async def account(
    caller: OptionalCaller,
    ledger: LedgerDep,
    people: PeopleDep,
    identifiers: IdentifiersDep,
    visitors: VisitorTokensDep,
    settings: SettingsDep,
) -> Response:
    """Always reflects the caller's own acknowledged commands. A browser that brings nothing
    becomes a visitor and gets a cookie."""
    token = None
    if caller is None:
        account_id, token = new_visitor(identifiers, visitors)
        role = Role.VISITOR
    else:
        account_id, role = caller.account_id, caller.role
    state = account_state(account_id, await ledger.account(account_id))
    profile = await people.profile(account_id)
    response = written(AccountOut(**dict(state), role=role.value, person=PersonOut.model_validate(profile)))
    if token is not None:
        set_visitor_cookie(response, token, secure=settings.public_url.startswith("https"))
    return response


@router.get(
    "/statement",
    summary="Everything that touched the account",
    **answers(StatementOut, "statement_behind"),
)
async def statement(
    request: Request,
    caller: Caller,
    projections: ProjectionsDep,
    statements: StatementsDep,
    cursor: Annotated[str | None, Query(pattern=r"^[0-9]{1,18}$")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    type: Annotated[ReferenceType | None, Query()] = None,  # noqa: A002 - the API's word
    kind: Annotated[EntryKind | None, Query()] = None,
    reference: Annotated[str | None, Query(pattern=r"^[A-Za-z0-9_:.@-]{1,120}$")] = None,
) -> Response:
    """Newest first, in pages; `next_cursor` is null on the last one. `type`, `kind` and `reference`
    narrow it, together if several are given."""
    unknown = sorted(set(request.query_params) - STATEMENT_PARAMETERS)
    if unknown:
        # Passed over in silence, a misspelt filter would look like an answer.
        raise Problem("invalid_request", f"There is no parameter {unknown[0][:40]!r} here.")
    asked = partial(
        statements.page,
        caller.account_id,
        before=int(cursor) if cursor else None,
        limit=limit + 1,
        reference_type=type,
        kind=kind,
        reference_id=reference,
    )
    page = await asked()
    if not page.is_current:
        if not await projections.wait_for(page.head):
            raise Problem("statement_behind", "The statement is being brought up to date.")
        page = await asked()
    shown = page.rows[:limit]
    more = len(page.rows) > limit
    return written(
        {
            "entries": [_entry(row) for row in shown],
            "next_cursor": str(shown[-1]["position"]) if more else None,
        }
    )


def _entry(row: Mapping[str, Any]) -> dict[str, Any]:
    """See `EntryOut`."""
    painted = row["kind"] == "captured" and row["reference_type"] == "generation"
    image = f"/v1/generations/{row['reference_id']}/image" if painted else None
    return {
        "position": row["position"],
        "account_id": row["account_id"],
        "at": row["recorded_at"].isoformat(),
        "kind": row["kind"],
        "credits": row["credits"],
        "posted_after": row["posted_after"],
        "held_after": row["held_after"],
        "available_after": row["posted_after"] - row["held_after"],
        "reference": {"type": row["reference_type"], "id": row["reference_id"]},
        "description": row["description"],
        "image_url": image,
        "thumbnail_url": f"{image}?thumbnail=true" if image else None,
    }


@router.get("/plans", summary="Plans and packs", **answers(PlansOut))
async def plans(payments: PaymentsDep, catalogue: CatalogueDep) -> PlansOut:
    """Prices in US cents without tax, and what that is now by each payment method."""

    def now(usd_minor: int) -> list[dict[str, Any]]:
        found = payments.prices(usd_minor) if usd_minor > 0 else ()
        return [{"rail": rail, **money_json(due)} for rail, due in found]

    return PlansOut.model_validate(
        {
            "plans": [
                {
                    **msgspec.to_builtins(plan),
                    "prices": now(plan.price_usd_minor),
                    "year_prices": now(plan.year_usd_minor),
                }
                for plan in catalogue.plans.values()
            ],
            "packs": [
                {**msgspec.to_builtins(pack), "prices": now(pack.price_usd_minor)}
                for pack in catalogue.packs.values()
            ],
            "image_prices": image_prices(payments, 1),
        }
    )
