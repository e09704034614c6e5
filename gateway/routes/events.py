"""`/v1/events`: everything that moves for one account, as server-sent events.

Durable frames (`account`, `generation`, `topup`) carry an opaque `id` that is bound to the
account; after a reconnect with `Last-Event-ID` nothing durable is missing. `progress` frames have
no id and are only true for the moment.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import msgspec
import structlog
from fastapi import APIRouter, Header, Request
from sse_starlette import EventSourceResponse, ServerSentEvent

from gateway.authentication import Caller
from gateway.identity import Principal
from gateway.problems import Problem
from gateway.routes.generations import present
from gateway.routes.shapes import PROBLEMS_FIELD
from gateway.services import Services
from ledger.identifiers import AccountId, JobId, PaymentId
from projections.feed import Moved

router = APIRouter(prefix="/v1", tags=["events"])
PAGE = 200
STREAM_SECONDS_MAX = 3600
PING_SECONDS = 15
STREAMS_MAX = 20
"""Open streams per account and process; a browser needs one for all its tabs."""


class FrameIds:
    """Ids of durable frames: a log position, signed for one account."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def issue(self, account_id: AccountId, position: int) -> str:
        """The id of a frame."""
        return f"{position}.{self._sign(account_id, position)}"

    def read(self, account_id: AccountId, frame_id: str) -> int:
        """The position. Raises `Problem` 400 for an id that is not this account's."""
        text, _, signature = frame_id.partition(".")
        if text.isascii() and text.isdecimal() and len(text) <= 18:
            expected = self._sign(account_id, int(text))
            if hmac.compare_digest(signature.encode(), expected.encode()):
                return int(text)
        raise Problem(400, "bad_last_event_id", "This Last-Event-ID is not from this account's stream.")

    def _sign(self, account_id: AccountId, position: int) -> str:
        message = f"{account_id}.{position}".encode()
        digest = hmac.new(self._secret, message, hashlib.sha256).digest()[:12]
        return base64.urlsafe_b64encode(digest).decode()


@router.get(
    "/events",
    summary="Follow an account live",
    response_class=EventSourceResponse,
    response_description="A stream of frames; see Live events.",
    openapi_extra={PROBLEMS_FIELD: ["bad_last_event_id", "too_many_streams"]},
)
async def events(
    request: Request,
    caller: Caller,
    last_event_id: Annotated[str | None, Header(max_length=100)] = None,
) -> EventSourceResponse:
    """Server-sent events. Reconnect with `Last-Event-ID` (browsers do) and nothing is missed."""
    services: Services = request.app.state.services
    ids = FrameIds(services.settings.secret_for("event-frames"))
    if services.streams[caller.account_id] >= STREAMS_MAX:
        detail = f"This account has {STREAMS_MAX} streams open. Close one first."
        raise Problem(429, "too_many_streams", detail, headers={"Retry-After": "10"})
    start = ids.read(caller.account_id, last_event_id) if last_event_id else None
    stream = _Stream(services, caller, ids)
    return EventSourceResponse(
        stream.frames(start),
        ping=PING_SECONDS,
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


class _Stream:
    """One open stream."""

    def __init__(self, services: Services, caller: Principal, ids: FrameIds) -> None:
        self._services = services
        self._caller = caller
        self._ids = ids
        self._log = structlog.get_logger("gateway.events")

    async def frames(self, start: int | None) -> AsyncIterator[ServerSentEvent]:
        """The account as it is, then everything that moves."""
        account_id = self._caller.account_id
        with self._counted(account_id):
            async with self._services.signals.watch(account_id) as queue:
                position = self._services.projections.position if start is None else start
                yield await self._account_frame(position)
                until = asyncio.get_running_loop().time() + STREAM_SECONDS_MAX
                while asyncio.get_running_loop().time() < until and not self._services.signals.closed:
                    moved = await self._services.feeds.after(account_id, position, PAGE)
                    async for frame in self._durable(moved):
                        yield frame
                    if moved:
                        position = moved[-1].position
                        continue
                    async for frame in self._live(queue):
                        yield frame

    @contextlib.contextmanager
    def _counted(self, account_id: AccountId) -> Iterator[None]:
        streams = self._services.streams
        streams[account_id] += 1
        try:
            yield
        finally:
            streams[account_id] -= 1
            if not streams[account_id]:
                del streams[account_id]

    async def _durable(self, moved: list[Moved] | Any) -> AsyncIterator[ServerSentEvent]:
        """One frame per thing that moved, showing it as it is now."""
        newest: dict[str, Moved] = {}
        for entry in moved:
            newest.pop(entry.stream, None)
            newest[entry.stream] = entry
        for entry in newest.values():
            data = await self._present(entry)
            if data is not None:
                yield self._frame(entry.topic, data, entry.position)

    async def _present(self, entry: Moved) -> Any | None:
        services, caller = self._services, self._caller
        match entry.topic:
            case "account":
                return await services.account_view(caller.account_id)
            case "generation":
                job_id = JobId(entry.stream)
                job = await services.generations.job(caller.account_id, job_id)
                return (await present(services, caller, job_id, job)).model_dump()
            case "topup":
                return (await services.payments.topup(PaymentId(entry.stream))).to_json()
            case _:
                return None

    async def _account_frame(self, position: int) -> ServerSentEvent:
        data = await self._services.account_view(self._caller.account_id)
        return self._frame("account", data, position)

    async def _live(self, queue: asyncio.Queue[dict[str, Any]]) -> AsyncIterator[ServerSentEvent]:
        """Wait for news: pass progress on, and return when something durable may have moved."""
        try:
            async with asyncio.timeout(5.0):
                message = await queue.get()
        except TimeoutError:
            return
        while True:
            if message["event"] == "progress":
                message.pop("event")
                yield ServerSentEvent(event="progress", data=msgspec.json.encode(message).decode())
            if queue.empty():
                return
            message = queue.get_nowait()

    def _frame(self, event: str, data: Any, position: int) -> ServerSentEvent:
        frame_id = self._ids.issue(self._caller.account_id, position)
        return ServerSentEvent(event=event, id=frame_id, data=msgspec.json.encode(data).decode())
