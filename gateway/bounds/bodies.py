"""Bounds on bodies: bytes by address, seconds, and what is held at the same time."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.auth.networks import Origins, prefixes
from gateway.http.problems import Problem
from generation.images.checking import SKETCH_BYTES_MAX, SKETCH_PIXELS_MAX

BODY_BYTES_MAX = 65_536
"""Of what nothing larger is ever sent to."""
SKETCH_BODY_BYTES_MAX = 6_000_000
"""A sketch of 4 MB in base64, and some room."""
MESSAGE_BYTES_MAX = 1_000_000
"""Of a rail's notification, and of what a worker says, with a preview."""
UPLOAD_BYTES_MAX = 24_000_000


def bytes_max(path: str) -> int:
    """How large a body may be at an address."""
    if path == "/v1/generations":
        return SKETCH_BODY_BYTES_MAX
    if path.startswith(("/v1/hooks/", "/v1/worker/")):
        return MESSAGE_BYTES_MAX
    return UPLOAD_BYTES_MAX if path.startswith("/v1/objects/") else BODY_BYTES_MAX


class BodyRefused(Exception):
    """The body is larger or slower than this route takes, or more than may be held is held already."""


class HeldBodies:
    """The bytes of bodies that are held at the same time: of everybody, and of one network."""

    def __init__(self, everybody_max: int, network_max: int) -> None:
        self._everybody_max = everybody_max
        self._network_max = network_max
        self._by_network: Counter[str] = Counter()

    def hold(self, network: str, size: int) -> str | None:
        """Count some more. The code of a refusal if that is too much; nothing is counted then."""
        if self._by_network[network] + size > self._network_max:
            return "too_many_bodies"
        if self._by_network.total() + size > self._everybody_max:
            return "bodies_busy"
        self._by_network[network] += size
        return None

    def release(self, network: str, size: int) -> None:
        """They are held no more."""
        self._by_network[network] -= size
        if self._by_network[network] <= 0:
            del self._by_network[network]


class BodyLimit:
    """Refuses bodies over the bound, by their declared length and by what really arrives, and slow ones."""

    def __init__(self, app: ASGIApp, *, seconds_max: float, held: HeldBodies, origins: Origins) -> None:
        self._app = app
        self._seconds_max = seconds_max
        self._held = held
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        network = prefixes(self._origins.address(Request(scope)))[-1]
        body = _Body(receive, send, bytes_max(scope["path"]), self._seconds_max, self._held, network)
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdecimal() and (len(declared) > 12 or int(declared) > body.limit):
            await body.too_large(declared).response()(scope, receive, send)
            return
        try:
            with contextlib.suppress(BodyRefused):
                await self._app(scope, body.receive, body.send)
            # A framework that turns our exception into an answer of its own must not have the last word.
            if body.refusal is not None and not body.started:
                await body.refusal.response()(scope, receive, send)
        finally:
            body.release()


class _Body:
    """One request's body on its way in."""

    def __init__(
        self, receive: Receive, send: Send, limit: int, seconds_max: float, held: HeldBodies, network: str
    ) -> None:
        self.limit = limit
        self._receive = receive
        self._send = send
        self._until = asyncio.get_running_loop().time() + seconds_max
        self._held = held
        self._network = network
        # A signed link for an upload is given to one worker for one job: that is its bound.
        self._counted = limit < UPLOAD_BYTES_MAX
        self._read = 0
        self._whole = False
        self.started = False
        self.refusal: Problem | None = None

    def too_large(self, declared: str = "") -> Problem:
        has = f"The body has {int(declared):,} bytes. It" if len(declared) in range(1, 13) else "The body"
        detail = f"{has} may have {self.limit:,} bytes at most."
        if self.limit == SKETCH_BODY_BYTES_MAX:
            detail += f" A sketch may have {SKETCH_BYTES_MAX:,}, and {SKETCH_PIXELS_MAX:,} pixels: send a smaller one."
        return Problem("body_too_large", detail, limit_bytes=self.limit)

    def release(self) -> None:
        if self._read and self._counted:
            self._held.release(self._network, self._read)
            self._read = 0

    async def receive(self) -> Message:
        if self._whole:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError as error:
            raise self._refused(Problem("body_too_slow", headers={"Connection": "close"})) from error
        size = len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if self._read + size > self.limit:
            raise self._refused(self.too_large())
        full = self._held.hold(self._network, size) if size and self._counted else None
        if full is not None:
            raise self._refused(Problem(full))
        self._read += size
        return message

    def _refused(self, problem: Problem) -> BodyRefused:
        self.refusal = problem
        return BodyRefused()

    async def send(self, message: Message) -> None:
        if self.refusal is not None and not self.started:
            return
        self.started = True
        await self._send(message)
