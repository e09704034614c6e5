"""`/v1/generations/sessions`: a live sketch session as a whole: its limit, pause and resume."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, TypeAlias

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel, ConfigDict, Field

from gateway.routes.bounded import BoundedRoute
from gateway.routes.generation_shapes import CAP_MAX, SESSION_ID
from gateway.routes.shapes import LiveSessionOut, answers
from gateway.wiring.dependencies import Caller, GenerationsDep, IdentifiersDep, OwnershipDep, SettingsDep
from generation.domain.requests import session_key
from generation.domain.sessions import SessionChange, SessionView
from generation.jobs.service import Generations
from ledger.identifiers import AccountId, Identifiers
from ledger.ownership import Ownership

router = APIRouter(route_class=BoundedRoute, prefix="/v1/generations/sessions", tags=["generations"])
SessionId = Annotated[str, Path(pattern=SESSION_ID, description="As sent with the frames.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionNames:
    """From a client's name for a live session to ours, also where a guest began it."""

    generations: Generations
    ownership: Ownership
    identifiers: Identifiers
    secret: bytes

    async def use(self, account_id: AccountId, session_id: str) -> str:
        """Our name of the account's session. One that a guest of it began goes on under it."""
        name, earlier = await self.find(account_id, session_id)
        await self.generations.sessions.bring_along(self.identifiers.command(), account_id, name, earlier)
        return name

    async def find(self, account_id: AccountId, session_id: str) -> tuple[str, Sequence[str]]:
        """Our name of the account's session, and the rows where its guests may have begun it: also those whose merge is
        not recorded yet, since after this use there may be no other to bring a waiting frame along."""
        guests = await self.ownership.guests_of(account_id)
        earlier = [session_key(guest, self._digest(guest, session_id)) for guest in guests]
        return self._digest(account_id, session_id), earlier

    def _digest(self, account_id: str, session_id: str) -> str:
        # A client's own name for a session may say anything about a person; events get a digest of it.
        message = f"{account_id}\n{session_id}".encode()
        return hmac.new(self.secret, message, hashlib.sha256).hexdigest()[:24]


async def session_names_of(
    generations: GenerationsDep, ownership: OwnershipDep, identifiers: IdentifiersDep, settings: SettingsDep
) -> SessionNames:
    """Dependency: our names for live sessions."""
    return SessionNames(
        generations=generations,
        ownership=ownership,
        identifiers=identifiers,
        secret=settings.secret_for("live-sessions"),
    )


SessionNamesDep: TypeAlias = Annotated[SessionNames, Depends(session_names_of)]


class LiveSessionIn(BaseModel):
    """What to change; what is left out stays as it is."""

    model_config = ConfigDict(strict=True, extra="forbid")
    paused: bool | None = Field(default=None, description="Pause, or go on.")
    cap_credits: int | None = Field(
        default=None, ge=1, le=CAP_MAX, description="Your own spending limit; null takes it away."
    )


@router.get("/{session_id}", summary="How a live session stands", **answers(LiveSessionOut))
async def session(
    session_id: SessionId, caller: Caller, generations: GenerationsDep, names: SessionNamesDep
) -> LiveSessionOut:
    """Whether it is paused and why, and what it has spent. One that never began has spent nothing."""
    name, earlier = await names.find(caller.account_id, session_id)
    return _shown(session_id, await generations.sessions.look(caller.account_id, name, earlier))


@router.patch(
    "/{session_id}",
    summary="Pause, resume or limit a live session",
    **answers(LiveSessionOut, "session_spend_cap_reached"),
)
async def change_session(
    session_id: SessionId,
    body: LiveSessionIn,
    caller: Caller,
    generations: GenerationsDep,
    identifiers: IdentifiersDep,
    names: SessionNamesDep,
) -> LiveSessionOut:
    """A paused session accepts no frame (409 `session_paused`). What waits is cancelled and its credits
    are free again; what is being painted is finished. A session that has spent its limit is paused
    until the limit is raised.
    """
    name = await names.use(caller.account_id, session_id)
    change = SessionChange(
        paused=body.paused,
        cap_credits=body.cap_credits,
        uncap="cap_credits" in body.model_fields_set and body.cap_credits is None,
    )
    view = await generations.sessions.change(identifiers.command(), caller.account_id, name, change)
    return _shown(session_id, view)


def _shown(session_id: str, view: SessionView) -> LiveSessionOut:
    return LiveSessionOut(
        id=session_id,
        paused=view.paused_by is not None,
        paused_by=view.paused_by,
        cap_credits=view.cap_credits,
        limit_credits=view.limit_credits,
        spent_credits=view.spent_credits,
        variations=view.variations,
    )
