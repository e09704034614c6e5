"""From a request to a `Principal`: bearer tokens first, then cookies; cookie writes are checked twice."""

from __future__ import annotations

import ipaddress
from datetime import timedelta
from typing import Protocol
from urllib.parse import urlsplit

from fastapi import Request, Response

from gateway.auth.identity import (
    SESSION_COOKIE,
    VISITOR_COOKIE,
    VISITOR_LIFETIME,
    Credential,
    Principal,
    Role,
    VisitorTokens,
    cookie_name,
)
from gateway.auth.l402 import credential_of, opted_in
from gateway.http.problems import Problem
from ledger.identifiers import AccountId, Identifiers

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class TokenReader(Protocol):
    """Understands one kind of bearer token."""

    async def principal(self, token: str) -> Principal | None:
        """Who it is, None if the token is of another kind. Raises `Problem` 401 if it is bad."""


class EndedTokens(Protocol):
    """Knows, without asking anybody, which tokens were ended before their time."""

    def is_ended(self, account_id: AccountId, credential: Credential) -> bool:
        """Whether this token counts no more."""


class PrepaidTokens(Protocol):
    """Understands L402 credentials."""

    async def principal(self, credential: str, method: str, path: str) -> Principal:
        """Whose balance it names. Raises `Problem` 401 if it is not genuine, 403 if it does not allow this request."""


class NoneEnded:
    """Where tokens only end by themselves."""

    def is_ended(self, account_id: AccountId, credential: Credential) -> bool:
        """See `EndedTokens.is_ended`."""
        return False


class Authenticator:
    """Knows every way of saying who one is."""

    def __init__(
        self,
        *,
        visitors: VisitorTokens,
        readers: tuple[TokenReader, ...],
        public_url: str,
        embedded: bool,
        ended: EndedTokens | None = None,
        prepaid: PrepaidTokens | None = None,
        identifiers: Identifiers | None = None,
    ) -> None:
        """`prepaid` and `identifiers` where programs may pay by L402."""
        self._ended = ended or NoneEnded()
        self._prepaid = prepaid
        self._identifiers = identifiers
        self._visitors = visitors
        self._readers = readers
        self._public_origin = _origin_of(public_url)
        self._embedded = embedded
        secure = self._public_origin.startswith("https")
        self._cookies = [cookie_name(name, secure=secure) for name in (SESSION_COOKIE, VISITOR_COOKIE)]

    async def principal(self, request: Request) -> Principal | None:
        """The caller; None if it brought nothing. Raises `Problem` 401 for bad credentials, 403 for
        a cookie write from a foreign Origin, 415 for one that is not JSON."""
        authorization = request.headers.get("authorization", "")
        credential = credential_of(authorization)
        if credential is not None and self._prepaid is not None:
            path = request.url.path
            return self._lasting(await self._prepaid.principal(credential, request.method, path))
        kind, _, token = authorization.partition(" ")
        if kind:
            if kind.lower() != "bearer" or not token:
                raise unauthenticated("Use `Authorization: Bearer <token>`.")
            return await self._by_token(token.strip(), by_cookie=False)
        self._check_origin(request)
        for cookie in self._cookies:
            value = request.cookies.get(cookie)
            if value:
                found = await self._by_cookie(value)
                if found is not None:
                    self._check_cookie_write(request)
                    return found
        return self._nobody(request)

    def _nobody(self, request: Request) -> Principal | None:
        """A program without an account that can pay for what it asks for."""
        if self._identifiers is None or not opted_in(request.headers) or not may_be_asked(request):
            return None
        return Principal(Role.VISITOR, self._identifiers.account(), by_cookie=False, nobody=True)

    async def _by_cookie(self, value: str) -> Principal | None:
        """A cookie that has become invalid counts as none: the browser cannot help it."""
        try:
            return await self._by_token(value, by_cookie=True)
        except Problem:
            return None

    async def _by_token(self, token: str, *, by_cookie: bool) -> Principal:
        account_id = self._visitors.read(token)
        if account_id is not None:
            return self._lasting(
                Principal(Role.VISITOR, account_id, by_cookie, self._visitors.credential(token))
            )
        for reader in self._readers:
            found = await reader.principal(token)
            if found is not None:
                return self._lasting(Principal(found.role, found.account_id, by_cookie, found.credential))
        raise unauthenticated("This token is not valid.")

    def _lasting(self, principal: Principal) -> Principal:
        credential = principal.credential
        if credential is not None and self._ended.is_ended(principal.account_id, credential):
            raise unauthenticated("This token was signed out.")
        return principal

    def _check_origin(self, request: Request) -> None:
        """Another site's page may write nothing without a token, not even without our cookie: signing
        a stranger in, or handing out a visitor, would be its work too."""
        foreign = "origin" in request.headers and not self._same_origin(request)
        if foreign and request.method not in _SAFE:
            raise Problem("foreign_origin", "Writes without a token must come from our own pages.")

    def _check_cookie_write(self, request: Request) -> None:
        if request.method in _SAFE:
            return
        if not self._same_origin(request):
            raise Problem("foreign_origin", "Writes with a cookie must come from our own pages.")
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Problem("json_only", "Writes with a cookie need Content-Type: application/json.")

    def _same_origin(self, request: Request) -> bool:
        origin = request.headers.get("origin", "")
        if origin == self._public_origin:
            return True
        # While trying out, the same stack may be opened as localhost or by any address of this machine;
        # never by another name, which somebody else may have pointed here.
        host = request.headers.get("host", "")
        return self._embedded and _is_plain_host(host) and origin == f"{request.url.scheme}://{host}"


def _is_plain_host(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:  # brackets around what is no address
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name == "localhost"
    return True


def _origin_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def may_be_asked(request: Request) -> bool:
    """Whether a program may ask for this without being anybody: what is paid for by the call."""
    return request.method == "POST" and request.url.path == "/v1/generations"


def unauthenticated(detail: str, *, code: str = "unauthenticated", scheme: str = "Bearer") -> Problem:
    """401 with the challenge that RFC 9110 asks for."""
    return Problem(code, detail, headers={"WWW-Authenticate": scheme})


def set_visitor_cookie(response: Response, token: str, *, secure: bool) -> None:
    """Give the browser its visitor token."""
    _set_cookie(response, VISITOR_COOKIE, token, VISITOR_LIFETIME, secure=secure)


def set_session_cookie(response: Response, token: str, lifetime: timedelta, *, secure: bool) -> None:
    """Keep somebody signed in."""
    _set_cookie(response, SESSION_COOKIE, token, lifetime, secure=secure)


def _set_cookie(response: Response, name: str, token: str, lifetime: timedelta, *, secure: bool) -> None:
    """Out of reach of scripts and of other sites."""
    response.set_cookie(
        cookie_name(name, secure=secure),
        token,
        max_age=int(lifetime.total_seconds()),
        httponly=True,
        samesite="lax",
        secure=secure,
        path="/",
    )


def forget_cookie(response: Response, name: str, *, secure: bool) -> None:
    """Take a cookie out of this browser."""
    # A browser takes back a cookie of this name only if the attributes are those that the name demands.
    response.delete_cookie(
        cookie_name(name, secure=secure), path="/", secure=secure, httponly=True, samesite="lax"
    )


def new_visitor(identifiers: Identifiers, visitors: VisitorTokens) -> tuple[AccountId, str]:
    """A fresh visitor: an account id that nobody has, and its token. Nothing is stored."""
    account_id = identifiers.account()
    return account_id, visitors.issue(account_id)
