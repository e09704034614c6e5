"""From a request to a caller: tokens before cookies, and cookies only from our own pages."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from fastapi import Request, Response

from gateway.auth.authentication import (
    Authenticator,
    TokenReader,
    new_visitor,
    set_session_cookie,
    set_visitor_cookie,
    unauthenticated,
)
from gateway.auth.identity import Principal, Role, VisitorTokens
from gateway.http.problems import Problem
from ledger.clock import ManualClock
from ledger.identifiers import Identifiers, is_identifier

OURS = "https://llamasketch.example"
CLOCK = ManualClock(datetime(2026, 11, 22, 12, tzinfo=UTC))
IDS = Identifiers(CLOCK)
VISITORS = VisitorTokens(b"a secret of these tests", CLOCK)
VISITOR, TOKEN = new_visitor(IDS, VISITORS)
PERSON = IDS.account()
SESSION_COOKIE, VISITOR_COOKIE = "__Host-ls_session", "__Host-ls_visitor"
"""As they are called over https."""


class Known:
    """A reader of one token."""

    def __init__(self, token: str, principal: Principal) -> None:
        self._token = token
        self._principal = principal

    async def principal(self, token: str) -> Principal | None:
        return self._principal if token == self._token else None


class Strict:
    """A reader that finds every token of its own kind bad."""

    async def principal(self, token: str) -> Principal | None:
        if token.startswith("bad"):
            raise unauthenticated("bad")
        return None


READERS: tuple[TokenReader, ...] = (
    Strict(),
    Known("person-token", Principal(Role.PERSON, PERSON, by_cookie=True)),
)


def authenticator(*, embedded: bool = False, public_url: str = f"{OURS}/path") -> Authenticator:
    return Authenticator(visitors=VISITORS, readers=READERS, public_url=public_url, embedded=embedded)


def request(
    method: str = "GET", headers: Mapping[str, str] | None = None, cookies: Mapping[str, str] | None = None
) -> Request:
    shown = {"host": "llamasketch.example", **(headers or {})}
    if cookies:
        shown["cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
    return Request(
        {
            "type": "http",
            "method": method,
            "scheme": "https",
            "server": ("llamasketch.example", 443),
            "path": "/v1/generations",
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in shown.items()],
        }
    )


async def refused(asked: Request, *, embedded: bool = False) -> tuple[int, str]:
    with pytest.raises(Problem) as problem:
        await authenticator(embedded=embedded).principal(asked)
    return problem.value.status, problem.value.code


BEARER = {"authorization": "Bearer person-token"}
JSON = {"origin": OURS, "content-type": "application/json"}


async def test_a_bearer_token_says_who_is_asking() -> None:
    found = await authenticator().principal(request(headers=BEARER))
    assert found == Principal(Role.PERSON, PERSON, by_cookie=False)


@pytest.mark.parametrize("kind", ["bearer", "BEARER"])
async def test_a_visitors_token_may_be_a_bearer_token_too(kind: str) -> None:
    found = await authenticator().principal(request(headers={"authorization": f"{kind}  {TOKEN} "}))
    assert found == Principal(Role.VISITOR, VISITOR, by_cookie=False)


@pytest.mark.parametrize(
    "header", ["Basic person-token", "Bearer", "Bearer ", "Bearer unknown", "Bearer bad-one"]
)
async def test_a_credential_that_is_not_good_is_refused_and_not_passed_over(header: str) -> None:
    asked = request(headers={"authorization": header}, cookies={VISITOR_COOKIE: TOKEN})
    assert await refused(asked) == (401, "unauthenticated")


async def test_who_brings_nothing_is_nobody() -> None:
    assert await authenticator().principal(request()) is None


@pytest.mark.parametrize("name", [SESSION_COOKIE, VISITOR_COOKIE])
async def test_a_cookie_says_who_is_asking(name: str) -> None:
    found = await authenticator().principal(request(cookies={name: "person-token"}))
    assert found == Principal(Role.PERSON, PERSON, by_cookie=True)
    visitor = await authenticator().principal(request(cookies={name: TOKEN}))
    assert visitor == Principal(Role.VISITOR, VISITOR, by_cookie=True)


async def test_a_session_goes_before_a_visit() -> None:
    both = {VISITOR_COOKIE: TOKEN, SESSION_COOKIE: "person-token"}
    found = await authenticator().principal(request(cookies=both))
    assert found is not None
    assert found.account_id == PERSON


@pytest.mark.parametrize("name", ["ls_session", "ls_visitor"])
async def test_over_https_a_cookie_that_a_neighbour_could_have_planted_is_nobodys(name: str) -> None:
    assert await authenticator().principal(request(cookies={name: TOKEN})) is None
    plain = authenticator(public_url="http://127.0.0.1:8000", embedded=True)
    assert await plain.principal(request(cookies={name: TOKEN})) is not None


@pytest.mark.parametrize("session", ["bad-one", "unknown", ""])
async def test_a_cookie_that_has_become_invalid_counts_as_none(session: str) -> None:
    asked = request(cookies={SESSION_COOKIE: session, VISITOR_COOKIE: TOKEN})
    found = await authenticator().principal(asked)
    assert found is not None
    assert found.account_id == VISITOR
    assert await authenticator().principal(request(cookies={SESSION_COOKIE: session})) is None


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_a_write_with_a_cookie_comes_as_json_from_our_own_pages(method: str) -> None:
    cookies = {VISITOR_COOKIE: TOKEN}
    found = await authenticator().principal(request(method, JSON, cookies))
    assert found is not None
    for headers, answer in (
        ({}, (403, "foreign_origin")),
        ({"content-type": "application/json"}, (403, "foreign_origin")),
        ({**JSON, "origin": "https://elsewhere.example"}, (403, "foreign_origin")),
        ({**JSON, "origin": "http://llamasketch.example"}, (403, "foreign_origin")),
        ({"origin": OURS}, (415, "json_only")),
        ({**JSON, "content-type": "text/plain"}, (415, "json_only")),
        ({**JSON, "content-type": "text/plain; application/json"}, (415, "json_only")),
    ):
        assert await refused(request(method, headers, cookies)) == answer


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "APPLICATION/JSON", " application/json "]
)
async def test_json_may_be_written_in_other_ways(kind: str) -> None:
    asked = request("POST", {**JSON, "content-type": kind}, {VISITOR_COOKIE: TOKEN})
    assert await authenticator().principal(asked) is not None


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_a_read_may_come_from_anywhere(method: str) -> None:
    asked = request(method, {"origin": "https://elsewhere.example"}, {VISITOR_COOKIE: TOKEN})
    assert await authenticator().principal(asked) is not None


async def test_a_write_from_elsewhere_is_refused_even_without_a_cookie() -> None:
    assert await refused(request("POST", {"origin": "https://elsewhere.example"})) == (403, "foreign_origin")
    assert await authenticator().principal(request("POST", {"origin": OURS})) is None
    assert await authenticator().principal(request("POST")) is None


async def test_a_token_may_come_from_any_page() -> None:
    asked = request("POST", {**BEARER, "origin": "https://elsewhere.example"})
    assert await authenticator().principal(asked) is not None


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "192.0.2.7:8000", "[2001:db8::1]:8000"])
async def test_while_trying_out_the_stack_may_be_opened_by_any_address_of_the_machine(host: str) -> None:
    asked = request("POST", {**JSON, "origin": f"https://{host}", "host": host}, {VISITOR_COOKIE: TOKEN})
    assert await authenticator(embedded=True).principal(asked) is not None
    assert await refused(asked) == (403, "foreign_origin")


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://pointed-here.example", "pointed-here.example"),
        ("http://localhost", "localhost"),
        ("https://localhost", "localhost:8000"),
        ("https://", ""),
    ],
)
async def test_not_by_a_name_that_somebody_else_may_have_pointed_here(origin: str, host: str) -> None:
    asked = request("POST", {**JSON, "origin": origin, "host": host}, {VISITOR_COOKIE: TOKEN})
    assert await refused(asked, embedded=True) == (403, "foreign_origin")


def test_who_says_nothing_is_challenged_to_say_it() -> None:
    problem = unauthenticated("Say who you are.")
    assert (problem.status, problem.code, problem.detail) == (401, "unauthenticated", "Say who you are.")
    assert problem.headers == {"WWW-Authenticate": "Bearer"}


@pytest.mark.parametrize("secure", [True, False])
def test_a_visitors_cookie_is_out_of_reach_of_scripts_and_other_sites(secure: bool) -> None:
    response = Response()
    set_visitor_cookie(response, TOKEN, secure=secure)
    name, *attributes = response.headers["set-cookie"].split("; ")
    assert name == f"{VISITOR_COOKIE if secure else 'ls_visitor'}={TOKEN}"
    expected = {"HttpOnly", "Max-Age=34560000", "Path=/", "SameSite=lax"} | ({"Secure"} if secure else set())
    assert set(attributes) == expected


@pytest.mark.parametrize("secure", [True, False])
def test_a_sessions_cookie_lasts_as_long_as_the_session(secure: bool) -> None:
    response = Response()
    set_session_cookie(response, "person-token", timedelta(hours=1), secure=secure)
    name, *attributes = response.headers["set-cookie"].split("; ")
    assert name == f"{SESSION_COOKIE if secure else 'ls_session'}=person-token"
    expected = {"HttpOnly", "Max-Age=3600", "Path=/", "SameSite=lax"} | ({"Secure"} if secure else set())
    assert set(attributes) == expected


def test_a_new_visitor_has_an_account_of_its_own_and_the_token_for_it() -> None:
    account_id, token = new_visitor(IDS, VISITORS)
    assert is_identifier(account_id, "acct")
    assert account_id != VISITOR
    assert VISITORS.read(token) == account_id
