"""All attacks of strangers on the real program: `python -m gateway.serve` in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from sandbox.embedded.ports import free_port
from tests.gateway.stack import SECRET_KEY, generation_request
from tests.hostile import attacks
from tests.hostile.attacks import Target, connected, cpu_seconds, descriptors, head, read_answer, rss_bytes
from tests.waiting import SECONDS_MAX, eventually, until

ROOT = Path(__file__).parents[2]
HEADER_SECONDS = 2
BODY_SECONDS = 3
ADDRESS_MAX = 300
DESCRIPTORS = 700
"""Fewer than the attacks bring connections: the program may not have more."""
MEGABYTE = 1_000_000
STREAMS_MAX = 60
TRIES = 3


@dataclass(frozen=True)
class Served:
    """The program, and somebody honest."""

    target: Target
    pid: int
    log: Path

    async def honest(self) -> None:
        """A newcomer gets an answer."""
        # In a thread: the loop here is busy with attacking, and somebody honest sends at once.
        assert await asyncio.to_thread(attacks.asked, self.target, "/v1/session", SECONDS_MAX) == 200

    async def spends_less_than(self, seconds: float, attack: Callable[[], Awaitable[None]]) -> None:
        """The program's processor time for an attack; a virtual machine may charge for its stalls, but not each time."""
        for _ in range(TRIES):
            before = cpu_seconds(self.pid)
            await attack()
            if cpu_seconds(self.pid) - before < seconds:
                return
        raise AssertionError(f"{TRIES} times it spent {seconds} seconds and more")

    def faults(self) -> list[str]:
        """What the log calls our fault."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("level") in ("error", "critical")]


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))


@pytest.fixture(scope="module")
def program(
    migrated: str,
    make_database: Callable[..., str],
    valkey_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[int, int, Path]]:
    folder, port = tmp_path_factory.mktemp("hostile"), free_port()
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
        "DATABASE_URL": make_database(migrated),
        "REDIS_URL": valkey_url,
        "LLAMASKETCH_ENVIRONMENT": "embedded",
        "LLAMASKETCH_SECRET_KEY": SECRET_KEY,
        "LLAMASKETCH_DATA": str(folder),
        "LLAMASKETCH_PUBLIC_URL": f"http://127.0.0.1:{port}",
        "LLAMASKETCH_REQUESTS_PER_MINUTE_NETWORK": "100000",
        "LLAMASKETCH_HEADER_SECONDS": str(HEADER_SECONDS),
        "LLAMASKETCH_BODY_SECONDS": str(BODY_SECONDS),
        "LLAMASKETCH_UNREAD_SECONDS": "1",
        "LLAMASKETCH_CONNECTIONS_ADDRESS": str(ADDRESS_MAX),
        "LLAMASKETCH_STREAMS_ADDRESS": str(STREAMS_MAX),
        "LLAMASKETCH_TRUSTED_PROXIES": "127.0.0.77",
    }
    log = folder / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway.serve", "--port", str(port)],
            cwd=ROOT,
            env=environment,
            stdout=file,
            stderr=file,
            preexec_fn=limited,  # noqa: PLW1509 - no threads hold locks here
        )
    try:
        yield port, process.pid, log
    finally:
        process.terminate()
        process.wait(SECONDS_MAX)


@pytest.fixture(scope="module")
async def served(program: tuple[int, int, Path]) -> Served:
    port, pid, log = program
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:

        async def answers() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return (await client.get("/v1/session")).status_code == 200
            return False

        await until(answers, lambda there: there, "the program serves", seconds_max=60)
        tokens = [(await client.post("/v1/visitors")).json()["token"] for _ in range(50)]
    return Served(Target("127.0.0.1", port, tuple(tokens)), pid, log)


HEADS = {
    "120 MB of headers": (attacks.many_headers, 431, "headers_too_large"),
    "one header of 120 MB": (attacks.one_header, 431, "headers_too_large"),
    "ten thousand headers": (attacks.many_fields, 431, "headers_too_large"),
    "an endless address": (attacks.long_address, 414, "address_too_long"),
}


@pytest.mark.parametrize(("attack", "status", "code"), HEADS.values(), ids=HEADS)
async def test_heads_without_end_are_refused_early(
    served: Served, attack: Callable[[Target], object], status: int, code: str
) -> None:
    before = rss_bytes(served.pid)
    outcome = await attack(served.target)  # type: ignore[misc]
    assert (dict(outcome.statuses), dict(outcome.codes)) == ({status: 1}, {code: 1})
    assert outcome.sent_bytes < 50 * MEGABYTE
    assert rss_bytes(served.pid) - before < 20 * MEGABYTE
    await served.honest()


BODIES = {
    "endless trailers": attacks.endless_trailers,
    "a chunk whose size never ends": attacks.endless_extensions,
    "six million chunks": attacks.tiny_chunks,
}


@pytest.mark.parametrize("attack", BODIES.values(), ids=BODIES)
async def test_bodies_that_are_mostly_framing_are_refused_early(
    served: Served, attack: Callable[[Target], object]
) -> None:
    async def once() -> None:
        before = rss_bytes(served.pid)
        outcome = await attack(served.target)  # type: ignore[misc]
        assert set(outcome.statuses) <= {400, 413, 422, 431}
        assert outcome.sent_bytes < 50 * MEGABYTE
        assert rss_bytes(served.pid) - before < 20 * MEGABYTE

    await served.spends_less_than(1, once)
    await served.honest()


async def test_requests_are_not_queued_without_end_on_one_connection(served: Served) -> None:
    before = rss_bytes(served.pid)
    outcome = await attacks.pipelined(served.target)
    assert outcome.sent_bytes < 30 * MEGABYTE
    assert rss_bytes(served.pid) - before < 20 * MEGABYTE
    await served.honest()


@pytest.mark.parametrize("path", ["/v1/generations", "/v1/topups", "/v1/session", "/v1/worker/claim"])
async def test_a_stranger_has_nothing_parsed(served: Served, path: str) -> None:
    async def once() -> None:
        outcome = await attacks.parsed_body(served.target, path=path)
        assert set(outcome.statuses) <= {401, 413}
        assert outcome.statuses.total() == 1

    await served.spends_less_than(0.4, once)


async def test_a_visitor_has_only_so_much_parsed(served: Served) -> None:
    async def once() -> None:
        outcome = await attacks.parsed_body(served.target, token=served.target.tokens[0])
        assert dict(outcome.codes) == {"body_too_complex": 1}

    await served.spends_less_than(0.5, once)


async def test_silent_sockets_make_room_for_newcomers_and_end(served: Served) -> None:
    holding = asyncio.create_task(attacks.held_open(served.target, 1100, b"", seconds=30))
    for _ in range(20):
        await served.honest()
    outcome = await holding
    assert outcome.closed == 1100
    assert descriptors(served.pid) < DESCRIPTORS - 100
    assert not served.faults()


async def test_half_sent_requests_end_in_time(served: Served) -> None:
    begin = head("GET", "/health")[:-2]
    for _ in range(TRIES):
        holding = asyncio.create_task(attacks.held_open(served.target, 250, begin, b"a: b\r\n", seconds=30))
        await served.honest()
        outcome = await holding
        # A program that gets no turn meanwhile closes what it has not read, and tells it nothing.
        assert outcome.closed + outcome.codes["headers_too_slow"] == 250
        if not outcome.closed:
            break
    assert dict(outcome.codes) == {"headers_too_slow": 250}


async def test_a_slow_body_ends_in_time(served: Served) -> None:
    fields = (f"Authorization: Bearer {served.target.tokens[0]}", "Content-Type: application/json")
    begin = head("POST", "/v1/generations", *fields, "Content-Length: 100000") + b"{"
    for _ in range(TRIES):
        holding = asyncio.create_task(attacks.held_open(served.target, 20, begin, b" ", seconds=30))
        await served.honest()
        outcome = await holding
        assert outcome.closed + outcome.codes["body_too_slow"] == 20
        if not outcome.closed:
            break
    assert dict(outcome.codes) == {"body_too_slow": 20}


async def test_half_an_upload_makes_room_for_newcomers(served: Served) -> None:
    fields = (f"Authorization: Bearer {served.target.tokens[0]}", "Content-Type: application/json")
    begin = head("POST", "/v1/generations", *fields, "Content-Length: 100000") + b"{"
    crowd, opened = ADDRESS_MAX + 50, []
    holding = asyncio.create_task(
        attacks.held_open(served.target, crowd, begin, seconds=30, opened=lambda: opened.append(1))
    )
    # Whoever comes after them is taken after them.
    await eventually(lambda: len(opened) == crowd, "the attack is there")
    for _ in range(10):
        await served.honest()
    outcome = await holding
    # On a busy machine some of the crowd come before the first of it were read: they are refused, not those. And
    # where the program itself gets no turn for HEADER_SECONDS, their heads are late: closed, and told nothing.
    refused = outcome.codes.pop("too_many_connections", 0)
    assert outcome.closed + refused >= 50
    assert set(outcome.codes) <= {"body_too_slow"}
    assert outcome.closed + refused + outcome.codes["body_too_slow"] == crowd


async def test_whoever_reads_no_answers_is_cut_off(served: Served) -> None:
    before = rss_bytes(served.pid)
    outcome = await attacks.unread(served.target, "/v1/openapi.json", SECONDS_MAX)
    assert outcome.closed
    assert rss_bytes(served.pid) - before < 20 * MEGABYTE
    await served.honest()


async def test_a_thousand_streams_leave_room_for_the_rest(served: Served) -> None:
    leave, opened, crowds = asyncio.Event(), list[int](), list[asyncio.Task[attacks.Outcome]]()
    for _ in range(TRIES):
        # The heads of a crowd are late, and those who sent them sent away, where the program gets no turn meanwhile.
        crowd = attacks.streams(served.target, 1000, opened=lambda: opened.append(1), until=leave.wait())
        crowds.append(asyncio.create_task(crowd))
        with contextlib.suppress(AssertionError):
            await eventually(lambda: len(opened) >= STREAMS_MAX, "the streams are open", SECONDS_MAX / TRIES)
            break
    assert len(opened) >= STREAMS_MAX
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{served.target.port}", trust_env=False
    ) as client:

        async def asked(method: str, path: str, **body: Any) -> httpx.Response | None:
            with contextlib.suppress(httpx.TransportError):
                return await client.request(method, path, **body)
            return None

        async def answered(method: str, path: str, **body: Any) -> httpx.Response:
            """Where the machine has much else to do, waits may be too long at first, and idle connections ended."""
            answer = await until(
                lambda: asked(method, path, **body),
                lambda answer: answer is not None and answer.status_code not in (408, 429, 503),
                f"{path} is answered",
            )
            assert answer is not None
            return answer

        begun = await answered("POST", "/v1/visitors")
        assert begun.status_code == 201, begun.text
        client.headers["Authorization"] = f"Bearer {begun.json()['token']}"
        for _ in range(10):
            assert (await answered("GET", "/v1/account")).status_code == 200
        async with client.stream("GET", "/v1/events") as stream:
            assert stream.status_code == 200
            assert "event: account" in await anext(stream.aiter_text())
        assert (await answered("POST", "/v1/generations", json=generation_request())).status_code == 202
    leave.set()
    outcomes = [await crowd for crowd in crowds]
    assert {status for outcome in outcomes for status in outcome.statuses} <= {200, 429, 503}
    assert {"too_many_streams", "streams_busy"} & {code for outcome in outcomes for code in outcome.codes}
    assert not served.faults()


async def test_behind_a_proxy_connections_are_the_proxys_and_people_are_told_apart(served: Served) -> None:
    proxy = replace(served.target, source="127.0.0.77")
    holding = asyncio.create_task(attacks.held_open(proxy, ADDRESS_MAX + 20, b"", seconds=HEADER_SECONDS + 5))
    await served.honest()
    async with connected(proxy) as (reader, writer):
        writer.write(head("GET", "/v1/session", "X-Forwarded-For: 203.0.113.9", "Connection: close"))
        assert attacks.status_of(await read_answer(reader)) == 200
    await holding


async def test_nothing_of_all_this_is_logged_as_our_fault_or_stays(served: Served) -> None:
    await served.honest()
    assert not served.faults()
    assert descriptors(served.pid) < 150
