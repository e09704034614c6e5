"""Signed links open one object, by one method, for a while."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import urlencode

import pytest

from tests.gateway.stack import Gateway, picture

KEY = "uploads/job_test/1"


def link(gateway: Gateway, method: str = "PUT", key: str = KEY, seconds: int = 60, limit: int = 1_000) -> str:
    """The query of a genuine link."""
    return urlencode(gateway.services.generation.signer.query(method, key, timedelta(seconds=seconds), limit))


async def test_a_link_puts_one_object_and_another_fetches_it(gateway: Gateway) -> None:
    client = gateway.client()
    data = picture()[:900]
    assert (await client.put(f"/v1/objects/{KEY}?{link(gateway)}", content=data)).status_code == 201
    answer = await client.get(f"/v1/objects/{KEY}?{link(gateway, 'GET')}")
    assert answer.content == data
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"].startswith("private")


async def test_every_other_link_opens_nothing(gateway: Gateway) -> None:
    client = gateway.client()
    genuine, fetch = link(gateway), link(gateway, "GET")
    forged = {
        "no link": "",
        "no signature": genuine.partition("&signature")[0],
        "a cut signature": genuine[:-1],
        "no ASCII": genuine[:-1] + "%C3%A4",
        "a later end": genuine.replace("expires=", "expires=9"),
        "a larger limit": genuine.replace("max=1000", "max=9000"),
        "the other method": fetch,
        "another key": link(gateway, key="uploads/job_test/2"),
        "expired": link(gateway, seconds=-1),
        "no numbers": genuine.replace("max=1000", "max=x"),
        "numbers without end": genuine.replace("max=1000", "max=" + "9" * 5_000),
    }
    for name, query in forged.items():
        answer = await client.put(f"/v1/objects/{KEY}?{query}", content=b"x")
        assert (answer.status_code, answer.json()["code"]) == (403, "link_not_valid"), name
    for query in ("", genuine, fetch[:-1], link(gateway, "GET", seconds=-1)):
        assert (await client.get(f"/v1/objects/{KEY}?{query}")).status_code == 403


async def test_more_than_the_link_allows_is_refused(gateway: Gateway) -> None:
    key = "uploads/job_test/large"
    client = gateway.client()
    query = link(gateway, key=key)
    assert (await client.put(f"/v1/objects/{key}?{query}", content=b"x" * 1_001)).status_code == 413
    huge = link(gateway, key=key, limit=10**9)
    answer = await client.put(f"/v1/objects/{key}?{huge}", content=b"x" * 24_000_001)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert (await client.get(f"/v1/objects/{key}?{link(gateway, 'GET', key)}")).status_code == 404


@pytest.mark.parametrize("key", ["", "images", "images/", ".", "uploads/job_test"])
async def test_nothing_can_be_listed(gateway: Gateway, key: str) -> None:
    client = gateway.client()
    assert (await client.get(f"/v1/objects/{key}")).status_code in (403, 404)
    assert (await client.get(f"/v1/objects/{key}?{link(gateway, 'GET', key)}")).status_code in (403, 404)


@pytest.mark.parametrize(
    "key", ["../secret", "images/../../secret", "/etc/passwd", "..%2f..%2fsecret", "a%00b"]
)
async def test_a_path_leads_nowhere_else_even_with_a_signature(gateway: Gateway, key: str) -> None:
    (gateway.settings.data / "secret").write_text("secret")
    from urllib.parse import unquote

    for signed in {key, unquote(key)}:
        answer = await gateway.client().get(f"/v1/objects/{key}?{link(gateway, 'GET', signed)}")
        assert answer.status_code in (403, 404), answer.text
        assert "secret" not in answer.text.replace("secret_", "")
