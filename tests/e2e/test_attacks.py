"""The bounds hold in the tree of `make run` as it is, with nobody's proxy in front."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace

import httpx
import pytest

from tests.e2e.stack import Stack
from tests.hostile import attacks
from tests.hostile.attacks import Outcome, Target, cpu_seconds, head, rss_bytes
from tests.waiting import SECONDS_MAX

# The same attacks as in tests/gateway/test_hostile.py, on the whole stack.
pytestmark = [pytest.mark.slow, pytest.mark.thorough]
MEGABYTE = 1_000_000
SOURCE = "127.0.0.9"
"""Whoever else is tested here comes from another address than the attacker."""

ATTACKS: dict[str, tuple[Callable[[Target], Awaitable[Outcome]], set[int]]] = {
    "120 MB of headers": (attacks.many_headers, {431}),
    "one header of 120 MB": (attacks.one_header, {431}),
    "ten thousand headers": (attacks.many_fields, {431}),
    "an endless address": (attacks.long_address, {414}),
    "endless trailers": (attacks.endless_trailers, {400, 413, 422, 431}),
    "a chunk whose size never ends": (attacks.endless_extensions, {400, 413, 422, 431}),
    "six million chunks": (attacks.tiny_chunks, {400}),
    "thousands of requests on one connection": (attacks.pipelined, {200, 400}),
    "a body without a token": (attacks.parsed_body, {401}),
}


async def target_of(stack: Stack) -> Target:
    async with httpx.AsyncClient(base_url=stack.url, trust_env=False) as client:
        token = (await client.post("/v1/visitors")).json()["token"]
    return Target("127.0.0.1", stack.port, (token,), SOURCE)


async def honest(target: Target, source: str = SOURCE) -> None:
    """A newcomer gets an answer, also from the attacker's own address."""
    # In a thread: the loop here is busy with attacking, and somebody honest sends at once.
    there = replace(target, source=source)
    assert await asyncio.to_thread(attacks.asked, there, "/v1/session", SECONDS_MAX) == 200


@pytest.mark.parametrize("name", ATTACKS)
async def test_an_attack_is_refused_costs_little_and_shuts_nobody_out(stack: Stack, name: str) -> None:
    attack, statuses = ATTACKS[name]
    target, api = await target_of(stack), stack.children()["api"]
    memory, spent = rss_bytes(api), cpu_seconds(api)
    outcome = await attack(target)
    assert set(outcome.statuses) <= statuses
    assert outcome.statuses.total() + outcome.closed == 1
    assert outcome.sent_bytes < 50 * MEGABYTE
    assert rss_bytes(api) - memory < 30 * MEGABYTE
    assert cpu_seconds(api) - spent < 2
    await honest(target)
    assert stack.children()["api"] == api


async def test_crowds_of_connections_leave_room_for_newcomers(stack: Stack) -> None:
    target = await target_of(stack)
    half = head("GET", "/health")[:-2]
    crowds = [
        asyncio.create_task(attacks.held_open(target, 600, begin, drip, seconds=5, every=0.5))
        for begin, drip in ((b"", b""), (half, b"a: b\r\n"))
    ]
    for _ in range(5):
        await honest(target)
        await honest(target, "127.0.0.1")
    await asyncio.gather(*crowds)


async def test_what_free_visitors_send_at_once_is_refused_and_our_fault_is_never_logged(stack: Stack) -> None:
    target = await target_of(stack)
    outcomes = await asyncio.gather(
        *(attacks.parsed_body(target, token=target.tokens[0]) for _ in range(8)),
        *(attacks.many_headers(target) for _ in range(8)),
    )
    assert {status for outcome in outcomes for status in outcome.statuses} <= {413, 431}
    await honest(target)
    lines = [json.loads(line) for line in stack.logged("api").splitlines() if line.startswith("{")]
    assert [line for line in lines if line.get("level") in ("error", "critical")] == []
