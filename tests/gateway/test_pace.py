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
from gateway.bounds.turns import ALONE_AT_ONCE, CROWD_WAITING_MIN, FEW_MAX, Lane, Turn, Turns
from sandbox.embedded.ports import free_port
from tests.hostile import attacks
from tests.hostile.attacks import Target, connected, head, read_answer, status_of
from tests.waiting import eventually

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


# --- how many requests of an address are worked on ---


class Asked:
    """Requests, by name, in the order in which they began."""

    def __init__(self, at_once: int) -> None:
        self.turns = Turns(at_once)
        self.began: dict[str, Turn] = {}

    def ask(self, name: str, address: str = "crowd", *, known: bool = False, who: str = "") -> None:
        """Each by a token of its own, unless it says by whose."""

        def start(turn: Turn) -> None:
            self.began[name] = turn

        self.turns.begin(address, start, known=known, who=who or name)

    def end(self, name: str) -> None:
        self.turns.end(self.began[name])


async def test_a_few_requests_of_an_address_begin_and_the_next_one_when_one_of_them_has_ended() -> None:
    asked = Asked(2)
    asked.ask("somebody else", "elsewhere")
    for name in "abcd":
        asked.ask(name)
    assert list(asked.began) == ["somebody else", "a", "b"]
    asked.end("a")
    asked.end("a")
    assert list(asked.began) == ["somebody else", "a", "b", "c"]
    asked.ask("another", "elsewhere")
    assert "another" in asked.began, "nobody waits for another address"


async def test_whoever_was_served_before_does_not_wait_for_those_who_come_anew() -> None:
    asked = Asked(1)
    asked.ask("somebody else", "elsewhere")
    for number in range(3):
        asked.ask(f"new {number}")
    for number in range(2):
        asked.ask(f"known {number}", known=True)
    assert list(asked.began)[1:] == ["new 0", "known 0"]
    for name in ("known 0", "new 0", "known 1", "new 1"):
        asked.end(name)
    assert list(asked.began)[1:] == ["new 0", "known 0", "known 1", "new 1", "new 2"]


async def test_an_address_that_is_alone_has_room_for_as_many_as_are_of_use() -> None:
    asked = Asked(1)
    for number in range(ALONE_AT_ONCE + CROWD_WAITING_MIN + 1):
        asked.ask(str(number))
    assert len(asked.began) == ALONE_AT_ONCE
    asked.end("0")
    assert len(asked.began) == ALONE_AT_ONCE + 1


@pytest.mark.parametrize(
    ("crowd_known", "address", "known"),
    [(False, "elsewhere", False), (True, "elsewhere", False), (False, "crowd", True)],
)
async def test_a_crowd_goes_one_by_one_while_somebody_asks_who_is_none(
    *, crowd_known: bool, address: str, known: bool
) -> None:
    asked = Asked(4)
    for number in range(ALONE_AT_ONCE + 100):
        asked.ask(str(number), known=crowd_known)
    asked.ask("she", address, known=known)
    assert "she" in asked.began, "she does not wait for them"
    asked.end("she")
    for number in range(ALONE_AT_ONCE + 10):
        asked.end(str(number))
    assert len(asked.began) == 1 + ALONE_AT_ONCE + 1 + 10, (
        "one when all of the first had ended, then one for one"
    )


async def test_a_crowd_of_newcomers_lets_nobody_wait_who_is_served_at_the_same_address_already() -> None:
    asked = Asked(4)
    for number in range(500):
        asked.ask(f"new {number}")
    for number in range(10):
        asked.ask(f"known {number}", known=True)
        assert f"known {number}" in asked.began
        asked.end(f"known {number}")


async def test_a_crowd_makes_way_for_whoever_is_served_but_not_for_ever() -> None:
    asked = Asked(1)
    asked.ask("she", "elsewhere")
    for number in range(100):
        asked.ask(str(number))
    asked.end("0")
    assert list(asked.began) == ["she", "0"], "she is served"
    asked.end("she")
    assert list(asked.began) == ["she", "0", "1"]
    asked.ask("she again", "elsewhere")
    asked.end("1")
    assert "2" not in asked.began
    await eventually(lambda: "2" in asked.began, "the crowd goes on while she is still served")


async def test_whoever_sends_many_by_one_token_stands_behind_the_others_at_the_same_address() -> None:
    asked = Asked(4)
    for number in range(FEW_MAX + ALONE_AT_ONCE + 100):
        asked.ask(str(number), known=True, who="many")
    assert len(asked.began) == FEW_MAX + ALONE_AT_ONCE
    for number in range(FEW_MAX):
        asked.ask(f"page {number}", known=True, who="she")
        assert f"page {number}" in asked.began, "she does not wait for them"
    for number in range(FEW_MAX):
        asked.end(f"page {number}")
    for number in range(FEW_MAX + ALONE_AT_ONCE):
        asked.end(str(number))
    assert len(asked.began) == FEW_MAX + ALONE_AT_ONCE + FEW_MAX + 1, "they go one by one"


async def test_many_by_one_token_are_no_crowd_to_themselves() -> None:
    asked = Asked(1)
    for number in range(500):
        asked.ask(str(number), known=True, who="many")
    for number in range(400):
        asked.end(str(number))
    assert len(asked.began) == FEW_MAX + ALONE_AT_ONCE + 400 - FEW_MAX
    for number in range(400, 500):
        asked.end(str(number))
    assert (asked.turns._lanes, asked.turns._under_way) == ({}, {})


async def test_what_was_waited_for_counts_again_when_it_goes_on() -> None:
    asked = Asked(1)
    asked.ask("somebody else", "elsewhere")
    for name in "abc":
        asked.ask(name)
    await eventually(lambda: "b" in asked.began, "a waits for something else")
    asked.turns.goes_on(asked.began["a"])
    asked.end("b")
    assert "c" not in asked.began
    asked.end("a")
    assert "c" in asked.began
    asked.turns.goes_on(asked.began["a"])
    asked.end("c")
    asked.end("somebody else")
    assert (asked.turns._lanes, asked.turns._light_running) == ({}, 0)


async def test_requests_that_wait_for_something_else_hold_up_nobody_for_long() -> None:
    asked = Asked(1)
    asked.ask("somebody else", "elsewhere")
    for name in "abc":
        asked.ask(name)
    await eventually(lambda: "c" in asked.began, "others are let in although none has ended")
    for name in "abc":
        asked.end(name)
    assert not any(lane.address == "crowd" for lane in asked.turns._lanes)


async def test_hundreds_of_requests_of_an_address_are_all_answered_and_one_elsewhere_at_once() -> None:
    everybody = Connections(replace(LIMITS, requests_at_once_address=2), Origins([]), Clock())
    order: list[str] = []
    crowd = [opened(everybody, order=order) for _ in range(200)]
    other, _ = opened(everybody, "198.51.100.1", order)
    for protocol, _ in crowd:
        protocol.data_received(head("GET", "/"))
    other.data_received(head("GET", "/"))
    gone, _ = crowd[150]
    gone.connection_lost(None)
    await eventually(lambda: len(order) == 200, "all are answered but who has gone")
    assert order.index("198.51.100.1") < 50


async def test_a_request_whose_body_comes_later_gives_its_turn_up_and_waits_for_another_one() -> None:
    everybody, order = connections(requests_at_once_address=1), list[str]()
    opened(everybody, "198.51.100.1", order)[0].data_received(head("GET", "/"))
    late = [opened(everybody, order=order)[0] for _ in range(3)]
    for protocol in late:
        protocol.data_received(head("POST", "/", "Content-Length: 2"))
    await eventually(lambda: len(order) == 1, "whoever is elsewhere is answered")
    turns = everybody.turns
    await eventually(lambda: not turns._lanes, "nobody who waits for a body counts")
    turn = asyncio.get_running_loop().create_future()
    turns.begin("192.0.2.1/32", turn.set_result, known=False, who="another")
    for protocol in late:
        protocol.data_received(b"{}")
    await eventually(lambda: len(turns._lanes[Lane("192.0.2.1/32", known=False)].turns) == 3, "all wait")
    assert len(order) == 1
    turns.end(await turn)
    await eventually(lambda: len(order) == 4, "they are answered, one by one")
    await eventually(lambda: not turns._lanes, "all turns have ended")


async def test_whoever_leaves_while_they_wait_for_a_turn_takes_none() -> None:
    everybody = connections(requests_at_once_address=1)
    turns, turn = everybody.turns, asyncio.get_running_loop().create_future()
    turns.begin("192.0.2.1/32", turn.set_result, known=False, who="another")
    gone, _ = opened(everybody)
    gone.data_received(head("POST", "/", "Content-Length: 2"))
    gone.data_received(b"{}")
    gone.connection_lost(None)
    turns.end(await turn)
    await eventually(lambda: not turns._lanes, "all turns have ended")


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
