"""What a hostile page, proxy or neighbour can and cannot do through a browser."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from starlette.responses import Response

from gateway.auth.authentication import set_visitor_cookie
from tests.gateway.stack import Gateway, credits_of, generation_request

FOREIGN = ["https://evil.example", "null", "http://localhost.evil.example", "http://127.0.0.1:1", ""]


async def cookie_of(gateway: Gateway) -> dict[str, str]:
    browser = gateway.browser()
    await browser.get("/v1/account")
    return {"Cookie": "; ".join(f"{name}={value}" for name, value in browser.cookies.items())}


async def code_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


@pytest.mark.parametrize("origin", FOREIGN)
async def test_a_cookie_write_from_a_foreign_origin_is_refused(gateway: Gateway, origin: str) -> None:
    cookie = await cookie_of(gateway)
    client = gateway.client(**cookie)
    head = await gateway.services.base.reader.head()
    for method, path, body in (
        ("POST", "/v1/generations", generation_request()),
        ("POST", "/v1/topups", {"rail": "fake", "credits": 5, "pay_asset": "USD"}),
        ("POST", "/v1/session", {"email": "victim@example.com"}),
        ("POST", "/v1/session/recover", {"recovery_code": "LLAMA-0000-0000-0000-0000"}),
        ("DELETE", "/v1/session", {}),
    ):
        answer = await client.request(method, path, json=body, headers={"Origin": origin})
        assert await code_of(answer) == (403, "foreign_origin"), path
        assert "set-cookie" not in answer.headers
    assert await gateway.services.base.reader.head() == head
    assert (await credits_of(client))["available"] == 20


async def test_a_cookie_write_without_an_origin_is_refused(gateway: Gateway) -> None:
    client = gateway.client(**await cookie_of(gateway))
    assert await code_of(await client.post("/v1/generations", json=generation_request())) == (
        403,
        "foreign_origin",
    )


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None]
)
async def test_a_cookie_write_that_is_not_json_is_refused(gateway: Gateway, kind: str | None) -> None:
    client = gateway.client(**await cookie_of(gateway), Origin=gateway.url)
    headers = {"Content-Type": kind} if kind else {}
    answer = await client.post("/v1/topups", content=b'{"rail": "fake", "credits": 5}', headers=headers)
    assert await code_of(answer) == (415, "json_only")
    answer = await client.request("DELETE", "/v1/session", headers=headers)
    assert await code_of(answer) == (415, "json_only")


@pytest.mark.parametrize("origin", FOREIGN)
async def test_a_foreign_page_cannot_sign_a_stranger_in(gateway: Gateway, origin: str) -> None:
    answer = await gateway.client(Origin=origin).post("/v1/session", json={"email": "attacker@example.com"})
    assert await code_of(answer) == (403, "foreign_origin")
    assert "set-cookie" not in answer.headers


async def test_a_name_that_was_pointed_at_this_machine_is_foreign(gateway: Gateway) -> None:
    cookie = await cookie_of(gateway)
    port = gateway.url.rpartition(":")[2]
    name = f"rebound.example:{port}"
    client = gateway.client(**cookie, Host=name, Origin=f"http://{name}")
    assert await code_of(await client.post("/v1/generations", json=generation_request())) == (
        403,
        "foreign_origin",
    )
    local = gateway.client(**cookie, Host=f"localhost:{port}", Origin=f"http://localhost:{port}")
    assert (await local.post("/v1/generations", json=generation_request())).status_code == 202


async def test_a_token_needs_no_origin(gateway: Gateway) -> None:
    client = await gateway.visitor()
    answer = await client.post(
        "/v1/generations", json=generation_request(), headers={"Origin": "https://evil.example"}
    )
    assert answer.status_code == 202


async def test_no_other_site_may_read_answers(gateway: Gateway) -> None:
    client = gateway.client(Origin="https://evil.example")
    preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    answers = [
        await client.get("/v1/account"),
        await client.get("/v1/plans"),
        await client.options("/v1/generations", headers=preflight),
    ]
    for answer in answers:
        assert not [name for name in answer.headers if name.startswith("access-control-")]


async def test_api_answers_are_kept_by_nobody(gateway: Gateway) -> None:
    client = await gateway.visitor()
    for path in ("/v1/account", "/v1/statement", "/v1/topups", "/v1/session", "/v1/nothing"):
        headers = (await client.get(path)).headers
        assert headers["cache-control"] == "no-store", path
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers


async def test_an_api_problem_is_never_a_page(gateway: Gateway) -> None:
    headers = {"Accept": "text/html"}
    answer = await gateway.client().get("/v1/generations/<script>alert(1)</script>", headers=headers)
    assert answer.headers["content-type"] == "application/problem+json"
    page = await gateway.client().get("/nothing/<script>alert(1)</script>", headers=headers)
    assert page.status_code == 404
    assert "alert(1)" not in page.text
    assert "content-security-policy" in page.headers


@pytest.mark.parametrize("split", ["x\r\nSet-Cookie: a=b", "x\nLocation: //evil.example", "x\x00"])
async def test_nothing_that_is_sent_becomes_a_header(gateway: Gateway, split: str) -> None:
    client = await gateway.visitor()
    for answer in (
        await client.get(
            "/v1/generations/" + split.replace("\r", "%0d").replace("\n", "%0a").replace("\x00", "%00")
        ),
        await client.get("/v1/statement", params={"reference": split}),
        await client.post("/v1/topups", json={"rail": "fake", "credits": 5, "pay_asset": split}),
    ):
        assert 400 <= answer.status_code < 500
        assert "set-cookie" not in answer.headers
        assert "location" not in answer.headers


async def test_a_body_that_does_not_arrive_is_not_waited_for_for_ever(gateway: Gateway) -> None:
    from gateway.auth.networks import Origins
    from gateway.bounds.bodies import BodyLimit, HeldBodies

    sent: list[dict[str, object]] = []

    async def never() -> dict[str, object]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    async def app(scope: object, receive: object, send: object) -> None:
        await receive()  # type: ignore[operator]

    scope = {"type": "http", "path": "/v1/topups", "headers": []}
    limit = BodyLimit(app, seconds_max=0.05, held=HeldBodies(1000, 1000), origins=Origins(()))
    await limit(scope, never, send)  # type: ignore[arg-type]
    assert sent[0]["status"] == 408


async def test_over_https_cookies_are_for_https_only() -> None:
    response = Response()
    set_visitor_cookie(response, "x", secure=True)
    assert "Secure" in response.headers["set-cookie"]
