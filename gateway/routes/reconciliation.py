"""`/v1/operator/differences`: where the rails' books and ours differ, and having them compared now."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from gateway.operators_view import row_shown
from gateway.routes.bounded import BoundedRoute
from gateway.routes.shapes import Shape, answers
from gateway.wiring.dependencies import CallingOperator, DifferencesDep, ReconciliationDep

router = APIRouter(route_class=BoundedRoute, prefix="/v1/operator", tags=["operators"])
RAIL = r"^[a-z0-9_-]{1,32}$"


class DifferenceOut(Shape):
    """One thing on which a rail's books and ours do not agree. Amounts are in minor units of the asset."""

    id: int
    rail: str
    subject: str = Field(description="Whose money, by its name; or the rail's name of a movement.")
    part: Literal["received", "taken_back", "fee", "costs", "paid_out", "balance"]
    reason: Literal["missing_here", "missing_there", "amount_differs", "fee_differs", "currency_differs"]
    asset: str
    ours_minor: int | None = Field(description="Null: we know nothing of it.")
    theirs_minor: int | None = Field(description="Null: the rail knows nothing of it.")
    payment_id: str | None
    opened_at: str
    seen_at: str = Field(description="When both were compared last.")
    closed_at: str | None = Field(description="When both agreed.")


class RailComparedOut(Shape):
    """How far the books of a rail have been compared."""

    rail: str
    read_at: str | None = Field(
        description="When there was nothing more to read; null before the first time."
    )
    compared_at: str | None
    due_at: str = Field(description="When it is compared next.")
    attempts: int = Field(description="Failures in a row.")
    last_problem: str | None
    open: int = Field(description="Differences that stand.")


class DifferencesOut(Shape):
    """Differences, newest first, and how far each rail has been compared."""

    rails: list[RailComparedOut]
    differences: list[DifferenceOut]
    next_before: int | None = Field(
        description="Ask for what is `before` this for more; null on the last page."
    )


class CompareIn(BaseModel):
    """What is to be compared."""

    model_config = ConfigDict(strict=True, extra="forbid")
    rail: str | None = Field(default=None, pattern=RAIL, description="All rails by default.")


class ComparingOut(Shape):
    """What will be compared within seconds."""

    rails: list[str]


@router.get(
    "/differences", summary="Where rails and books differ", **answers(DifferencesOut, "operators_only")
)
async def differences(
    operator: CallingOperator,
    found: DifferencesDep,
    rail: Annotated[str | None, Query(pattern=RAIL)] = None,
    closed: Annotated[bool, Query(description="Those that were closed because both agreed.")] = False,
    before: Annotated[int | None, Query(ge=1, le=2**62)] = None,
    limit: Annotated[int, Query(ge=1, le=199)] = 50,
) -> DifferencesOut:
    """Rails are read each night. A difference closes by itself when both sides agree, and is never corrected here."""
    rows = await found.listed(rail=rail, closed=closed, before=before, limit=limit + 1)
    shown = [row_shown(row) for row in rows[:limit]]
    return DifferencesOut.model_validate(
        {
            "rails": [row_shown(row) for row in await found.runs()],
            "differences": shown,
            "next_before": shown[-1]["id"] if len(rows) > limit else None,
        }
    )


@router.post(
    "/differences",
    status_code=202,
    summary="Compare rails and books now",
    **answers(ComparingOut, "operators_only", "unknown_rail"),
)
async def compare(
    body: CompareIn, operator: CallingOperator, reconciliation: ReconciliationDep
) -> ComparingOut:
    """Within seconds, instead of in the night. Asking twice does nothing more."""
    return ComparingOut(rails=list(await reconciliation.bring_forward(body.rail)))
