"""Every route and every role: a route that is not in this table fails the test."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from enum import Enum
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from starlette.routing import Route

from gateway.routes.direct import FREQUENT, DirectRoutes
from rails.recurring import Offer
from tests.gateway.stack import Gateway, generation_request, operator_of


class Access(Enum):
    """Whom a route serves."""

    EVERYBODY = "everybody"
    ACCOUNT = "visitors and people, each their own; 401 without a valid token"
    PERSON = "people who are signed in; 403 for visitors, 401 without a valid token"
    OWN = "as ACCOUNT, and 404 for what belongs to somebody else"
    OPERATOR = "people whom the command line let in; 401 for nobody, 403 for everybody else"
    WORKER = "registered workers; 401 for everybody else"
    ONCE = "whoever brings a one-time registration token"
    LINK = "whoever brings a link to top up an account; 403 for everybody else, its owner included"
    PREPAID = "whoever brings an L402 token; 403 for everybody else, 401 for nobody: see test_l402"
    SIGNED = "whoever brings a signed link; 403 without"
    VERIFIED = "payment rails, by their signature"
    MAILING = "everybody, where mail is sent; 404 where none is, as here: see test_sign_in_links"
    PAGE = "everybody, the same for all"


A = Access
TABLE: dict[str, Access] = {
    "GET /v1/openapi.json": A.EVERYBODY,
    "GET /.well-known/jwks.json": A.EVERYBODY,
    "GET /health": A.EVERYBODY,
    "GET /metrics": A.EVERYBODY,
    "POST /v1/visitors": A.EVERYBODY,
    "GET /v1/account": A.EVERYBODY,
    "GET /v1/session": A.EVERYBODY,
    "POST /v1/session": A.EVERYBODY,
    "GET /v1/session/links": A.SIGNED,
    "POST /v1/session/links": A.MAILING,
    "GET /v1/plans": A.EVERYBODY,
    "GET /v1/rails": A.EVERYBODY,
    "DELETE /v1/session": A.ACCOUNT,
    "DELETE /v1/sessions": A.ACCOUNT,
    "POST /v1/session/recover": A.ACCOUNT,
    "GET /v1/statement": A.ACCOUNT,
    "GET /v1/events": A.ACCOUNT,
    "POST /v1/generations": A.ACCOUNT,
    "GET /v1/generations": A.ACCOUNT,
    "GET /v1/generations/{job_id}": A.OWN,
    "DELETE /v1/generations/{job_id}": A.OWN,
    "GET /v1/generations/{job_id}/image": A.OWN,
    "DELETE /v1/l402": A.PREPAID,
    "POST /v1/topups": A.ACCOUNT,
    "GET /v1/topups": A.ACCOUNT,
    "GET /v1/topups/{topup_id}": A.OWN,
    "POST /v1/topups/{topup_id}/cancel": A.OWN,
    "GET /v1/topups/{topup_id}/refund": A.OWN,
    "POST /v1/topups/{topup_id}/refund": A.OWN,
    "POST /v1/auto-topup": A.PERSON,
    "GET /v1/auto-topup": A.ACCOUNT,
    "POST /v1/auto-topup/card": A.PERSON,
    "POST /v1/auto-topup/off": A.PERSON,
    "POST /v1/subscriptions": A.PERSON,
    "GET /v1/subscriptions": A.ACCOUNT,
    "GET /v1/subscriptions/{subscription_id}": A.OWN,
    **{
        f"POST /v1/subscriptions/{{subscription_id}}/{what}": A.OWN
        for what in ("preview", "change", "cancel", "resume", "portal")
    },
    "GET /v1/operator/payments": A.OPERATOR,
    "GET /v1/operator/payments/{payment_id}": A.OPERATOR,
    "GET /v1/operator/attention": A.OPERATOR,
    "GET /v1/operator/differences": A.OPERATOR,
    "POST /v1/operator/differences": A.OPERATOR,
    "POST /v1/operator/payments/{payment_id}/refund": A.OPERATOR,
    "POST /v1/operator/payments/{payment_id}/refunds/{refund_id}": A.OPERATOR,
    "POST /v1/operator/payments/{payment_id}/suspense": A.OPERATOR,
    "POST /v1/operator/accounts/{account_id}/adjust": A.OPERATOR,
    "POST /v1/operator/accounts/{account_id}/forgive": A.OPERATOR,
    "GET /v1/topup-link": A.LINK,
    "POST /v1/topup-link/topups": A.LINK,
    "GET /v1/topup-link/topups/{topup_id}": A.LINK,
    "POST /v1/hooks/{rail}": A.VERIFIED,
    "GET /v1/mail": A.ACCOUNT,
    "GET /v1/mail/{token}": A.SIGNED,
    "PUT /v1/mail/{token}": A.SIGNED,
    "POST /v1/mail/{token}": A.SIGNED,
    "GET /sandbox/mail": A.PAGE,
    "POST /v1/worker/register": A.ONCE,
    "POST /v1/worker/renew": A.WORKER,
    "GET /v1/generations/sessions/{session_id}": A.ACCOUNT,
    "PATCH /v1/generations/sessions/{session_id}": A.ACCOUNT,
    "POST /v1/worker/claim": A.WORKER,
    "POST /v1/worker/jobs/{job_id}/heartbeat": A.WORKER,
    "POST /v1/worker/jobs/{job_id}/complete": A.WORKER,
    "POST /v1/worker/jobs/{job_id}/fail": A.WORKER,
    "POST /v1/worker/jobs/{job_id}/give-back": A.WORKER,
    "POST /v1/worker/drain": A.WORKER,
    "POST /v1/worker/graphs": A.WORKER,
    "POST /v1/worker/trial-upload": A.WORKER,
    "POST /v1/worker/trial-upload/end": A.WORKER,
    "POST /v1/worker/self-test": A.WORKER,
    "POST /v1/worker/resume": A.WORKER,
    "GET /v1/objects/{key:path}": A.SIGNED,
    "PUT /v1/objects/{key:path}": A.SIGNED,
    "GET /sandbox/api/open": A.ACCOUNT,
    "POST /sandbox/api/pay": A.ACCOUNT,
    **{
        f"GET {page}": A.PAGE
        for page in (
            "/",
            "/account",
            "/plans",
            "/sign-in",
            "/topups/{topup_id}",
            "/topup",
            "/mail/{token}",
            "/images/{job_id}",
            "/operator",
            "/offline",
            "/sandbox/wallet",
            "/static/{path:path}",
            "/modules/{path:path}",
            "/sw.js",
            "/site.webmanifest",
            "/favicon.svg",
            "/favicon.ico",
            "/docs",
        )
    },
}
ANSWERED = {A.LINK: (403, "topup_link_not_valid"), A.VERIFIED: (400, "hint_rejected")}
"""What everybody is answered who does not bring what is wanted."""
BODIES: dict[str, Any] = {
    "POST /v1/generations": generation_request(),
    "POST /v1/session": {"email": "roles@example.com"},
    "POST /v1/session/links": {"email": "roles@example.com"},
    "POST /v1/session/recover": {"recovery_code": "LLAMA-0000-0000-0000-0000"},
    "POST /v1/topups": {"rail": "fake", "credits": 5, "pay_asset": "USD"},
    "POST /v1/topup-link/topups": {"rail": "fake", "credits": 5, "pay_asset": "USD"},
    "POST /v1/auto-topup": {"pack": "pack_500", "threshold": 50, "limit_minor": 2_000, "consent": True},
    "POST /v1/subscriptions": {"rail": "fake", "plan": "starter"},
    "POST /v1/subscriptions/{subscription_id}/preview": {"plan": "starter"},
    "POST /v1/subscriptions/{subscription_id}/change": {"plan": "starter"},
    "POST /v1/worker/claim": {"wait_seconds": 0},
    "POST /sandbox/api/pay": {"text": "nothing to pay"},
}


def routes_of(routes: Any) -> Iterator[str]:
    """`GET /path` of every route, however deeply it is included."""
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is not None:
            yield from routes_of(included.routes)
        elif isinstance(route, APIRoute | Route):
            for method in sorted((route.methods or set()) - {"HEAD", "OPTIONS"}):
                yield f"{method} {route.path}"
        elif isinstance(route, DirectRoutes):
            yield from (f"{method} {path}" for method, path in FREQUENT)
        else:
            yield f"? {route!r}"


async def ask(client: httpx.AsyncClient, name: str, ids: dict[str, str]) -> tuple[int, str]:
    """Status and problem code of one route; a stream is read up to its headers."""
    method, _, path = name.partition(" ")
    path = path.replace(":path", "").format(**ids)
    body = None if method in ("GET", "PUT") else BODIES.get(name, {})
    async with client.stream(method, path, json=body) as answer:
        if "event-stream" in answer.headers.get("content-type", ""):
            return answer.status_code, ""
        await answer.aread()
        problem = "problem" in answer.headers.get("content-type", "")
        return answer.status_code, answer.json()["code"] if problem else ""


async def test_every_route_has_its_line_in_the_table(gateway: Gateway) -> None:
    assert set(routes_of(gateway.app.routes)) == set(TABLE)


@pytest.fixture(scope="module")
async def others(gateway: Gateway) -> dict[str, httpx.AsyncClient]:
    """Everybody with a token but the owner of what is asked for."""
    registration = gateway.services.generation.registry.tokens.mint(valid_for=timedelta(minutes=30))
    return {
        "visitor": await gateway.visitor(),
        "person": await gateway.person("roles@example.com"),
        "worker": (await gateway.worker()).client,
        "registration": gateway.bearer(registration),
        "forged": gateway.bearer("lsv1.acct_" + "0" * 26 + ".1.x"),
    }


async def subscription_of(gateway: Gateway, owner: httpx.AsyncClient) -> str:
    """A plan of the owner's, paid for."""
    outside, ours = gateway.fake.network.subscriptions, gateway.services.payments.subscriptions
    pro, starter = (Offer(plan=plan, length="month") for plan in ("pro", "starter"))
    outside.prices = {pro: 2_000, starter: 800}
    account_id = (await owner.get("/v1/account")).json()["id"]
    opened = await ours.subscribe(account_id, "fake", pro, return_url="https://llamasketch.test")
    await outside.pay(str(opened.page_reference))
    return (await ours.observe(opened.subscription_id)).subscription_id


async def fresh(gateway: Gateway, name: str) -> dict[str, httpx.AsyncClient]:
    """Roles of this route's own: what it ends, the other routes need."""
    if name == "POST /v1/worker/renew":
        return {"worker": (await gateway.worker()).client}
    if name in ("DELETE /v1/session", "DELETE /v1/sessions"):
        person = await gateway.person("roles-that-end@example.com")
        return {"visitor": await gateway.visitor(), "person": person}
    return {}


@pytest.mark.parametrize("name", TABLE)
async def test_a_route_serves_exactly_its_roles(
    gateway: Gateway, others: dict[str, httpx.AsyncClient], name: str
) -> None:
    owner = await gateway.visitor()
    ids = {
        "session_id": "sketch",
        "job_id": (await owner.post("/v1/generations", json=generation_request())).json()["id"],
        "topup_id": (await gateway.open_topup(owner))["id"],
        "subscription_id": await subscription_of(gateway, owner),
        "rail": "fake",
        "key": "images/x.png",
        "path": "js/none.js",
        "token": "lsm1.acct_" + "0" * 26 + ".x",
    }
    ids |= {"payment_id": ids["topup_id"], "refund_id": "ref_1", "account_id": "acct_1"}
    roles = {"owner": owner, "nobody": gateway.client(), **others, **await fresh(gateway, name)}
    if TABLE[name] is A.OPERATOR:
        roles["operator"] = await operator_of(gateway)
    found = {role: await ask(client, name, ids) for role, client in roles.items()}
    check(TABLE[name], found)
    assert all(status < 500 for status, _ in found.values()), found


def check(access: Access, found: dict[str, tuple[int, str]]) -> None:
    """Who may ask, and what the others are told."""
    allowed = {role for role, (status, _) in found.items() if status not in (401, 403)}
    holders = {"owner", "visitor", "person"}
    match access:
        case A.PAGE:
            assert allowed == set(found), found
        case A.EVERYBODY:
            assert allowed >= holders | {"nobody"}, found
            assert {found[role][0] for role in holders} <= {200, 201}, found
        case A.ACCOUNT:
            assert allowed == holders, found
        case A.PERSON:
            assert allowed == {"person"}, found
        case A.OWN:
            assert allowed == holders, found
            assert {found[role][0] for role in ("visitor", "person")} == {404}, found
            assert found["owner"][0] < 400 or found["owner"][1] in ("no_image", "nothing_to_refund"), found
        case A.OPERATOR | A.PREPAID:
            only, code = (
                ({"operator"}, "operators_only") if access is A.OPERATOR else (set(), "l402_not_allowed")
            )
            assert allowed == only, found
            assert {found[role] for role in holders} == {(403, code)}, found
        case A.WORKER:
            assert allowed == {"worker"}, found
        case A.MAILING:
            assert {found[role] for role in ("nobody", *holders)} == {(404, "no_sign_in_links")}, found
        case A.ONCE:
            assert {status for status, _ in found.values()} == {422}, found
        case A.SIGNED:
            assert {status for status, _ in found.values()} == {403}, found
        case A.LINK | A.VERIFIED:
            assert set(found.values()) == {ANSWERED[access]}, found
