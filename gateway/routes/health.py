"""`/health` and `/ready`: whether the parts answer, said part by part."""

from __future__ import annotations

import asyncio
from typing import Any

import sqlalchemy as sa
from fastapi import APIRouter, Request, Response

from gateway.routes.shapes import HealthOut, answers
from gateway.services import Services

router = APIRouter(tags=["health"])


@router.get("/health", summary="Health, part by part", **answers(HealthOut))
async def health(request: Request, response: Response) -> dict[str, Any]:
    """503 only if the ledger cannot be read or its projections have stopped; the rest is a warning."""
    services: Services = request.app.state.services
    database = await _database(services)
    failed = services.projections.failed
    ok = database and failed is None
    response.status_code = 200 if ok else 503
    return {
        "ok": ok,
        "database": "ok" if database else "not reachable",
        "projections": {"position": services.projections.position, "stopped": failed is not None},
        "wake_ups": "ok" if services.signals.connected else "slower: Redis is not reachable",
        "commands_waiting": services.sequencer.waiting,
        "rails": services.supervision.report(),
        "workers": len(await services.registry.present()) if database else None,
    }


async def _database(services: Services) -> bool:
    try:
        async with asyncio.timeout(2), services.engine.connect() as connection:
            await connection.execute(sa.text("SELECT 1"))
    except (sa.exc.SQLAlchemyError, OSError, TimeoutError):
        return False
    return True
