"""What is sent is refused: a problem, nothing changed, nothing of it repeated."""

from __future__ import annotations

from typing import Any

import httpx

JSON = {"Content-Type": "application/json"}
MARK = "the-artist-never-said-this-aloud"
"""Part of what is sent; no log may quote it."""


def raw(name: str, value: str) -> dict[bytes, bytes]:
    """A header that need not be ASCII."""
    return {name.encode(): value.encode("latin-1")}


async def shown(client: httpx.AsyncClient) -> dict[str, Any]:
    """An account; today's allowance that nobody has used yet is granted at the moment of asking."""
    account: dict[str, Any] = (await client.get("/v1/account")).json()
    for lot in account["lots"]:
        lot.pop("granted_at")
    return account


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check that an answer is this problem, and nothing but a problem."""
    assert answer.status_code == status, answer.text[:500]
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-request-id"].startswith("req_")
    document: dict[str, Any] = answer.json()
    assert (document["status"], document["code"]) == (status, code)
    assert document["type"] == f"https://llamasketch.com/problems/{code}"
    assert document["title"]
    assert document["detail"]
    assert MARK not in answer.text
    return document
