"""`/v1/session/links`: a link to sign in, by mail."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict

from gateway.auth.networks import prefixes
from gateway.auth.sign_in_links import LINK_LIFETIME
from gateway.http.problems import Problem
from gateway.routes.bounded import BoundedRoute
from gateway.routes.session import Address
from gateway.routes.shapes import SignInLinkForOut, SignInLinkOut, answers
from gateway.wiring.dependencies import (
    LimiterDep,
    OptionalCaller,
    OriginsDep,
    PeopleDep,
    SettingsDep,
    SignInLinksDep,
)

router = APIRouter(route_class=BoundedRoute, prefix="/v1", tags=["session"])


class SignInLinkIn(BaseModel):
    """Where the link is mailed to."""

    model_config = ConfigDict(strict=True, extra="forbid")
    email: Address


@router.get(
    "/session/links",
    summary="Whom a mailed link would sign in",
    **answers(SignInLinkForOut, "sign_in_link_not_valid"),
)
async def look_at_link(request: Request, links: SignInLinksDep) -> SignInLinkForOut:
    """Asked with what stands behind the link's `#` as bearer token, and nothing else. It uses nothing up."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    address = await links.look(token.strip()) if kind.lower() == "bearer" else None
    if address is None:
        raise Problem("sign_in_link_not_valid")
    return SignInLinkForOut(email=address)


@router.post(
    "/session/links",
    status_code=202,
    summary="Have a link to sign in mailed",
    **answers(SignInLinkOut, "no_sign_in_links", "rate_limited"),
)
async def mail_link(
    request: Request,
    body: SignInLinkIn,
    caller: OptionalCaller,
    people: PeopleDep,
    links: SignInLinksDep,
    limiter: LimiterDep,
    origins: OriginsDep,
    settings: SettingsDep,
) -> SignInLinkOut:
    """The answer is the same for every address, known or not. The link works once, after a click on its page."""
    if people.issuer is None or not settings.sends_mail:
        raise Problem("no_sign_in_links")
    network = prefixes(origins.address(request))[0]
    await limiter.attempt("sign-in-link", network, per_minute=settings.recovery_attempts_per_minute)
    await limiter.mailing(body.email)
    await links.mail(body.email)
    return SignInLinkOut(lasts_seconds=int(LINK_LIFETIME.total_seconds()))
