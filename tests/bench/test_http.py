"""Measuring over HTTP: what is sent is HTTP, callers wait or are on time, and ratios are what they say."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from bench.http import bad, measured
from bench.http_figures import Cpu, beside, row, wrong
from bench.http_load import Ask, Found, Order, ask_all, in_own_process

Handle = Callable[[str, str], bytes]


def _answered(status: str, body: bytes, *headers: bytes) -> bytes:
    lines = [f"HTTP/1.1 {status}".encode(), b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@asynccontextmanager
async def _server(handle: Handle) -> AsyncIterator[int]:
    """A server that answers what `handle` makes of a request's first line and token."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                await reader.readexactly(int(head.partition("Content-Length: ")[2].partition("\r\n")[0]))
                writer.write(
                    handle(head.partition(" HTTP")[0], head.partition("Bearer ")[2].partition("\r\n")[0])
                )
        except asyncio.IncompleteReadError:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


ASK = Ask("accepted", "POST", "/v1/generations", '{"prompt": "a llama"}')


async def test_each_caller_asks_again_when_it_was_answered_and_a_token_is_used_as_often_as_it_may() -> None:
    seen: list[str] = []

    def accept(_: str, token: str) -> bytes:
        seen.append(token)
        return _answered("202 Accepted", json.dumps({"id": f"job_{len(seen)}"}).encode())

    async with _server(accept) as port:
        order = Order(ports=[port], asks=[ASK], tokens=["a", "b"], uses=2, callers=3, seconds=0.05)
        found = await in_own_process(order)
    assert found.answers == {"accepted": {"202": len(seen)}}
    assert len(found.accepted) == len(found.taken_ms["accepted"]) == len(seen) >= 3
    used = Counter(seen)
    assert abs(used["a"] - used["b"]) <= 2, "by turns, two requests each"


async def test_a_poll_asks_for_the_image_of_its_caller() -> None:
    seen: Counter[str] = Counter()

    def answer(line: str, token: str) -> bytes:
        seen[f"{line} {token}"] += 1
        return _answered("200 OK", b"{}")

    async with _server(answer) as port:
        poll = Ask("generation", "GET", "/v1/generations/{job}")
        begun = [("a", "job_a"), ("b", "job_b")]
        await ask_all(Order(ports=[port], asks=[poll], begun=begun, callers=2, seconds=0.02))
    assert set(seen) == {"GET /v1/generations/job_a a", "GET /v1/generations/job_b b"}


async def test_in_the_open_loop_the_time_counts_from_when_a_request_was_due() -> None:
    held: list[float] = []

    def slow_once(_: str, __: str) -> bytes:
        loop = asyncio.get_running_loop()
        if not held:
            held.append(until := loop.time() + 0.2)
            while loop.time() < until:
                pass
        return _answered("200 OK", b"{}")

    async with _server(slow_once) as port:
        ask = Ask("read", "GET", "/v1/account")
        found = await ask_all(Order(ports=[port], asks=[ask], tokens=["a"], callers=1, seconds=0.3, rate=100))
    taken = found.taken_ms["read"]
    assert len(taken) == 30
    assert sum(ms > 50 for ms in taken) >= 10, "those that waited behind the slow one are slow too"


async def test_refusals_are_counted_by_their_codes_and_want_a_time_to_come_again() -> None:
    problem = json.dumps({"code": "too_many_uploads"}).encode()
    head = [b"content-type: application/problem+json", b"retry-after: 2"]
    answers = iter(
        [
            _answered("429 Too Many Requests", problem, *head),
            _answered("429 Too Many Requests", problem, head[0]),
            _answered("503 Service Unavailable", problem.replace(b"too_many", b"no"), *head),
        ]
    )
    async with _server(lambda *_: next(answers, _answered("202 Accepted", b'{"id": "job_1"}'))) as port:
        found = await ask_all(Order(ports=[port], asks=[ASK], tokens=["a"], callers=1, seconds=0.02))
    counted = found.answers["accepted"]
    assert wrong(counted) == {"429 too_many_uploads, no Retry-After": 1, "503 no_uploads": 1}
    assert counted["429 too_many_uploads"] == 1
    assert counted["202"] == len(found.taken_ms["accepted"]) == len(found.accepted)


def test_only_good_answers_count_and_ratios_compare_with_the_bare_frame() -> None:
    taken = {"bare": [1.0] * 2000}
    bare = row(Found(seconds=2.0, answers={"bare": {"201": 2000}}, taken_ms=taken), Cpu(1.0, 1.2))
    taken = {"accepted": [10.0] * 199 + [90.0]}
    answers = {"accepted": {"202": 200, "503": 7}}
    asked = row(Found(seconds=2.0, answers=answers, taken_ms=taken), Cpu(1.0, 2.0))
    assert (bare["per_second"], bare["api_cpu_ms"]) == (1000.0, 0.5)
    assert (asked["per_second"], asked["api_cpu_ms"], asked["stack_cpu_ms"]) == (100.0, 5.0, 10.0)
    assert asked["answers"] == {"202": 200, "503": 7}
    assert beside(bare, asked) == {"rate_to_bare": 0.1, "api_cpu_to_bare": 10.0}


@pytest.mark.thorough
async def test_a_short_run_on_a_real_stack_accepts_everything_and_loses_nothing() -> None:
    found = await measured(["closed", "mix", "open"], [1, 4], 0.3)
    assert bad(found) == []
    assert [case["callers"] for case in found["closed"]] == [1, 4]
    assert all(case["asked"]["per_second"] > 0 < case["spins_per_second"] for case in found["closed"])
    assert set(found["mix"]["by_kind"]) == {"accepted", "account", "statement", "generation"}
    assert found["mix"]["frames"] > 0
    assert found["open"]["four_times"]["lost"] == 0
    assert found["open"]["four_times"]["stack_cpu_ms"] > found["open"]["four_times"]["api_cpu_ms"] > 0
