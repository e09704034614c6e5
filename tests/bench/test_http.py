"""Measuring over HTTP: what is sent is HTTP, callers wait for their answers, and ratios are what they say."""

from __future__ import annotations

import asyncio
from collections import Counter

from bench.http import Figures, beside, closed_loop
from bench.http_client import Answer, Connection, written


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server that accepts everything and sends back the body."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
            body = await reader.readexactly(length)
            writer.write(b"HTTP/1.1 202 Accepted\r\ncontent-length: %d\r\n\r\n%s" % (length, body))
    except asyncio.IncompleteReadError:
        writer.close()


async def test_each_caller_asks_again_when_it_was_answered() -> None:
    bodies: list[bytes] = []

    async def ask(connection: Connection) -> Answer:
        answer = await connection.ask(written("POST", "/v1/generations", "token", b'{"prompt": "a llama"}'))
        bodies.append(answer.body)
        return answer

    async with await asyncio.start_server(_echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        statuses, taken = await closed_loop(port, 3, 0.05, ask)
    assert set(statuses) == {202}
    assert statuses[202] == len(taken) == len(bodies) >= 3
    assert set(bodies) == {b'{"prompt": "a llama"}'}


def test_only_wanted_answers_count_and_ratios_compare_with_the_bare_frame() -> None:
    bare = Figures(2.0, Counter({201: 2000}), [1.0] * 2000, 1.0, 1.2, 0.5).row(201)
    accepted = Figures(2.0, Counter({202: 200, 503: 7}), [10.0] * 206 + [90.0], 1.0, 2.0, 0.2).row(202)
    assert (bare["per_second"], bare["api_cpu_ms"]) == (1000.0, 0.5)
    assert (accepted["per_second"], accepted["api_cpu_ms"], accepted["stack_cpu_ms"]) == (100.0, 5.0, 10.0)
    assert accepted["answers"] == {"202": 200, "503": 7}
    assert beside(bare, accepted) == {"rate_to_bare": 0.1, "api_cpu_to_bare": 10.0}
