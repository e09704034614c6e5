"""What is refused or thrown away is read slowly, and nobody's framing holds up the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, cast

import pytest
import uvicorn
from uvicorn.server import ServerState

from gateway.auth.networks import Origins
from gateway.bounds.connections import ConnectionLimits, Connections
from gateway.bounds.pace import BURST_SECONDS, NETWORKS_MAX, SITE_FACTOR, WAIT_SECONDS_MAX, Pace
from gateway.bounds.protocol import SLICE_BYTES, BoundedProtocol
from sandbox.embedded.ports import free_port
from tests.hostile import attacks
from tests.hostile.attacks import Target, connected, head, read_answer, status_of
from tests.waiting import SECONDS_MAX, eventually

MEGABYTE = 1_000_000
LIMITS = ConnectionLimits(
    connections=1000,
    connections_address=1000,
    connections_site=1000,
    header_bytes=32_768,
    header_fields=100,
    header_seconds=60,
    idle_seconds=60,
    idle_seconds_proxy=60,
    unread_seconds=60,
    refusals_per_second=2,
    requests_at_once_address=4,
)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


# --- who waits, and for how long ---


def test_a_network_is_free_for_a_burst_waits_then_and_is_forgiven() -> None:
    clock = Clock()
    pace, networks = Pace(10, clock), ("192.0.2.1/32", "192.0.2.0/24")
    pace.spend(networks, 10 * BURST_SECONDS)
    assert pace.wait_seconds(networks) == 0
    pace.spend(networks, 5)
    assert pace.wait_seconds(networks) == pytest.approx(0.5)
    clock.now += 0.5
    assert pace.wait_seconds(networks) == 0


def test_nobody_waits_longer_than_somebody_honest_behind_the_same_address_can_bear() -> None:
    clock = Clock()
    pace = Pace(10, clock)
    pace.spend(("a", "site"), 1_000_000)
    assert pace.wait_seconds(("a", "site")) == pytest.approx(WAIT_SECONDS_MAX)
    clock.now += WAIT_SECONDS_MAX
    assert pace.wait_seconds(("a", "site")) == 0


def test_a_neighbour_waits_only_where_the_whole_site_has_had_too_much() -> None:
    pace = Pace(10, Clock())
    pace.spend(("a", "site"), 40)
    assert pace.wait_seconds(("b", "site")) == 0
    for number in range(SITE_FACTOR):
        pace.spend((str(number), "site"), 40)
    assert pace.wait_seconds(("b", "site")) > 0
    assert pace.wait_seconds(("c", "elsewhere")) == 0


def test_behind_a_proxy_nobody_waits_for_others() -> None:
    connections = Connections(LIMITS, Origins(["10.0.0.1"]), Clock())
    assert connections.networks("10.0.0.1") == ()
    connections.pace.spend((), 1000)
    assert connections.pace.wait_seconds(()) == 0


def test_only_so_many_networks_are_remembered() -> None:
    pace = Pace(1, Clock())
    for number in range(NETWORKS_MAX + 10):
        pace.spend((str(number),), 100)
    assert pace.wait_seconds(("0",)) == 0
    assert pace.wait_seconds((str(NETWORKS_MAX + 9),)) > 0


# --- one connection, turn by turn ---


class Socket(asyncio.Transport):
    """The server's end of a connection: what is written to it, and whether it is read."""

    def __init__(self, peer: str, order: list[str] | None = None) -> None:
        self.peer, self.order = peer, [] if order is None else order
        super().__init__({"peername": (peer, 5000), "sockname": ("192.0.2.2", 80)})
        self.written = b""
        self.reading = True
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.written:
            self.order.append(self.peer)
        self.written += bytes(data)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True


class Counting(BoundedProtocol):
    """Counts what it is given and what it parses."""

    chunks = 0
    received = 0

    def on_chunk_header(self) -> None:
        self.chunks += 1
        super().on_chunk_header()

    def data_received(self, data: bytes) -> None:
        type(self).received += len(data)
        super().data_received(data)


async def sized(scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
    """Answers with the size of the body; with 401, before it has come, where the address says so."""
    size, more = 0, scope["path"] != "/401"
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    body = str(size).encode()
    status = 200 if scope["path"] != "/401" else 401
    fields = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


def configuration(connections: Connections, port: int = 0) -> uvicorn.Config:
    protocol = cast("type[asyncio.Protocol]", partial(Counting, connections))
    return uvicorn.Config(sized, port=port, http=protocol, ws="none", log_config=None, lifespan="off")


def opened(
    connections: Connections, peer: str = "192.0.2.1", order: list[str] | None = None
) -> tuple[Counting, Socket]:
    config, socket = configuration(connections), Socket(peer, order)
    config.load()
    protocol = Counting(connections, config=config, server_state=ServerState(), app_state={})
    protocol.connection_made(socket)
    return protocol, socket


def connections(**changes: Any) -> Connections:
    return Connections(replace(LIMITS, **changes), Origins([]), Clock())


CHUNKED = head("POST", "/", "Transfer-Encoding: chunked")


async def test_a_body_in_small_chunks_is_parsed_a_slice_a_turn_and_arrives_whole() -> None:
    protocol, socket = opened(connections(refusals_per_second=1_000_000))
    chunk, count = b"80\r\n" + b" " * 128 + b"\r\n", 1500
    protocol.data_received(CHUNKED + chunk * count + b"0\r\n\r\n")
    at_most = SLICE_BYTES // len(chunk) + 1
    assert 0 < protocol.chunks <= at_most
    assert not socket.reading
    turns = 0
    while not socket.written.endswith(str(count * 128).encode()):
        before = protocol.chunks
        await asyncio.sleep(0)
        turns += 1
        # An idle loop may sleep between two callbacks of ours; what counts is that it never does two slices in one.
        assert protocol.chunks - before <= at_most
        assert turns < 10_000
    assert protocol.chunks == count + 1
    assert socket.reading


async def test_chunks_of_a_byte_are_refused_before_they_cost_anything() -> None:
    protocol, socket = opened(connections())
    protocol.data_received(CHUNKED + b"1\r\n \r\n" * 40_000)
    assert protocol.chunks < 300
    assert b"malformed_request" in socket.written


async def test_large_pieces_earn_small_ones_but_not_without_end() -> None:
    protocol, socket = opened(connections())
    protocol.data_received(CHUNKED + b"10000\r\n" + b" " * 65_536 + b"\r\n")
    await eventually(lambda: socket.reading, "the large one is parsed")
    protocol.data_received(b"1\r\n \r\n" * 2000)
    assert b"malformed_request" in socket.written


async def test_after_a_refusal_a_connection_is_read_little_and_with_pauses() -> None:
    protocol, socket = opened(connections())
    protocol.data_received(head("GET", "/")[:-2] + b"X: " + b"a" * 40_000)
    await eventually(lambda: b" 431 " in socket.written, "it is refused")
    given = 0
    while given < 100 and protocol._connections.pace.wait_seconds(protocol._networks) == 0:
        if socket.reading:
            protocol.data_received(b"a" * 262_144)
            given += 1
            assert not socket.reading, "others have a turn after each part"
        await asyncio.sleep(0)
    # Four points are free with two a second: the refusal is one, and a million bytes are one.
    assert given * 262_144 < 4 * MEGABYTE


async def test_whoever_has_been_refused_too_often_is_read_later_and_a_connection_of_use_is_not() -> None:
    everybody = connections()
    good, good_socket = opened(everybody)
    good.data_received(head("GET", "/"))
    await eventually(lambda: b" 200 " in good_socket.written, "it is answered")
    for _ in range(8):
        protocol, socket = opened(everybody)
        protocol.data_received(b"nonsense\r\n\r\n")
    order: list[str] = []
    newcomer, socket = opened(everybody, order=order)
    socket.peer = "newcomer"
    assert not socket.reading
    newcomer.data_received(head("GET", "/"))  # the transport may have read that already
    assert not socket.written
    assert newcomer.has_unread(), "it is not the one to make room"
    good_socket.written, good_socket.order, good_socket.peer = b"", order, "good"
    good.data_received(head("GET", "/"))
    await eventually(lambda: b" 200 " in good_socket.written, "it is answered at once")
    await eventually(lambda: b" 200 " in socket.written, "the newcomer is served, if later")
    assert order == ["good", "newcomer"]


async def test_a_refused_answer_is_followed_by_a_pause_and_a_good_one_is_not() -> None:
    everybody = connections(refusals_per_second=0.5)
    protocol, socket = opened(everybody)
    for number in range(1, 3):
        protocol.data_received(head("GET", "/401"))
        await eventually(lambda seen=number: socket.written.count(b" 401 ") == seen, "it is refused")  # type: ignore[misc]
    assert not socket.reading
    other, other_socket = opened(connections())
    other.data_received(head("GET", "/"))
    await eventually(lambda: b" 200 " in other_socket.written, "it is answered")
    assert other_socket.reading


# --- over real sockets ---


@asynccontextmanager
async def served(**changes: Any) -> AsyncIterator[Target]:
    port, Counting.received = free_port(), 0
    server = uvicorn.Server(configuration(connections(**changes), port))
    task = asyncio.create_task(server._serve())
    await eventually(lambda: server.started, "it serves")
    try:
        yield Target("127.0.0.1", port)
    finally:
        server.should_exit = True
        await task


@pytest.mark.parametrize("attack", [attacks.many_headers, attacks.one_header, attacks.endless_trailers])
async def test_a_hundred_megabytes_for_nothing_are_not_read(attack: Callable[[Target], Any]) -> None:
    async with served() as target:
        outcome = await attack(target)
        assert outcome.statuses.total() == 1
        # Its network has four points: a refusal, and what it sends besides, in parts of 256 kB.
        assert Counting.received < 5 * MEGABYTE


async def test_a_client_that_sends_too_much_by_mistake_gets_its_answer() -> None:
    async with served(refusals_per_second=10) as target, connected(target) as (reader, writer):
        body = b"x" * 6 * MEGABYTE
        for fields in ((), ("Connection: close",)):
            writer.write(head("POST", "/401", f"Content-Length: {len(body)}", *fields) + body)
            await writer.drain()  # it reads nothing before all of it is on its way
        answers = await read_answer(reader)
        assert answers.count(b" 401 ") == 2


async def test_an_upload_is_not_slowed_by_the_refusals_of_its_network() -> None:
    body = b"x" * 8 * MEGABYTE
    async with served() as target, connected(target) as (reader, writer):
        writer.write(head("GET", "/"))
        assert status_of(await reader.readuntil(b"\r\n\r\n0")) == 200
        for _ in range(8):
            await attacks.endless(target, b"nonsense\r\n\r\n", b"", 0)
        writer.write(head("POST", "/", f"Content-Length: {len(body)}", "Connection: close") + body)
        assert (await read_answer(reader)).endswith(str(len(body)).encode())
        # The clock of its pace stands still: had it been made to wait, each part would have taken seconds.


# --- who asks for another protocol ---

UPGRADE = ("Connection: Upgrade", "Upgrade: h2c")


@pytest.mark.parametrize("together", [True, False], ids=["in one packet", "one after the other"])
async def test_who_asks_for_another_protocol_is_answered_each_request_that_follows(*, together: bool) -> None:
    requests = [
        head("GET", "/", *UPGRADE),
        head("POST", "/", *UPGRADE, "Content-Length: 0"),
        head("POST", "/", "Content-Length: 2", "Connection: close") + b"ab",
    ]
    async with served() as target, connected(target) as (reader, writer):
        sizes = []
        if together:
            writer.write(b"".join(requests))
        for request in requests:
            if not together:
                writer.write(request)
            assert status_of(await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), SECONDS_MAX)) == 200
            sizes.append(await reader.readexactly(1))
    assert sizes == [b"0", b"0", b"2"]


@pytest.mark.parametrize("framing", ["Content-Length: {}", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("together", [True, False], ids=["in one packet", "the body later"])
async def test_a_body_behind_a_request_for_another_protocol_is_never_taken_for_requests(
    framing: str, *, together: bool
) -> None:
    hidden = head("GET", "/", "X-Forwarded-For: 198.51.100.7")
    asked = head("POST", "/", *UPGRADE, framing.format(len(hidden)))
    async with served() as target, connected(target) as (reader, writer):
        writer.write(asked + hidden if together else asked)
        answer = b"" if together else await reader.readuntil(b"\r\n\r\n")
        if not together:
            writer.write(hidden)
        answer += await read_answer(reader)
    assert status_of(answer) == 400
    assert answer.count(b"HTTP/1.1 ") == 1
