"""What strangers do in `llamasketch bench hostile`: each attack once, as `tests/hostile` makes it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import count

import httpx

from generation.domain.requests import Limits
from rails.quotes.quoter import PaymentLimits
from tests.gateway.stack import sketch
from tests.hostile import attacks, races
from tests.hostile.attacks import Outcome, Target, head
from tests.hostile.pictures import corpus, photograph

Attack = Callable[[Target], Awaitable[Outcome]]
CALLERS = 500
"""At the same time."""
FREE_IMAGES = 20
"""Of a visitor, a day."""
FUNDING = {"rail": "lightning"}
TOPUP = {**FUNDING, "credits": 100}


@dataclass(frozen=True, slots=True)
class Plan:
    """An attack that is repeated for some seconds, by several at once; or one that lasts as long by itself."""

    attack: Attack
    at_once: int = 4
    source: str = "127.0.0.1"
    """The attacker's address: mostly the honest visitor's own, which is the harder case for her."""
    bound: int | None = None
    """Of what the attack wants too much of (`Outcome.reached`), the most that it may get."""


def plans(seconds: float) -> dict[str, Plan]:
    """Every attack, by name."""

    async def silent(target: Target) -> Outcome:
        return await attacks.held_open(target, 1100, b"", seconds=seconds)

    async def half_sent(target: Target) -> Outcome:
        return await attacks.held_open(target, 500, head("GET", "/health")[:-2], b"a: b\r\n", seconds=seconds)

    async def slow_bodies(target: Target) -> Outcome:
        fields = (f"Authorization: Bearer {target.tokens[0]}", "Content-Type: application/json")
        begin = head("POST", "/v1/generations", *fields, "Content-Length: 100000") + b"{"
        return await attacks.held_open(target, 300, begin, b" ", seconds=seconds)

    async def streams(target: Target) -> Outcome:
        never = asyncio.get_running_loop().create_future()
        leaving = asyncio.create_task(asyncio.wait([never], timeout=seconds))
        return await attacks.streams(target, 1000, until=leaving)

    visitor = _turns()

    async def caller(target: Target) -> Outcome:
        return await _read(target, _token(target, visitor))

    async def link_topups(target: Target) -> Outcome:
        token = _token(target, visitor)
        return await races.link_topups(target, token, await races.link_of(target, token), TOPUP)

    def crowd(attack: Callable[..., Awaitable[Outcome]], bound: int, *wanted: races.Body) -> Plan:
        return Plan(lambda target: attack(target, _token(target, visitor), *wanted), 1, bound=bound)

    limits = PaymentLimits()
    return {
        "poisonous_sketch": Plan(lambda target: _asked(target, _token(target, visitor), [_noise()])),
        "hostile_pictures": Plan(lambda target: _asked(target, _token(target, visitor), _hostile())),
        "headers_120_mb": Plan(attacks.many_headers),
        "one_header_120_mb": Plan(attacks.one_header),
        "trailers_100_mb": Plan(attacks.endless_trailers),
        "tiny_chunks": Plan(attacks.tiny_chunks),
        "pipelined": Plan(attacks.pipelined),
        "body_without_token": Plan(attacks.parsed_body),
        "body_of_a_visitor": Plan(lambda target: attacks.parsed_body(target, token=target.tokens[0])),
        "silent_sockets": Plan(silent, 1),
        "half_sent_requests": Plan(half_sent, 1),
        "slow_bodies": Plan(slow_bodies, 1),
        "streams": Plan(streams, 1),
        "asked_and_cancelled": Plan(
            lambda target: _asked(target, _token(target, visitor), [_line()], cancel=True)
        ),
        "callers_500": Plan(caller, CALLERS, "127.0.0.2"),
        "callers_500_at_her_address": Plan(caller, CALLERS),
        "topups_at_once": crowd(races.topups, limits.open_per_account, TOPUP),
        "unpaid_images_at_once": crowd(races.unpaid_images, Limits().paid_apart_account, FUNDING),
        "link_topups_at_once": Plan(link_topups, 1, bound=limits.open_by_links),
        "cancels_of_one_key_at_once": crowd(races.cancels_of_one_key, 1),
        "cancels_at_once": crowd(races.cancels, FREE_IMAGES),
    }


def prepare() -> None:
    """Make the files that are sent: an attacker has done that before."""
    _noise(), _hostile(), _line()


def _turns() -> Iterator[int]:
    return count()


def _token(target: Target, turns: Iterator[int]) -> str:
    return target.tokens[next(turns) % len(target.tokens)]


@cache
def _noise() -> bytes:
    """The sketch that nothing can compress: it was stored as 27.7 MB, and every worker that fetched it was blamed."""
    return _body(photograph(3100, quality=30), "image/jpeg")


@cache
def _line() -> bytes:
    """An honest file of a megabyte, to fill the disk with."""
    return _body(photograph(1900, quality=30, seed=2), "image/jpeg")


@cache
def _hostile() -> tuple[bytes, ...]:
    return tuple(_body(file.data, file.content_type) for file in corpus())


def _body(data: bytes, content_type: str) -> bytes:
    return json.dumps({"prompt": "x", "sketch": sketch(data, content_type)}).encode()


async def _asked(
    target: Target, token: str, bodies: tuple[bytes, ...] | list[bytes], *, cancel: bool = False
) -> Outcome:
    """Images asked for by a free visitor, and taken back where that is the attack."""
    outcome = Outcome()
    fields = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    base = f"http://{target.host}:{target.port}"
    async with httpx.AsyncClient(base_url=base, headers=fields, trust_env=False, timeout=60) as client:
        for body in bodies:
            answer = await client.post("/v1/generations", content=body)
            outcome.statuses[answer.status_code] += 1
            outcome.sent_bytes += len(body)
            if cancel and answer.status_code == 202:
                await client.delete(f"/v1/generations/{answer.json()['id']}")
    return outcome


async def _read(target: Target, token: str) -> Outcome:
    """A balance asked for, on a connection of its own."""
    outcome = Outcome()
    try:
        async with attacks.connected(target) as (reader, writer):
            writer.write(head("GET", "/v1/account", f"Authorization: Bearer {token}", "Connection: close"))
            outcome.answered(await attacks.read_answer(reader, 60))
    except OSError:
        outcome.closed += 1
    return outcome
