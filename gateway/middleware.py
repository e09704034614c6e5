"""What happens to every request: an id, a bound on its size, and security headers on API answers."""

from __future__ import annotations

import secrets

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.problems import Problem

BODY_BYTES_MAX = 6_000_000
"""A sketch of 4 MB in base64, and some room."""
UPLOAD_BYTES_MAX = 24_000_000


class TooLarge(Exception):
    """The body is larger than this route takes."""


class BodyLimit:
    """Refuses bodies over the bound, by their declared length and by what really arrives."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = UPLOAD_BYTES_MAX if scope["path"].startswith("/v1/objects/") else BODY_BYTES_MAX
        declared = Headers(scope=scope).get("content-length", "")
        problem = Problem(
            413, "body_too_large", f"The body may have {limit} bytes at most.", limit_bytes=limit
        )
        if declared.isdecimal() and int(declared) > limit:
            await problem.response()(scope, receive, send)
            return
        read, started = 0, False

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > limit:
                raise TooLarge
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, counted, watched)
        except TooLarge:
            if not started:
                await problem.response()(scope, receive, send)


class RequestContext:
    """Gives each request an id that goes into its logs and its answer."""

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

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                headers.setdefault("X-Content-Type-Options", "nosniff")
                if scope["path"].startswith("/v1/"):
                    headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, with_headers)
