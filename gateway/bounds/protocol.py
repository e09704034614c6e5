"""HTTP/1.1 by uvicorn's parser, with everything counted that a client may keep waiting or send without end.

Reading pauses for three reasons: the application has enough (uvicorn's flow control), the rest of what came waits for
the next turn of the loop, or the client's network has had us do too much for nothing (`Pace`).
`docs/adr/0017-server.md` says why the bounds are here: no server for ASGI has all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import select
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import httptools
from uvicorn._types import ASGI3Application, Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from gateway.bounds.connections import Connections
from gateway.bounds.pace import CHUNK, CONNECTION, DISCARDED_BYTE, REFUSAL
from gateway.bounds.turns import Lane, Turn
from gateway.bounds.watching import Watched
from gateway.http.codes import OWN
from gateway.http.problems import MEDIA_TYPE, Problem

LINE_BYTES_MAX = 16_384
"""Of the address in the first line."""
PIPELINED_MAX = 8
SLICE_BYTES = 16_384
"""Of heads and chunks, parsed in one turn of the loop: each field and each chunk is a call."""
CHUNKS_MAX = 256
CHUNK_BYTES_MIN = 64
"""How many chunks a body may have, and one more for so many of its bytes."""
CHUNKS_FREE = 16
"""Of a slice, that cost nothing: chunks of a kilobyte."""
FRAMING_BYTES_MAX = 65_536
"""What a chunked body may have in sizes, extensions and trailers, beside an eighth of its own length."""
DRAIN_BYTES_MAX = 32_000_000
DRAIN_SECONDS_MAX = 5.0
"""How much of a body, and for how long, is still taken in after it was answered."""
DRAIN_PAUSE_SECONDS = 0.002
"""After each part of it: what is thrown away comes no faster than others can bear."""
REFUSED = frozenset({400, 401, 405, 408, 411, 413, 414, 415, 422, 429, 431})
"""Statuses of answers that are nobody's use, for `Pace`."""
LINGER_SECONDS_MAX = 2.0


class _Excess(Exception):
    """Raised in a callback of the parser, which then gives up."""


class _GentleTransport:
    """A transport whose `close` first lets the client read the answer: closing with bytes unread throws it away."""

    def __init__(self, transport: asyncio.Transport, protocol: BoundedProtocol) -> None:
        self._transport = transport
        self._protocol = protocol

    def write(self, data: bytes) -> None:
        if not self._protocol.closing:  # a refusal was the last word
            self._transport.write(data)

    def close(self) -> None:
        self._protocol.close_gently()

    def pause_reading(self) -> None:
        self._protocol.pause_for_application()

    def resume_reading(self) -> None:
        self._protocol.resume_for_application()

    def is_closing(self) -> bool:
        return self._protocol.closing or self._transport.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class BoundedProtocol(HttpToolsProtocol):
    """One connection. Whose turn it is, the client's or ours, is known at each moment, and so is since when."""

    def __init__(self, connections: Connections, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._connections = connections
        self._limits = connections.limits
        self.closing = False
        self._refusal = "malformed_request"
        """What is answered when the parser gives up."""
        self._timer: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._in_head = True
        self._whole = True
        """Whether all of the present request is here."""
        self._draining = False
        self._head_bytes = 0
        self._exact_bytes = 0
        self._fields = 0
        self._raw_bytes = 0
        self._body_bytes = 0
        self._drained = 0
        self._chunked = False
        self._chunks = 0
        self._chunks_left = CHUNKS_MAX
        self._networks: tuple[str, ...] = ()
        self._status = 0
        """Of the answer that is under way."""
        self._who = 0
        self._sender = ""
        self._rest = b""
        """What came, and is parsed in later turns."""
        self._application_full = False
        self._pause: asyncio.Handle | None = None
        self._reads = True

    # --- begin and end ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count it in, or say that there is no room."""
        self._real = transport
        super().connection_made(_GentleTransport(transport, self))  # type: ignore[arg-type]
        host = self.client[0] if self.client else ""
        if self._connections.is_proxy(host):
            self.timeout_keep_alive = self._limits.idle_seconds_proxy  # type: ignore[assignment]
        else:
            self.timeout_keep_alive = self._limits.idle_seconds  # type: ignore[assignment]
        self._networks = self._connections.networks(host)
        if self._connections.admit(self, host):
            late = self._pay(CONNECTION)
            self._wait(self._limits.header_seconds + late, self._head_late)
        else:
            self._refuse("too_many_connections")

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it out."""
        self._connections.leave(self)
        self._stop_waiting()
        self._read_again()
        self._rest = b""
        if self._pause is not None:
            self._pause.cancel()
        super().connection_lost(exc)

    def has_unread(self) -> bool:
        """See `Connection.has_unread`."""
        if self.closing or self._draining:
            return False  # nobody is served by reading that
        if self._rest:
            return True
        polling = select.poll()
        with contextlib.suppress(OSError, ValueError, KeyError):
            polling.register(self._real.get_extra_info("socket").fileno(), select.POLLIN)
            return bool(polling.poll(0))
        return False

    def is_put_off(self) -> bool:
        """See `Connection.is_put_off`."""
        return self._pause is not None

    def evict(self) -> None:
        """See `Connection.evict`. Nobody is told: there was no whole request to answer."""
        self.closing = True
        self._real.abort()

    def close_gently(self) -> None:
        """Close after what was written is read; what still comes meanwhile is thrown away, for a while."""
        if self.closing:
            return
        self.closing = True
        self._connections.waits(self)
        if self._whole:
            self._wait(self._limits.unread_seconds, self._real.abort)
            self._real.close()
            return
        self._drained, self._rest, self._application_full = 0, b"", False
        self._wait(LINGER_SECONDS_MAX, self._real.abort)
        if not self._real.is_closing():
            if self._real.can_write_eof():
                self._real.write_eof()
            self._read_on()

    # --- when to read ---

    def pause_for_application(self) -> None:
        """It has as much as it can hold."""
        self._application_full = True
        self._set_reading()

    def resume_for_application(self) -> None:
        """It takes more; in the next turn, since uvicorn is in the middle of something."""
        self._application_full = False
        if self._rest and self._pause is None:
            self._pause_for(0)
        self._set_reading()

    def _pay(self, points: float) -> float:
        """Count what the client had us do, and read no more of it for a while if that is too much; returns for how
        long."""
        if not self._networks:
            return 0.0
        pace = self._connections.pace
        pace.spend(self._networks, points)
        seconds = pace.wait_seconds(self._networks)
        if seconds:
            self._pause_for(seconds)
        return seconds

    def _pause_for(self, seconds: float) -> None:
        if self._pause is not None:
            self._pause.cancel()
        self._pause = self.loop.call_later(seconds, self._end_pause)
        self._set_reading()

    def _end_pause(self) -> None:
        self._pause = None
        self._read_on()

    def _read_on(self) -> None:
        if self._rest and self._pause is None and not self._application_full and not self.closing:
            rest, self._rest = self._rest, b""
            self._parse(rest)
        self._set_reading()

    def _set_reading(self) -> None:
        wanted = self._pause is None and not self._application_full and not self._rest
        if wanted != self._reads and not self._real.is_closing():
            self._reads = wanted
            (self._real.resume_reading if wanted else self._real.pause_reading)()

    # --- what comes in ---

    def data_received(self, data: bytes) -> None:
        """Count, then parse."""
        if self.closing or self._draining:
            self._discard(len(data))
            if self.closing:
                return
            self._rest += data
        elif self._rest or self._pause is not None:
            # uvloop begins to read after `connection_made`, whatever was said there.
            self._rest += data
            self._reads = True
            self._set_reading()
        else:
            self._parse(data)

    def _discard(self, size: int) -> None:
        self._drained += size
        if self._drained > DRAIN_BYTES_MAX:
            self._real.abort()
        elif not self._pay(size * DISCARDED_BYTE):
            self._pause_for(DRAIN_PAUSE_SECONDS)

    def _parse(self, data: bytes) -> None:
        if (self._in_head or self._chunked) and len(data) > SLICE_BYTES:
            data, self._rest = data[:SLICE_BYTES], data[SLICE_BYTES:]
            self._pause_for(0)
        self._unset_keepalive_if_required()
        if self._in_head:
            if self._timer is None:
                self._wait(self._limits.header_seconds, self._head_late)
            self._head_bytes += len(data)
        else:
            self._raw_bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self._refuse(self._refusal)
            return
        if self._in_head and self._head_bytes > self._limits.header_bytes:
            self._refuse("headers_too_large")
        elif self._raw_bytes - self._body_bytes > FRAMING_BYTES_MAX + self._body_bytes // 8:
            self._refuse("malformed_request")
        elif self._chunks > CHUNKS_FREE:
            self._pay(self._chunks * CHUNK)
        self._chunks = 0

    def _feed(self, data: bytes) -> None:
        """Parse all of it. We offer no other protocol (RFC 9110, section 7.8): what follows is further requests."""
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as asked:
                data = data[asked.args[0] :]
            else:
                return

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._in_head, self._whole, self._chunked = True, False, False
        self._exact_bytes = self._fields = 0

    def on_url(self, url: bytes) -> None:
        """The address, or a part of it."""
        self._exact_bytes += len(url)
        if self._exact_bytes > LINE_BYTES_MAX:
            self._give_up("address_too_long")
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field, of the head or behind a chunked body."""
        self._fields += 1
        self._exact_bytes += len(name) + len(value) + 4
        if self._fields > self._limits.header_fields or self._exact_bytes > self._limits.header_bytes:
            self._give_up("headers_too_large")
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole: the application begins. The parser takes the body of a request for another protocol to be
        further requests, which a proxy in front of us never saw as such: whoever has one is refused."""
        if self.parser.should_upgrade() and any(
            name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0"))
            for name, value in self.headers
        ):
            self._give_up("malformed_request")
        self._in_head = False
        self._head_bytes = self._raw_bytes = self._body_bytes = 0
        self._stop_waiting()
        super().on_headers_complete()
        if len(self.pipeline) > PIPELINED_MAX:
            self._give_up("malformed_request")
        self._connections.waits(self)

    def on_chunk_header(self) -> None:
        """A chunk of the body begins."""
        if not self._chunked:
            self._chunked, self._chunks_left = True, CHUNKS_MAX
        self._chunks += 1
        self._chunks_left -= 1
        if self._chunks_left < 0:
            self._give_up("malformed_request")

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._body_bytes += len(body)
        if self._chunked:
            self._chunks_left = min(CHUNKS_MAX, self._chunks_left + len(body) // CHUNK_BYTES_MIN)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole: it is our turn, unless it was answered before."""
        super().on_message_complete()
        self._whole = self._in_head = True
        self._chunked = False
        self._head_bytes = self._raw_bytes = self._body_bytes = 0
        if self._draining:
            self._draining = False
            self._idle()
        else:
            self._connections.serves(self)

    # --- what goes out ---

    @property
    def whole(self) -> bool:
        """Whether all of the present request has come."""
        return self._whole

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._who = _who(cycle.scope)
        # Behind a proxy everybody's requests come by the same connections: these say nothing of who was served before.
        self._sender = (
            self._networks[0] if self._networks else self._connections.sender(cast("Any", cycle.scope))
        )
        self._ask_turn(partial(self._begin, cycle, app))

    def _ask_turn(self, begin: Callable[[Turn], None]) -> None:
        if self._sender:
            known = not self._networks or (self._status != 0 and self._status not in REFUSED)
            self._connections.turns.begin(self._sender, begin, known=known, who=self._who)
        else:
            begin(Turn(Lane("", known=False), None, begin, ended=True))

    def _begin(self, cycle: RequestResponseCycle, app: ASGI3Application, turn: Turn) -> None:
        if cycle.disconnected:  # while it waited
            self.loop.call_soon(self._connections.turns.end, turn)
        else:
            super()._start_asgi_task(cycle, Watched(app, self, self._connections.turns, turn))

    async def another_turn(self) -> Turn:
        """Wait for one, since the body is here for which the first one was given up."""
        mine = self.loop.create_future()

        def begin(turn: Turn) -> None:
            if mine.done():  # given up
                self.loop.call_soon(self._connections.turns.end, turn)
            else:
                mine.set_result(turn)

        self._ask_turn(begin)
        turn: Turn = await mine
        return turn

    def answering(self, status: int) -> None:
        """An answer begins."""
        self._status = status

    def on_response_complete(self) -> None:
        """It is the client's turn again."""
        refused = self._status in REFUSED
        super().on_response_complete()
        if refused:
            self._pay(REFUSAL)
        if self.closing or self._real.is_closing():
            return
        if not self._whole:  # answered before all of it came
            self._draining, self._drained = True, 0
            self._unset_keepalive_if_required()
            self._wait(DRAIN_SECONDS_MAX, self._real.abort)
            self._connections.waits(self)
        elif self.cycle.response_complete:
            self._connections.waits(self)

    def _idle(self) -> None:
        self._stop_waiting()
        self._connections.waits(self)
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def pause_writing(self) -> None:
        """The client does not read."""
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(self._limits.unread_seconds, self._real.abort)

    def resume_writing(self) -> None:
        """The client has read."""
        super().resume_writing()
        self._read_again()

    # --- refusals ---

    def _give_up(self, code: str) -> None:
        self._refusal = code
        raise _Excess(code)

    def _head_late(self) -> None:
        self._timer = None
        if self._head_bytes:
            self._refuse("headers_too_slow")
        else:
            self._real.abort()

    def _refuse(self, code: str) -> None:
        """Answer without the application, and close."""
        if self.closing:
            return
        self._pay(REFUSAL)
        cycle: RequestResponseCycle | None = self.cycle
        self._whole = False
        if self.pipeline:  # answers of earlier requests are under way
            self.evict()
            return
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
            self.flow.resume_writing()
            if cycle.response_started:  # an answer is under way, and cannot be taken back
                self.evict()
                return
        self._real.write(_answer(code))
        self._stop_waiting()
        self.close_gently()

    def _wait(self, seconds: float, then: Any) -> None:
        self._stop_waiting()
        self._timer = self.loop.call_later(seconds, then)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _read_again(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None


def _who(scope: Scope) -> int:
    """Stands for whoever asks, by what they say who they are."""
    headers = dict(scope["headers"]) if scope["type"] == "http" else {}
    return hash(headers.get(b"authorization") or headers.get(b"cookie"))


def _answer(code: str) -> bytes:
    problem = Problem(code, OWN[code].text)
    body = json.dumps(problem.document()).encode()
    lines = {"Content-Type": MEDIA_TYPE, "Content-Length": str(len(body)), "Cache-Control": "no-store"}
    lines |= {"Connection": "close", **problem.headers}
    fields = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return STATUS_LINE[problem.status] + fields.encode() + b"\r\n" + body
