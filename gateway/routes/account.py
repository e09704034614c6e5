"""`/v1/account`, `/v1/statement`, `/v1/plans`, `/v1/visitors`: what somebody has, and what happened to it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query, Request, Response

from gateway.authentication import Caller, new_visitor, set_visitor_cookie
from gateway.problems import Problem
from gateway.routes.shapes import AccountOut, PlansOut, StatementOut, VisitorOut, answers
from gateway.services import Services
from ledger.plans import PACKS, PLANS

router = APIRouter(prefix="/v1", tags=["account"])
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


@router.post("/visitors", status_code=201, summary="Begin as a visitor", **answers(VisitorOut, status=201))
async def create_visitor(request: Request) -> dict[str, str]:
    """A bearer token for a fresh visitor with today's free images. Keep it: it is the only key."""
    services: Services = request.app.state.services
    await services.limiter.check(request, None)
    account_id, token = new_visitor(services.identifiers, services.visitors)
    return {"account_id": account_id, "token": token}


@router.get("/account", summary="Balance, plan and lots", **answers(AccountOut))
async def account(request: Request, response: Response) -> dict[str, Any]:
    """Always reflects the caller's own acknowledged commands. A browser that brings nothing
    becomes a visitor and gets a cookie."""
    services: Services = request.app.state.services
    principal = await services.authenticator.principal(request)
    if principal is None:
        account_id, token = new_visitor(services.identifiers, services.visitors)
        set_visitor_cookie(response, token, secure=services.settings.public_url.startswith("https"))
        role = "visitor"
    else:
        account_id, role = principal.account_id, principal.role.value
    shown = await services.account_view(account_id)
    shown["role"] = role
    shown["person"] = await services.people.profile(account_id)
    return shown


@router.get(
    "/statement",
    summary="Everything that touched the account",
    **answers(StatementOut, "statement_behind"),
)
async def statement(
    request: Request,
    caller: Caller,
    cursor: Annotated[str | None, Query(pattern=r"^[0-9]{1,18}$")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    type: Annotated[ReferenceType | None, Query()] = None,  # noqa: A002 - the API's word
    kind: Annotated[EntryKind | None, Query()] = None,
    reference: Annotated[str | None, Query(pattern=r"^[A-Za-z0-9_:.@-]{1,120}$")] = None,
) -> dict[str, Any]:
    """Newest first, in pages; `next_cursor` is null on the last one. `type`, `kind` and `reference`
    narrow it, together if several are given."""
    services: Services = request.app.state.services
    unknown = sorted(set(request.query_params) - STATEMENT_PARAMETERS)
    if unknown:
        # Passed over in silence, a misspelt filter would look like an answer.
        raise Problem(422, "invalid_request", f"There is no parameter {unknown[0][:40]!r} here.")
    if not await services.projections.wait_for(await services.reader.head()):
        raise Problem(
            503,
            "statement_behind",
            "The statement is being brought up to date.",
            headers={"Retry-After": "2"},
        )
    rows = await services.statements.page(
        caller.account_id,
        before=int(cursor) if cursor else None,
        limit=limit + 1,
        reference_type=type,
        kind=kind,
        reference_id=reference,
    )
    shown = rows[:limit]
    more = len(rows) > limit
    return {
        "entries": [_entry(row) for row in shown],
        "next_cursor": str(shown[-1]["position"]) if more else None,
    }


def _entry(row: Any) -> dict[str, Any]:
    painted = row["kind"] == "captured" and row["reference_type"] == "generation"
    image = f"/v1/generations/{row['reference_id']}/image" if painted else None
    return {
        "position": row["position"],
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
async def plans() -> dict[str, Any]:
    """Prices in US cents without tax."""
    return {
        "plans": [msgspec.to_builtins(plan) for plan in PLANS.values()],
        "packs": [msgspec.to_builtins(pack) for pack in PACKS.values()],
    }
