"""`/v1/session`: sign in and out, bring a guest's credits along, open them with a recovery code."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.authentication import Caller, set_visitor_cookie
from gateway.identity import SESSION_COOKIE, VISITOR_COOKIE, Role
from gateway.networks import prefixes
from gateway.people import SESSION_LIFETIME
from gateway.problems import Problem
from gateway.routes.shapes import RecoveredOut, SessionOut, SignedInOut, SignedOutOut, answers
from gateway.services import Services

router = APIRouter(prefix="/v1", tags=["session"])


class SignIn(BaseModel):
    """An issuer's token; with the built-in issuer an e-mail address is enough."""

    model_config = ConfigDict(strict=True, extra="forbid")
    email: str | None = Field(
        default=None, max_length=254, pattern=r"^[^@\s\x00-\x1f]+@[^@\s\x00-\x1f]+\.[^@\s\x00-\x1f]+$"
    )
    token: str | None = Field(default=None, max_length=3_800)
    """It becomes a cookie, and browsers drop cookies over 4 kB."""

    @model_validator(mode="after")
    def _one_of_both(self) -> SignIn:
        if (self.email is None) == (self.token is None):
            raise ValueError("give either email or token")
        return self


class Recover(BaseModel):
    """A guest's recovery code."""

    model_config = ConfigDict(strict=True, extra="forbid")
    recovery_code: str = Field(min_length=10, max_length=40)


@router.get("/session", summary="Who am I?", **answers(SessionOut))
async def session(request: Request) -> dict[str, Any]:
    """Kind, e-mail if known, and how to sign in here."""
    services: Services = request.app.state.services
    principal = await services.authenticator.principal(request)
    profile = (
        await services.people.profile(principal.account_id)
        if principal
        else {"kind": "visitor", "email": None}
    )
    return {**profile, "sign_in": "embedded" if services.people.issuer else services.settings.oidc_issuer}


@router.post("/session", summary="Sign in", **answers(SignedInOut, "no_built_in_issuer", "unauthenticated"))
async def sign_in(request: Request, body: SignIn, response: Response) -> dict[str, Any]:
    """Sets the session cookie. A guest who signs in brings paid credits along, once."""
    services: Services = request.app.state.services
    guest = await services.authenticator.principal(request)
    await services.limiter.check(request, guest)
    if body.token is not None:
        token = body.token
    elif services.people.issuer is not None and body.email is not None:
        token = services.people.issuer.token(body.email)
    else:
        raise Problem(404, "no_built_in_issuer", "Sign in with the identity provider, then send its token.")
    person = await services.people.principal(token)
    if person is None:
        raise Problem(401, "unauthenticated", "This token is not valid.")
    moved = 0
    if guest is not None and guest.role is Role.VISITOR:
        moved = await services.guests.merge(guest.account_id, person.account_id)
    response.set_cookie(
        SESSION_COOKIE,
        token,
        max_age=int(SESSION_LIFETIME.total_seconds()),
        httponly=True,
        samesite="lax",
        secure=services.settings.public_url.startswith("https"),
        path="/",
    )
    response.delete_cookie(VISITOR_COOKIE, path="/")
    return {**(await services.people.profile(person.account_id)), "merged": {"credits": moved}}


@router.delete("/session", summary="Sign out", **answers(SignedOutOut))
async def sign_out(response: Response, caller: Caller) -> dict[str, str]:
    """Forgets the session in this browser. A visitor's cookie stays: it may hold money."""
    response.delete_cookie(SESSION_COOKIE, path="/")
    return {"kind": "visitor" if caller.role is Role.PERSON else caller.role.value}


@router.post(
    "/session/recover",
    summary="Open a guest's balance on another device",
    **answers(RecoveredOut, "recovery_code_unknown", "rate_limited"),
)
async def recover(request: Request, body: Recover, response: Response, caller: Caller) -> dict[str, Any]:
    """Signed in: the guest's credits move to the account. Otherwise this browser becomes the guest."""
    services: Services = request.app.state.services
    # Whoever has an IPv6 network has 2⁶⁴ addresses, but one prefix.
    network = prefixes(services.origins.address(request))[0]
    await services.limiter.attempt(
        "recovery", network, per_minute=services.settings.recovery_attempts_per_minute
    )
    guest = await services.people.recover(body.recovery_code)
    if caller.role is Role.PERSON:
        return {"merged": {"credits": await services.guests.merge(guest, caller.account_id)}}
    if await services.guests.merged_into(guest) is not None:
        raise Problem(
            409, "account_merged", "These credits were brought into an account. Sign in to use them."
        )
    if guest == caller.account_id:
        return {"merged": {"credits": 0}}
    # Paid credits of this browser's own visitor come along: nobody should lose money by recovering some.
    brought = await services.guests.merge(caller.account_id, guest)
    token = services.visitors.issue(guest)
    set_visitor_cookie(response, token, secure=services.settings.public_url.startswith("https"))
    view = await services.account_view(guest)
    return {"merged": {"credits": view["credits"]["available"]}, "brought": brought, "token": token}
