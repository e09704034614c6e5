"""`/v1/generations/sessions`: a live sketch session as a whole: its limit, pause and resume."""

from __future__ import annotations

import hashlib
import hmac
from typing import Annotated

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from gateway.authentication import Caller
from gateway.routes.shapes import PROBLEMS_FIELD, LiveSessionOut
from gateway.services import Services
from gateway.settings import Settings
from generation.live import SessionChange, SessionView
from ledger.identifiers import AccountId

router = APIRouter(prefix="/v1/generations/sessions", tags=["generations"])
SESSION_ID = r"^[A-Za-z0-9_-]{1,64}$"
CAP_MAX = 100_000

SessionId = Annotated[str, Path(pattern=SESSION_ID, description="As sent with the frames.")]


class LiveSessionIn(BaseModel):
    """What to change; what is left out stays as it is."""

    model_config = ConfigDict(strict=True, extra="forbid")
    paused: bool | None = Field(default=None, description="Pause, or go on.")
    cap_credits: int | None = Field(
        default=None, ge=1, le=CAP_MAX, description="Your own spending limit; null takes it away."
    )


@router.get(
    "/{session_id}",
    summary="How a live session stands",
    response_description="A live session.",
)
async def session(request: Request, session_id: SessionId, caller: Caller) -> LiveSessionOut:
    """Whether it is paused and why, and what it has spent. One that never began has spent nothing."""
    services: Services = request.app.state.services
    name = _digest(services.settings, caller.account_id, session_id)
    return _present(session_id, await services.generations.sessions.look(caller.account_id, name))


@router.patch(
    "/{session_id}",
    summary="Pause, resume or limit a live session",
    response_description="The live session as it now is.",
    openapi_extra={PROBLEMS_FIELD: ["session_spend_cap_reached"]},
)
async def change_session(
    request: Request, session_id: SessionId, body: LiveSessionIn, caller: Caller
) -> LiveSessionOut:
    """A paused session accepts no frame (409 `session_paused`). What waits is cancelled and its credits
    are free again; what is being painted is finished. A session that has spent its limit is paused
    until the limit is raised.
    """
    services: Services = request.app.state.services
    name = _digest(services.settings, caller.account_id, session_id)
    change = SessionChange(
        paused=body.paused,
        cap_credits=body.cap_credits,
        uncap="cap_credits" in body.model_fields_set and body.cap_credits is None,
    )
    key = services.identifiers.command()
    view = await services.generations.sessions.change(key, caller.account_id, name, change)
    return _present(session_id, view)


def session_digest(settings: Settings, account_id: AccountId, session_id: str | None) -> str | None:
    """A client's own name for a session may say anything about a person; events get a digest of it."""
    return None if session_id is None else _digest(settings, account_id, session_id)


def _digest(settings: Settings, account_id: AccountId, session_id: str) -> str:
    message = f"{account_id}\n{session_id}".encode()
    return hmac.new(settings.secret_for("live-sessions"), message, hashlib.sha256).hexdigest()[:24]


def _present(session_id: str, view: SessionView) -> LiveSessionOut:
    return LiveSessionOut(
        id=session_id,
        paused=view.paused_by is not None,
        paused_by=view.paused_by,
        cap_credits=view.cap_credits,
        limit_credits=view.limit_credits,
        spent_credits=view.spent_credits,
        variations=view.variations,
    )
