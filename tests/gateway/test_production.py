"""What production adds to every answer, and what it keeps to itself."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from gateway.http.middleware import TRANSPORT_SECURITY
from tests.configuration.environments import SOUND
from tests.gateway.conftest import Open
from tests.gateway.stack import Gateway, generation_request
from tests.waiting import SECONDS_MAX

PUBLIC = "https://sketch.llamas.art"
TOKEN = SOUND["LLAMASKETCH_METRICS_TOKEN"]


@pytest.fixture(scope="module")
async def production(open_gateway: Open) -> AsyncIterator[Gateway]:
    """A gateway as people reach it by https."""
    async with open_gateway(
        public_url=PUBLIC,
        environment="production",
        oidc_issuer="https://clerk.llamas.art",
        secret_key=SOUND["LLAMASKETCH_SECRET_KEY"],
        metrics_token=TOKEN,
    ) as gateway:
        yield gateway


async def test_browsers_are_told_to_come_by_https_only(production: Gateway, gateway: Gateway) -> None:
    for path in ("/", "/v1/plans", "/nothing/here"):
        answer = await production.client().get(path)
        assert answer.headers["strict-transport-security"] == TRANSPORT_SECURITY
        assert "strict-transport-security" not in (await gateway.client().get(path)).headers


async def test_cookies_belong_to_this_host_alone(production: Gateway) -> None:
    answer = await production.client(Origin=PUBLIC).post("/v1/visitors", json={})
    browser = await production.client().get("/v1/account")
    for cookie in [*answer.headers.get_list("set-cookie"), *browser.headers.get_list("set-cookie")]:
        assert cookie.startswith("__Host-")
        assert "Secure" in cookie
        assert "Path=/" in cookie
        assert "domain" not in cookie.lower()
    kept = browser.headers["set-cookie"].partition(";")[0]
    assert kept.startswith("__Host-ls_visitor=")
    again = await production.client(Cookie=kept).get("/v1/account")
    assert again.json()["id"] == browser.json()["id"]
    planted = await production.client(Cookie=kept.removeprefix("__Host-")).get("/v1/account")
    assert planted.json()["id"] != browser.json()["id"]


async def test_figures_are_for_who_has_the_token(
    production: Gateway, open_gateway: Open, gateway: Gateway
) -> None:
    assert (await production.client().get("/metrics")).status_code == 404
    for wrong in (f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", TOKEN):
        assert (await production.client(Authorization=wrong).get("/metrics")).status_code == 404
    assert (await production.client(Authorization=f"Bearer {TOKEN}").get("/metrics")).status_code == 200
    assert (await gateway.client().get("/metrics")).status_code == 200


HOSTS = {
    "none": [],
    "two": ["Host: sketch.llamas.art", "Host: elsewhere.example"],
    "the same twice": ["Host: sketch.llamas.art", "Host: sketch.llamas.art"],
    "an empty one": ["Host: "],
    "a login in it": ["Host: sketch.llamas.art@elsewhere.example"],
    "a list": ["Host: sketch.llamas.art, elsewhere.example"],
    "a path in it": ["Host: sketch.llamas.art/v1"],
    "an open bracket": ["Host: [", "Origin: http://["],
    "a closed bracket": ["Host: ]", "Origin: http://]"],
    "brackets around nothing": ["Host: []", "Origin: http://[]"],
    "brackets around a name": ["Host: [v1.a]", "Origin: http://[v1.a]"],
    "two brackets": ["Host: [::1]]", "Origin: http://[::1]]"],
    "a port alone": ["Host: :80"],
    "two ports": ["Host: sketch.llamas.art:80:80"],
    "a port in words": ["Host: sketch.llamas.art:http"],
    "a port that is none": ["Host: sketch.llamas.art:999999"],
    "a name without end": ["Host: " + "a" * 256],
}


@pytest.mark.parametrize("hosts", HOSTS.values(), ids=[*HOSTS])
async def test_a_request_names_one_host(gateway: Gateway, hosts: list[str]) -> None:
    assert await status_of(gateway, ["GET /v1/plans HTTP/1.1", *hosts, "Connection: close"]) == 400


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("Authorization", ("Bearer a", "Bearer b")),
        ("Content-Type", ("application/json", "text/plain")),
        ("Idempotency-Key", ("a", "b")),
        ("idempotency-KEY", ("a", "a")),
        ("Last-Event-ID", ("1.a", "2.b")),
        ("Origin", ("http://127.0.0.1", "http://elsewhere.example")),
    ],
)
async def test_what_decides_something_is_said_once(
    gateway: Gateway, name: str, values: tuple[str, str]
) -> None:
    ask = ["POST /v1/visitors HTTP/1.1", "Host: x", "Content-Length: 0", "Connection: close"]
    assert await status_of(gateway, [*ask, *(f"{name}: {value}" for value in values)]) == 400


async def test_brackets_around_what_is_no_address_are_another_origin_and_no_fault_of_ours(
    gateway: Gateway,
) -> None:
    ask = ["Host: [1::2::3]", "Origin: http://[1::2::3]", "Connection: close"]
    assert await status_of(gateway, ["GET /v1/session HTTP/1.1", *ask]) == 200
    assert await status_of(gateway, ["POST /v1/session HTTP/1.1", "Content-Length: 0", *ask]) == 403


async def test_one_host_is_enough(gateway: Gateway) -> None:
    assert (
        await status_of(gateway, ["GET /v1/plans HTTP/1.1", "Host: [::1]:8000", "Connection: close"]) == 200
    )


async def status_of(gateway: Gateway, lines: list[str]) -> int:
    """The status of a request that no client library would send."""
    url = httpx.URL(gateway.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write("\r\n".join([*lines, "", ""]).encode())
    async with asyncio.timeout(SECONDS_MAX):
        line = await reader.readline()
    writer.close()
    return int(line.split()[1])


async def test_pictures_on_the_disk_are_closed_to_others(gateway: Gateway) -> None:
    client, worker = await gateway.visitor(), await gateway.worker()
    await client.post("/v1/generations", json=generation_request())
    await worker.paint()
    objects = Path(gateway.settings.data) / "objects"
    files = [path for path in objects.rglob("*") if path.is_file()]
    assert files
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in objects.rglob("*") if path.is_dir()} == {0o700}
