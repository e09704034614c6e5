"""What happens to every request: an id, bounds on its body, security headers, and no fault unanswered."""

from __future__ import annotations

import asyncio
import contextlib
import secrets

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.problems import Problem, log_fault, problem_of

BODY_BYTES_MAX = 6_000_000
"""A sketch of 4 MB in base64, and some room."""
UPLOAD_BYTES_MAX = 24_000_000
BODY_SECONDS_MAX = 60.0
"""How long a body may take to arrive, whole."""


class BodyRefused(Exception):
    """The body is larger or slower than this route takes."""


class BodyLimit:
    """Refuses bodies over the bound, by their declared length and by what really arrives, and slow ones."""

    def __init__(self, app: ASGIApp, *, seconds_max: float = BODY_SECONDS_MAX) -> None:
        self._app = app
        self._seconds_max = seconds_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = UPLOAD_BYTES_MAX if scope["path"].startswith("/v1/objects/") else BODY_BYTES_MAX
        body = _Body(receive, send, limit, self._seconds_max)
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdecimal() and (len(declared) > 12 or int(declared) > limit):
            await body.too_large().response()(scope, receive, send)
            return
        with contextlib.suppress(BodyRefused):
            await self._app(scope, body.receive, body.send)
        # A framework that turns our exception into an answer of its own must not have the last word.
        if body.refusal is not None and not body.started:
            await body.refusal.response()(scope, receive, send)


class _Body:
    """One request's body on its way in."""

    def __init__(self, receive: Receive, send: Send, limit: int, seconds_max: float) -> None:
        self._receive = receive
        self._send = send
        self._limit = limit
        self._until = asyncio.get_running_loop().time() + seconds_max
        self._read = 0
        self._whole = False
        self.started = False
        self.refusal: Problem | None = None

    def too_large(self) -> Problem:
        detail = f"The body may have {self._limit} bytes at most."
        return Problem(413, "body_too_large", detail, limit_bytes=self._limit)

    async def receive(self) -> Message:
        if self._whole:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError as error:
            self.refusal = Problem(
                408, "body_too_slow", "The body did not arrive in time.", headers={"Connection": "close"}
            )
            raise BodyRefused from error
        self._read += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if self._read > self._limit:
            self.refusal = self.too_large()
            raise BodyRefused
        return message

    async def send(self, message: Message) -> None:
        if self.refusal is not None and not self.started:
            return
        self.started = True
        await self._send(message)


class RequestContext:
    """Gives each request an id that goes into its logs and its answer, and every fault an answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = "req_" + secrets.token_hex(8)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        started = False

        async def with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                headers.setdefault("X-Content-Type-Options", "nosniff")
                if scope["path"].startswith("/v1/"):
                    headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            await self._app(scope, receive, with_headers)
        except ClientDisconnect:
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, it gets an answer and a line in the log
            # Left to the server, the traceback's last line would go into the log with whatever it quotes.
            problem = problem_of(error)
            log_fault(scope["path"], problem, error)
            if started:
                raise ConnectionResetError("the answer broke off") from None
            await problem.response()(scope, receive, with_headers)
