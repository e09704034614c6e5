"""From a request to a `Principal`: bearer tokens first, then cookies; cookie writes are checked twice."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from typing import Annotated, Protocol
from urllib.parse import urlsplit

import structlog
from fastapi import Depends, Request, Response

from gateway.identity import (
    SESSION_COOKIE,
    VISITOR_COOKIE,
    VISITOR_LIFETIME,
    Principal,
    Role,
    VisitorTokens,
)
from gateway.problems import Problem
from ledger.identifiers import AccountId, Identifiers

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class TokenReader(Protocol):
    """Understands one kind of bearer token."""

    async def principal(self, token: str) -> Principal | None:
        """Who it is, None if the token is of another kind. Raises `Problem` 401 if it is bad."""


class Authenticator:
    """Knows every way of saying who one is."""

    def __init__(
        self, *, visitors: VisitorTokens, readers: tuple[TokenReader, ...], public_url: str, embedded: bool
    ) -> None:
        self._visitors = visitors
        self._readers = readers
        self._public_origin = _origin_of(public_url)
        self._embedded = embedded

    async def principal(self, request: Request) -> Principal | None:
        """The caller; None if it brought nothing. Raises `Problem` 401 for bad credentials, 403 for
        a cookie write from a foreign Origin, 415 for one that is not JSON."""
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind:
            if kind.lower() != "bearer" or not token:
                raise unauthenticated("Use `Authorization: Bearer <token>`.")
            return await self._by_token(token.strip(), by_cookie=False)
        self._check_origin(request)
        for cookie in (SESSION_COOKIE, VISITOR_COOKIE):
            value = request.cookies.get(cookie)
            if value:
                found = await self._by_cookie(value)
                if found is not None:
                    self._check_cookie_write(request)
                    return found
        return None

    async def _by_cookie(self, value: str) -> Principal | None:
        """A cookie that has become invalid counts as none: the browser cannot help it."""
        try:
            return await self._by_token(value, by_cookie=True)
        except Problem:
            return None

    async def _by_token(self, token: str, *, by_cookie: bool) -> Principal:
        account_id = self._visitors.read(token)
        if account_id is not None:
            return Principal(Role.VISITOR, account_id, by_cookie)
        for reader in self._readers:
            found = await reader.principal(token)
            if found is not None:
                return Principal(found.role, found.account_id, by_cookie, found.scopes)
        raise unauthenticated("This token is not valid.")

    def _check_origin(self, request: Request) -> None:
        """Another site's page may write nothing without a token, not even without our cookie: signing
        a stranger in, or handing out a visitor, would be its work too."""
        foreign = "origin" in request.headers and not self._same_origin(request)
        if foreign and request.method not in _SAFE:
            raise Problem(403, "foreign_origin", "Writes without a token must come from our own pages.")

    def _check_cookie_write(self, request: Request) -> None:
        if request.method in _SAFE:
            return
        if not self._same_origin(request):
            raise Problem(403, "foreign_origin", "Writes with a cookie must come from our own pages.")
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Problem(415, "json_only", "Writes with a cookie need Content-Type: application/json.")

    def _same_origin(self, request: Request) -> bool:
        origin = request.headers.get("origin", "")
        if origin == self._public_origin:
            return True
        # While trying out, the same stack may be opened as localhost or by any address of this machine;
        # never by another name, which somebody else may have pointed here.
        host = request.headers.get("host", "")
        return self._embedded and _is_plain_host(host) and origin == f"{request.url.scheme}://{host}"


def _is_plain_host(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name == "localhost"
    return True


def _origin_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def unauthenticated(detail: str) -> Problem:
    """401 with the challenge that RFC 9110 asks for."""
    return Problem(401, "unauthenticated", detail, headers={"WWW-Authenticate": "Bearer"})


def set_visitor_cookie(response: Response, token: str, *, secure: bool) -> None:
    """Give the browser its visitor token: out of reach of scripts and of other sites."""
    response.set_cookie(
        VISITOR_COOKIE,
        token,
        max_age=int(VISITOR_LIFETIME.total_seconds()),
        httponly=True,
        samesite="lax",
        secure=secure,
        path="/",
    )


async def current_principal(request: Request) -> Principal:
    """Dependency: whoever is asking. Raises `Problem` 401 if nobody says who."""
    principal: Principal | None = await request.app.state.services.authenticator.principal(request)
    if principal is None:
        raise unauthenticated("Get a visitor token with POST /v1/visitors, or sign in.")
    structlog.contextvars.bind_contextvars(account_id=principal.account_id)
    await request.app.state.services.limiter.check(request, principal)
    return principal


Caller = Annotated[Principal, Depends(current_principal)]


def require(*roles: Role) -> Callable[[Request], Awaitable[Principal]]:
    """Dependency: a caller with one of these roles. Raises `Problem` 401 or 403."""

    async def check(request: Request) -> Principal:
        principal = await current_principal(request)
        if principal.role not in roles:
            raise Problem(403, "not_allowed", "Your role does not allow this.")
        return principal

    check.roles = roles  # type: ignore[attr-defined]
    return check


def new_visitor(identifiers: Identifiers, visitors: VisitorTokens) -> tuple[AccountId, str]:
    """A fresh visitor: an account id that nobody has, and its token. Nothing is stored."""
    account_id = identifiers.account()
    return account_id, visitors.issue(account_id)
