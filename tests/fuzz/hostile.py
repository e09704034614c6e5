"""What others may send: right answers with something wrong in them, and what is no answer at all."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx
import msgspec
from hypothesis import strategies as st

TEXTS = st.sampled_from(
    ["", "\x00", "a\x00b", "\ud800", "é", "\u202e", "-1", "1e999", "NaN", "x" * 400, "0" * 64, "００"]
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 1, 2**31, 2**32, 2**53, 2**63, 2**64, -(2**63), 10**30, 10**400]),
    st.sampled_from([0.0, -0.5, 1e308, float("inf"), float("nan")]),
    TEXTS,
    st.text(max_size=20),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
LONG = {
    "lists without end": b"[" * 20_000,
    "objects without end": b'{"a":' * 8_000,
    "nested lists": b"[" * 5_000 + b"]" * 5_000,
    "nested objects": b'{"data":' * 2_000 + b"1" + b"}" * 2_000,
    "a number of many digits": b"9" * 5_000,
}
"""By name, because a failure shows what was drawn."""
NESTED = st.sampled_from(sorted(LONG)).map(LONG.__getitem__)
JUNK = st.one_of(st.binary(max_size=60), NESTED, st.sampled_from([b"", b"null", b"[]", b"{}", b'"', b"\xff"]))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a document."""
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))


def changed(value: Any, path: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    """The document with something else at this place."""
    if not path:
        return change(value)
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(value[path[0]], path[1:], change)
    return copy


def _without(value: Any, path: tuple[Any, ...]) -> Any:
    def drop(holder: Any) -> Any:
        if isinstance(holder, dict):
            return {key: inner for key, inner in holder.items() if key != path[-1]}
        return [inner for index, inner in enumerate(holder) if index != path[-1]]

    return changed(value, path[:-1], drop)


@st.composite
def spoiled(draw: st.DrawFn, *samples: Any) -> Any:
    """One of these documents with up to three places left out or holding something else."""
    value = draw(st.sampled_from(samples))
    for _ in range(draw(st.integers(0, 3))):
        path = draw(st.sampled_from(list(places(value))))
        if path and draw(st.booleans()):
            value = _without(value, path)
        else:
            replacement = draw(VALUES)
            value = changed(value, path, lambda _, found=replacement: found)
    return value


def bodies(*samples: Any) -> st.SearchStrategy[bytes]:
    """What a server may answer with: spoiled JSON, half of it, or no JSON."""
    written = spoiled(*samples).map(_json)
    halves = st.tuples(written, st.integers(0, 100)).map(
        lambda pair: pair[0][: len(pair[0]) * pair[1] // 100]
    )
    return st.one_of(written, written, halves, JUNK)


def whole_bodies(*samples: Any) -> list[dict[str, Any]]:
    """Each of these documents as it is, answered with 200."""
    return [{"body": _json(sample), "status": 200} for sample in samples]


def _json(value: Any) -> bytes:
    """With NaN, lone surrogates and numbers of any length, as some write it."""
    return json.dumps(value).encode()


def server(answer: Callable[[httpx.Request], bytes] | bytes, status: int = 200) -> httpx.AsyncClient:
    """A client of a server that answers so."""

    def handle(request: httpx.Request) -> httpx.Response:
        body = answer if isinstance(answer, bytes) else answer(request)
        return httpx.Response(status, content=body, headers={"content-type": "application/json"})

    return httpx.AsyncClient(transport=httpx.MockTransport(handle), base_url="http://node.test")


def rpc_answer(request: httpx.Request, result: Any) -> bytes:
    """The same result for every call of a JSON-RPC batch."""
    calls = msgspec.json.decode(request.content)
    return _json([{"id": call["id"], "error": None, "result": result} for call in calls])


Question = Callable[[], Awaitable[Any]]


def answered(runner: asyncio.Runner, question: Question, *named: type[Exception]) -> Any:
    """The answer; None if it was refused by one of these names."""

    async def ask() -> Any:
        with contextlib.suppress(*named):
            return await question()

    return runner.run(ask())
