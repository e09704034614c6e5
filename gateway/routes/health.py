"""`/health` and `/ready`: whether the parts answer, said part by part."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from fastapi import APIRouter, Response
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.routes.bounded import BoundedRoute
from gateway.routes.health_shapes import HealthOut, ProjectionsHealthOut, RailHealthOut
from gateway.routes.shapes import answers
from gateway.wiring.dependencies import (
    ProjectionsDep,
    RegistryDep,
    ReservedDep,
    SequencerDep,
    SignalsDep,
    SupervisionDep,
)
from generation.fleet.registry import WorkerRegistry

ANSWER_SECONDS_MAX = 2.0

router = APIRouter(route_class=BoundedRoute, tags=["health"])


@router.get("/health", summary="Health, part by part", **answers(HealthOut))
async def health(
    response: Response,
    reserved: ReservedDep,
    projections: ProjectionsDep,
    signals: SignalsDep,
    sequencer: SequencerDep,
    supervision: SupervisionDep,
    registry: RegistryDep,
) -> HealthOut:
    """503 only if the ledger cannot be read or its projections have stopped; the rest is a warning.

    The database is asked on a connection of its own: that everybody else uses the others says nothing about it.
    """
    database = await _answers(reserved)
    stopped = projections.failed is not None
    ok = database and not stopped
    response.status_code = 200 if ok else 503
    present = await _present(registry) if database else None
    rails = {name: RailHealthOut.model_validate(state) for name, state in supervision.report().items()}
    return HealthOut(
        ok=ok,
        database="ok" if database else "not reachable",
        projections=ProjectionsHealthOut(position=projections.position, stopped=stopped),
        wake_ups="ok" if signals.connected else "slower: Redis is not reachable",
        commands_waiting=sequencer.waiting,
        rails=rails,
        workers=None if present is None else len(present),
        workers_active=None if present is None else sum(worker.state == "active" for worker in present),
    )


# For those who only want to know whether it is 200. Not in the API's description: HEAD says what GET says.
router.add_api_route("/health", health, methods=["HEAD"], include_in_schema=False)


async def _present(registry: WorkerRegistry) -> Sequence[Any] | None:
    """None where too much is asked of the database to hear of them."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            return await registry.present()
    except (sa.exc.SQLAlchemyError, OSError, TimeoutError):
        return None


async def _answers(engine: AsyncEngine) -> bool:
    try:
        async with asyncio.timeout(ANSWER_SECONDS_MAX), engine.connect() as connection:
            await connection.execute(sa.text("SELECT 1"))
    except (sa.exc.SQLAlchemyError, OSError, TimeoutError):
        return False
    return True
