"""What happens to every request: an id, security headers, and no fault unanswered."""

from __future__ import annotations

import re
import secrets
from collections import Counter

import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.http.problems import Problem, log_fault, problem_of

TRANSPORT_SECURITY = "max-age=31536000"
_ONCE = frozenset(
    {b"host", b"authorization", b"content-type", b"idempotency-key", b"last-event-id", b"origin"}
)
"""Headers that decide something, of which a request has one."""
_HOST_BYTES_MAX = 255
_HOST = re.compile(rb"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")


def wrong_headers(scope: Scope) -> Problem | None:
    """Says what is wrong with a head. Of two hosts, tokens or keys a proxy may read one and we the other; and a host that
    is no address breaks whoever reads it as one."""
    found = Counter(name for name, _ in scope["headers"] if name in _ONCE)
    if found[b"host"] != 1 or not _is_host(
        next(value for name, value in scope["headers"] if name == b"host")
    ):
        return Problem("bad_host", "A request names its host once, in one Host header.")
    for name, count in found.items():
        if count > 1:
            return Problem(
                "malformed_request", f"There are {count} {name.decode().title()} headers: send one."
            )
    return None


def _is_host(value: bytes) -> bool:
    return len(value) <= _HOST_BYTES_MAX and _HOST.fullmatch(value) is not None


class RequestContext:
    """Gives each request an id that goes into its logs and its answer, and every fault an answer."""

    def __init__(self, app: ASGIApp, *, tls: bool = False) -> None:
        """`tls`: people come by https, so browsers are told never to come by anything else."""
        self._app = app
        self._tls = tls

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
                if self._tls:
                    headers.setdefault("Strict-Transport-Security", TRANSPORT_SECURITY)
                if scope["path"].startswith("/v1/"):
                    headers.setdefault("Cache-Control", "no-store")
            await send(message)

        wrong = wrong_headers(scope)
        if wrong is not None:
            await wrong.response()(scope, receive, with_headers)
            return
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
