"""Every operation, with what no client sends by mistake: none of it is our fault, and each refusal is a problem."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx
import pytest

from tests.fuzz.hostile import LONG, changed, places
from tests.gateway.conftest import Logged
from tests.gateway.stack import Gateway, generation_request, registration

JSON = "application/json"
METHODS = ("get", "post", "put", "patch", "delete")
ENDING = ("DELETE /v1/session", "DELETE /v1/sessions")
"""They end the credentials that the others need, and are tried last."""
VALUES: tuple[Any, ...] = (
    "\x00", "a\x00b", "\ud800", "\udfff\ud800", "\u202e", "", "x" * 5_000, "９", "é", "NaN", "1e999", "-0",
    None, True, [], {}, [[]], {"": ""}, 0, -1, 2**31, 2**53, 2**63, 2**64, 10**400, 1.5, 1e308, float("nan"), float("inf"),
)  # fmt: skip
TEXTS = ("%00", "a%00b", "%ED%A0%80", "%FF", "%C0%80", "..%2F..", "%2E%2E", "x" * 3_000, "%EF%BC%99", "-1", "9" * 400, "NaN",
         "%25%30%30", "%0A", "%20", "%", "null")  # fmt: skip
HEADERS = (
    "authorization", "cookie", "idempotency-key", "last-event-id", "origin", "accept", "accept-encoding", "range",
    "x-forwarded-for", "x-forwarded-proto", "forwarded", "x-request-id", "if-none-match", "content-encoding",
    "fake-signature", "stripe-signature", "user-agent", "sec-fetch-site",
)  # fmt: skip
HEADER_VALUES = (
    b"\xff\xfe", b"\xc3\xa9", b"\xed\xa0\x80", b"", b"a" * 4_000, b"Bearer \xff", b"Bearer", b"9" * 400, b"-1", b"%00",
    b"=;=;,", b'"', b"[::", b"bytes=0-99999999999999999999",
)  # fmt: skip

QUICK, MORE, ALL = 31, 7, 1
"""One of so many is tried, of each operation others."""


class Operation(NamedTuple):
    """One of the document's, with a body that fits it if it takes one."""

    method: str
    path: str
    queries: tuple[str, ...]
    body: Any

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"


class Attack(NamedTuple):
    """What is sent; by its name in the report."""

    name: str
    path: str
    content: bytes | None
    headers: Mapping[bytes, bytes]


def operations(document: Mapping[str, Any]) -> list[Operation]:
    """All of them, those that end credentials last."""
    found = []
    for path, methods in document["paths"].items():
        for method in METHODS:
            if method in methods:
                queries = [
                    one["name"] for one in methods[method].get("parameters", ()) if one["in"] == "query"
                ]
                found.append(Operation(method.upper(), path, tuple(queries), body_of(path, methods[method])))
    return sorted(found, key=lambda operation: operation.name in ENDING)


def body_of(path: str, method: Mapping[str, Any]) -> Any:
    """Something that fits: small, and quick to answer."""
    known = {
        "/v1/generations": generation_request(live=True, session_id="sweep", seq=1),
        "/v1/worker/claim": {"wait_seconds": 0},
        "/v1/worker/register": registration("t" * 40),
    }
    if "requestBody" not in method:
        return None
    content = method["requestBody"]["content"].get(JSON, {})
    examples = [one["value"] for one in content.get("examples", {}).values()]
    return known.get(path) or content.get("example") or (examples[0] if examples else {})


def attacks(operation: Operation) -> Iterator[Attack]:
    """Every kind of them on every place of this operation."""
    plain = operation.path.replace("{", "").replace("}", "")
    as_json = {b"content-type": JSON.encode()}
    genuine = None if operation.body is None else json.dumps(operation.body).encode()
    for part in operation.path.split("/"):
        if part.startswith("{"):
            for text in TEXTS:
                path = operation.path.replace(part, text).replace("{", "").replace("}", "")
                yield Attack(f"path {text[:20]}", path, genuine, as_json)
    for query in (*operation.queries, "no-such"):
        for text in TEXTS:
            yield Attack(f"{query}={text[:20]}", f"{plain}?{quote(query)}={text}", genuine, as_json)
    for header, value in itertools.product(HEADERS, HEADER_VALUES):
        headers = {**as_json, header.encode(): value}
        yield Attack(f"{header}: {value[:20]!r}", plain, genuine, headers)
    if operation.method != "GET":
        yield from _bodies(plain, operation.body)


def _bodies(path: str, body: Any) -> Iterator[Attack]:
    genuine = json.dumps(body if body is not None else {})
    raw = {
        "nothing": b"",
        "UTF-16": genuine.encode("utf-16"),
        "UTF-32": genuine.encode("utf-32"),
        "a mark before it": b"\xef\xbb\xbf" + genuine.encode(),
        "no UTF-8": b'{"a": "\xff\xed\xa0\x80"}',
        "two of everything": (genuine[:-1] + ", " + genuine[1:]).encode()
        if len(genuine) > 2
        else b'{"a":1,"a":2}',
        "half of it": genuine.encode()[: len(genuine) // 2],
        "something behind it": genuine.encode() + b"}",
        "a digit too many": b'{"a": 1' + b"0" * 5_000 + b"}",
        "infinity": b"[Infinity, -Infinity, NaN]",
        **LONG,
    }
    for name, content in raw.items():
        yield Attack(name, path, content, {b"content-type": JSON.encode()})
    for kind in ("", "text/plain", "application/json; charset=utf-16", "multipart/form-data", "application/x-ndjson",
                 "application/json, text/html", "\xff"):  # fmt: skip
        headers = {b"content-type": kind.encode("latin-1")}
        yield Attack(f"as {kind!r}", path, genuine.encode(), headers)
    for place in places(body) if body is not None else ():
        for value in VALUES:
            content = json.dumps(changed(body, place, lambda _, found=value: found)).encode()
            yield Attack(f"{place} = {str(value)[:20]!r}", path, content, {b"content-type": JSON.encode()})


async def test_nothing_that_can_be_sent_is_our_fault(gateway: Gateway, logged: Logged) -> None:
    assert await swept(gateway, logged, QUICK) > 700


@pytest.mark.thorough
async def test_nothing_of_twice_as_much_is_our_fault(gateway: Gateway, logged: Logged) -> None:
    assert await swept(gateway, logged, MORE) > 1_500


@pytest.mark.slow_suite
async def test_nothing_of_all_of_it_is_our_fault(gateway: Gateway, logged: Logged) -> None:
    assert await swept(gateway, logged, ALL) > 10_000


async def swept(gateway: Gateway, logged: Logged, share: int) -> int:
    """Try them all, or one of so many; returns how many."""
    visitor, worker = await gateway.visitor(), await gateway.worker("sweep")
    document = (await visitor.get("/v1/openapi.json")).json()
    lines, wrong, count = len(logged.lines), [], 0
    for turn, operation in enumerate(operations(document)):
        client = worker.client if operation.path.startswith("/v1/worker") else visitor
        for attack in itertools.islice(attacks(operation), turn % share, None, share):
            count += 1
            if fault := await _fault(client, operation.method, attack):
                wrong.append((operation.name, attack.name, fault))
    assert wrong == []
    reported = "\n".join(logged.lines[lines:])
    assert "request_failed" not in reported
    assert "Traceback" not in reported
    return count


async def _fault(client: httpx.AsyncClient, method: str, attack: Attack) -> str | None:
    """What is wrong with the answer; None if nothing is."""
    headers = [(b"authorization", client.headers["authorization"].encode())]
    headers = [one for one in headers if one[0] not in attack.headers] + list(attack.headers.items())
    async with client.stream(method, attack.path, content=attack.content, headers=headers) as answer:
        if answer.status_code < 400:
            if not attack.path.startswith("/v1/events"):  # which does not end
                await answer.aread()
            return None
        kind = answer.headers.get("content-type")
        document = json.loads(await answer.aread())
        if answer.status_code >= 500 or kind != "application/problem+json":
            return f"{answer.status_code} {kind} {document}"
        return None if document["status"] == answer.status_code and document["code"] else f"{document}"
