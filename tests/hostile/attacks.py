"""What a stranger without money does to a server, by plain sockets; each attack says what the server answered."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

READ_MAX = 65_536


@dataclass(frozen=True, slots=True)
class Target:
    """A server, and the addresses that we attack from (all of this machine)."""

    host: str
    port: int
    tokens: tuple[str, ...] = ()
    """Of visitors, who are free."""
    source: str = "127.0.0.1"


@dataclass(slots=True)
class Outcome:
    """What an attack has met: answers by status, connections that were ended, and bytes that we could send."""

    statuses: Counter[int] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    closed: int = 0
    sent_bytes: int = 0
    reached: int = 0
    """Of what is bounded and an attack wants too much of: the most that there was at once."""

    def answered(self, data: bytes) -> None:
        """Count the first answer in what came back."""
        status = status_of(data)
        if status:
            self.statuses[status] += 1
            with contextlib.suppress(ValueError, TypeError, KeyError):
                self.codes[json.loads(data.partition(b"\r\n\r\n")[2])["code"]] += 1
        else:
            self.closed += 1


def status_of(data: bytes) -> int:
    """The status of an answer, 0 if there is none."""
    parts = data.split(b" ", 2)
    return int(parts[1]) if len(parts) > 1 and data.startswith(b"HTTP/1.1") else 0


@contextlib.asynccontextmanager
async def connected(target: Target) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection, ended without ceremony."""
    reader, writer = await asyncio.open_connection(target.host, target.port, local_addr=(target.source, 0))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def read_answer(reader: asyncio.StreamReader, seconds: float = 30.0) -> bytes:
    """All that comes until the other side ends it, or the time is over."""
    found = b""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(seconds):
            while len(found) < READ_MAX and (part := await reader.read(READ_MAX)):
                found += part
                if b"\r\n\r\n" in found and b"content-length: 0" in found.lower():
                    break
    return found


def head(method: str, path: str, *fields: str) -> bytes:
    """The head of a request."""
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: localhost", *fields, "", "")).encode()


async def _send(writer: asyncio.StreamWriter, data: bytes, outcome: Outcome) -> bool:
    try:
        writer.write(data)
        await writer.drain()
    except OSError:
        return False
    outcome.sent_bytes += len(data)
    # `drain` returns at once while there is room: without a turn of the loop, nobody would read what comes back
    # before the other side has had enough and resets the connection, which throws the answer away.
    await asyncio.sleep(0)
    return not writer.transport.is_closing()


async def endless(target: Target, begin: bytes, part: bytes, times: int) -> Outcome:
    """Send a beginning and then the same part many times, until the other side has had enough."""
    outcome = Outcome()
    async with connected(target) as (reader, writer):
        answer = asyncio.create_task(read_answer(reader))
        await _send(writer, begin, outcome)
        for _ in range(times):
            if answer.done() or not await _send(writer, part, outcome):
                break
        outcome.answered(await answer)
    return outcome


async def many_headers(target: Target) -> Outcome:
    """120 MB of headers."""
    line = b"X-Padding: " + b"a" * 60_000 + b"\r\n"
    return await endless(target, head("GET", "/health")[:-2], line, 2000)


async def one_header(target: Target) -> Outcome:
    """One header of 120 MB."""
    return await endless(target, head("GET", "/health")[:-2] + b"X-Padding: ", b"a" * 60_000, 2000)


async def many_fields(target: Target) -> Outcome:
    """Ten thousand headers of three bytes."""
    return await endless(target, head("GET", "/health")[:-2], b"a: b\r\n" * 100, 100)


async def long_address(target: Target) -> Outcome:
    """An address of a megabyte."""
    return await endless(target, b"GET /", b"a" * 10_000, 100)


async def endless_trailers(target: Target) -> Outcome:
    """A chunked body of one byte, and 100 MB of fields behind it."""
    fields = (*_as_visitor(target), "Transfer-Encoding: chunked", "Content-Type: application/json")
    begin = head("POST", "/v1/generations", *fields) + b"1\r\n{\r\n0\r\n"
    return await endless(target, begin, b"T: " + b"a" * 30_000 + b"\r\n", 3000)


async def endless_extensions(target: Target) -> Outcome:
    """A chunk whose size never ends."""
    fields = (*_as_visitor(target), "Transfer-Encoding: chunked", "Content-Type: application/json")
    return await endless(
        target, head("POST", "/v1/generations", *fields) + b"1;", b"e=" + b"a" * 30_000, 3000
    )


async def tiny_chunks(target: Target) -> Outcome:
    """Six million chunks of a byte each."""
    fields = (*_as_visitor(target), "Transfer-Encoding: chunked", "Content-Type: application/json")
    return await endless(target, head("POST", "/v1/generations", *fields), b"1\r\n \r\n" * 1000, 6000)


async def pipelined(target: Target) -> Outcome:
    """Thousands of requests in one breath."""
    return await endless(target, b"", head("GET", "/health") * 500, 40)


async def parsed_body(target: Target, *, path: str = "/v1/generations", token: str = "") -> Outcome:
    """6 MB of `[[],…]`, without a token or with one."""
    body = b"[" + b"[]," * 1_999_000 + b"[]]"
    fields = [f"Content-Length: {len(body)}", "Content-Type: application/json", "Connection: close"]
    fields += [f"Authorization: Bearer {token}"] if token else []
    return await endless(target, head("POST", path, *fields), body, 1)


async def held_open(
    target: Target,
    count: int,
    begin: bytes,
    drip: bytes = b"",
    *,
    seconds: float = 0.0,
    every: float = 0.25,
    opened: Callable[[], None] = lambda: None,
) -> Outcome:
    """As many connections that send a beginning, then now and then a byte, for as long as they are let."""
    outcome = Outcome()
    until = time.monotonic() + seconds

    async def hold() -> None:
        try:
            async with connected(target) as (reader, writer):
                answer = asyncio.create_task(read_answer(reader, max(0.1, until - time.monotonic())))
                await _send(writer, begin, outcome)
                opened()
                while drip and not answer.done():
                    await asyncio.wait([answer], timeout=every)
                    if not answer.done() and not await _send(writer, drip, outcome):
                        break
                outcome.answered(await answer)
        except OSError:
            outcome.closed += 1

    await asyncio.gather(*(hold() for _ in range(count)))
    return outcome


async def streams(
    target: Target, count: int, *, opened: Callable[[], None] | None = None, until: Awaitable[object]
) -> Outcome:
    """As many event streams, shared out among the visitors, held until told otherwise."""
    outcome, leaving = Outcome(), asyncio.ensure_future(until)

    async def hold(token: str) -> None:
        with contextlib.suppress(OSError):
            async with connected(target) as (reader, writer):
                await _send(writer, head("GET", "/v1/events", f"Authorization: Bearer {token}"), outcome)
                data = await reader.read(READ_MAX)
                outcome.answered(data)
                if status_of(data) == 200:
                    if opened is not None:
                        opened()
                    rest = asyncio.create_task(read_answer(reader, 3600))
                    await asyncio.wait([rest, leaving], return_when=asyncio.FIRST_COMPLETED)
                    rest.cancel()

    await asyncio.gather(*(hold(target.tokens[n % len(target.tokens)]) for n in range(count)))
    return outcome


async def unread(target: Target, path: str, seconds: float) -> Outcome:
    """Ask for much, again and again on one connection, and read nothing of it."""
    outcome, loop = Outcome(), asyncio.get_running_loop()
    with socket.socket() as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.setblocking(False)
        await loop.sock_connect(plain, (target.host, target.port))
        until = time.monotonic() + seconds
        try:
            while time.monotonic() < until:
                await loop.sock_sendall(plain, head("GET", path))
                outcome.sent_bytes += 1
                await asyncio.wait([loop.create_future()], timeout=0.05)
        except OSError:
            outcome.closed += 1
    return outcome


def asked(target: Target, path: str, seconds: float) -> int:
    """The status that somebody honest gets, 0 for none. It waits: call it in a thread."""
    address = (target.host, target.port)
    with (
        contextlib.suppress(OSError),
        socket.create_connection(address, seconds, source_address=(target.source, 0)) as plain,
    ):
        plain.sendall(head("GET", path, "Connection: close"))
        return status_of(plain.recv(READ_MAX))
    return 0


def _as_visitor(target: Target) -> tuple[str, ...]:
    return (f"Authorization: Bearer {target.tokens[0]}",) if target.tokens else ()


def rss_bytes(pid: int) -> int:
    """What a process has in memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    return 0


def cpu_seconds(pid: int) -> float:
    """What a process has spent, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def descriptors(pid: int) -> int:
    """How many files and sockets a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
