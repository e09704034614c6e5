"""`/v1/session`: sign in and out, bring a guest's credits along, open them with a recovery code."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.auth.authentication import forget_cookie, set_session_cookie, set_visitor_cookie
from gateway.auth.identity import SESSION_COOKIE, VISITOR_COOKIE, Principal, Role, VisitorTokens, cookie_name
from gateway.auth.networks import prefixes
from gateway.auth.people import SESSION_LIFETIME, People
from gateway.auth.sessions import Sessions
from gateway.auth.sign_in_links import SignInLinks
from gateway.http.problems import Problem
from gateway.routes.bounded import BoundedRoute
from gateway.routes.presenting import written
from gateway.routes.shapes import (
    MergedOut,
    RecoveredOut,
    SessionOut,
    SignedInOut,
    SignedOutEverywhereOut,
    SignedOutOut,
    answers,
)
from gateway.settings import Settings
from gateway.wiring.dependencies import (
    Caller,
    GuestsDep,
    LedgerDep,
    LimiterDep,
    OptionalCaller,
    OriginsDep,
    PeopleDep,
    SessionsDep,
    SettingsDep,
    SignInLinksDep,
    VisitorTokensDep,
)
from ledger.identifiers import AccountId

router = APIRouter(route_class=BoundedRoute, prefix="/v1", tags=["session"])


Address = Annotated[
    str, Field(max_length=254, pattern=r"^[^@\s\x00-\x1f]+@[^@\s\x00-\x1f]+\.[^@\s\x00-\x1f]+$")
]
"""What may be somebody's e-mail address."""


class SignIn(BaseModel):
    """An issuer's token, or the link that was mailed; while trying out an e-mail address is enough."""

    model_config = ConfigDict(strict=True, extra="forbid")
    email: Address | None = None
    link: str | None = Field(default=None, max_length=200)
    """What stands behind the # of a mailed link."""
    token: str | None = Field(default=None, max_length=3_800)
    """It becomes a cookie, and browsers drop cookies over 4 kB."""

    @model_validator(mode="after")
    def _one_of_them(self) -> SignIn:
        if sum(each is not None for each in (self.email, self.link, self.token)) != 1:
            raise ValueError("give one of email, link and token")
        return self


class Recover(BaseModel):
    """A guest's recovery code."""

    model_config = ConfigDict(strict=True, extra="forbid")
    recovery_code: str = Field(min_length=10, max_length=40)


@router.get("/session", summary="Who am I?", **answers(SessionOut))
async def session(caller: OptionalCaller, people: PeopleDep, settings: SettingsDep) -> Response:
    """Kind, e-mail if known, and how to sign in here."""
    sign_in = _way_in(people, settings)
    mails_links = people.issuer is not None and settings.sends_mail
    if caller is None:
        return written({"kind": "visitor", "email": None, "sign_in": sign_in, "mails_links": mails_links})
    profile = await people.profile(caller.account_id)
    return written({**profile, "sign_in": sign_in, "mails_links": mails_links})


@router.post(
    "/session",
    summary="Sign in",
    **answers(SignedInOut, "no_built_in_issuer", "sign_in_link_not_valid", "unauthenticated"),
)
async def sign_in(
    request: Request,
    body: SignIn,
    response: Response,
    before: OptionalCaller,
    limiter: LimiterDep,
    people: PeopleDep,
    guests: GuestsDep,
    visitors: VisitorTokensDep,
    sessions: SessionsDep,
    links: SignInLinksDep,
    settings: SettingsDep,
) -> SignedInOut:
    """Sets the session cookie. A guest who signs in brings paid credits along, once.

    Where a browser has the cookies of a person and of a guest, it speaks for the person, and the guest's
    credits wait: they come along with the next sign-in, whoever signs in, and signing out shows them again.
    """
    await limiter.check(request, before)
    token = await _token_for(body, people, links, settings)
    person = await people.principal(token)
    if person is None:
        raise Problem("unauthenticated", "This token is not valid.")
    if person.credential is not None and sessions.is_ended(person.account_id, person.credential):
        raise Problem("unauthenticated", "This token was signed out.")
    carried = _carried(
        request.cookies.get(cookie_name(VISITOR_COOKIE, secure=_secure(settings)), ""), visitors, sessions
    )
    guest = _guest(request, before, carried)
    moved = 0 if guest is None else await guests.merge(guest, person.account_id)
    set_session_cookie(response, token, SESSION_LIFETIME, secure=_secure(settings))
    # Another guest's cookie may be the only way to its credits.
    if carried in (None, guest):
        forget_cookie(response, VISITOR_COOKIE, secure=_secure(settings))
    profile = await people.profile(person.account_id)
    return SignedInOut.model_validate({**profile, "merged": {"credits": moved}})


def _guest(request: Request, before: Principal | None, carried: AccountId | None) -> AccountId | None:
    """Whose credits come along: the visitor's that asks, or the one's whose cookie came with a person's.

    A token speaks for itself alone, as everywhere: then cookies do not count.
    """
    if before is not None and before.role is Role.VISITOR:
        return before.account_id
    return None if "authorization" in request.headers else carried


def _carried(cookie: str, visitors: VisitorTokens, sessions: Sessions) -> AccountId | None:
    """The guest of this browser's cookie. One that was signed out brings nobody's credits along."""
    account_id = visitors.read(cookie)
    if account_id is None or sessions.is_ended(account_id, visitors.credential(cookie)):
        return None
    return account_id


def _way_in(people: People, settings: Settings) -> str:
    """How people sign in here: the issuer's address, by a mailed link, or by their word alone."""
    if people.issuer is None:
        return settings.oidc_issuer
    return "embedded" if settings.signs_in_by_word else "link"


async def _token_for(body: SignIn, people: People, links: SignInLinks, settings: Settings) -> str:
    """What was sent, or what the built-in issuer gives for a mailed link, or for an address."""
    if body.token is not None:
        return body.token
    if people.issuer is not None and body.link is not None:
        address = await links.take(body.link)
        if address is None:
            raise Problem("sign_in_link_not_valid")
        return people.issuer.token(address)
    if people.issuer is None or body.email is None or not settings.signs_in_by_word:
        raise Problem("no_built_in_issuer", "Sign in with the identity provider, then send its token.")
    return people.issuer.token(body.email)


@router.delete("/session", summary="Sign out", **answers(SignedOutOut))
async def sign_out(
    response: Response, caller: Caller, sessions: SessionsDep, settings: SettingsDep
) -> SignedOutOut:
    """Ends this session, wherever its token is kept. A visitor's stays: it may be the only way to money."""
    if caller.role is Role.PERSON and caller.credential is not None:
        await sessions.end(caller.account_id, caller.credential)
    forget_cookie(response, SESSION_COOKIE, secure=_secure(settings))
    return SignedOutOut(kind="visitor" if caller.role is Role.PERSON else caller.role.value)


@router.delete("/sessions", summary="Sign out everywhere", **answers(SignedOutEverywhereOut))
async def sign_out_everywhere(
    response: Response,
    caller: Caller,
    sessions: SessionsDep,
    visitors: VisitorTokensDep,
    settings: SettingsDep,
) -> SignedOutEverywhereOut:
    """Ends every session of the account, this one too. A visitor gets a new token here, so that no money is lost."""
    before = await sessions.end_all(caller.account_id)
    if caller.role is Role.PERSON:
        forget_cookie(response, SESSION_COOKIE, secure=_secure(settings))
        return SignedOutEverywhereOut(kind="visitor")
    token = visitors.issue(caller.account_id, after=before)
    if caller.by_cookie:
        set_visitor_cookie(response, token, secure=_secure(settings))
    return SignedOutEverywhereOut(kind=caller.role.value, token=token)


@router.post(
    "/session/recover",
    summary="Open a guest's balance on another device",
    **answers(RecoveredOut, "recovery_code_unknown", "rate_limited"),
)
async def recover(
    request: Request,
    body: Recover,
    response: Response,
    caller: Caller,
    people: PeopleDep,
    guests: GuestsDep,
    ledger: LedgerDep,
    visitors: VisitorTokensDep,
    sessions: SessionsDep,
    limiter: LimiterDep,
    origins: OriginsDep,
    settings: SettingsDep,
) -> RecoveredOut:
    """Signed in: the guest's credits move to the account. Otherwise this browser becomes the guest."""
    # Whoever has an IPv6 network has 2⁶⁴ addresses, but one prefix.
    network = prefixes(origins.address(request))[0]
    await limiter.attempt("recovery", network, per_minute=settings.recovery_attempts_per_minute)
    guest = await people.recover(body.recovery_code)
    if caller.role is Role.PERSON:
        moved = await guests.merge(guest, caller.account_id)
        return RecoveredOut(merged=MergedOut(credits=moved))
    if await guests.merged_into(guest) is not None:
        detail = "These credits were brought into an account. Sign in to use them."
        raise Problem("account_merged", detail)
    if guest == caller.account_id:
        return RecoveredOut(merged=MergedOut(credits=0))
    # Paid credits of this browser's own visitor come along: nobody should lose money by recovering some.
    brought = await guests.merge(caller.account_id, guest)
    token = visitors.issue(guest, after=sessions.ended_before(guest))
    set_visitor_cookie(response, token, secure=_secure(settings))
    available = (await ledger.account(guest)).available
    return RecoveredOut(merged=MergedOut(credits=available), brought=brought, token=token)


def _secure(settings: Settings) -> bool:
    """Whether cookies travel by TLS only."""
    return settings.public_url.startswith("https")
