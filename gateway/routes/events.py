"""`/v1/events`: everything that moves for one account, as server-sent events.

Durable frames (`account`, `generation`, `topup`) carry an opaque `id` that is bound to the
account; after a reconnect with `Last-Event-ID` nothing durable is missing. `progress` frames have
no id and are only true for the moment: where a waiting job stands whenever that has changed, and how far
a running one is; both are told anew on every connection.

A client that reads slowly gets fewer `progress` frames, each the newest; one that does not read at all is
cut off. What waits for it here is bounded either way.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Annotated, Any

import msgspec
import sqlalchemy as sa
import structlog
from fastapi import APIRouter, Header, Request
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import SendTimeoutError
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from gateway.authentication import Caller
from gateway.identity import Principal
from gateway.problems import Problem
from gateway.routes.generations import present
from gateway.routes.shapes import PROBLEMS_FIELD
from gateway.services import Services
from generation.tables import job_queue
from ledger.identifiers import AccountId, JobId, PaymentId
from projections.feed import Moved

router = APIRouter(prefix="/v1", tags=["events"])
PAGE = 200
STREAM_SECONDS_MAX = 3600
PING_SECONDS = 15
STREAMS_MAX = 20
"""Open streams per account and process; a browser needs one for all its tabs."""
SEND_SECONDS_MAX = 30
"""How long a client may leave a frame unread before its stream is closed."""
STANDING_SECONDS = 2.0
"""How often, at most, it is looked up where an account's waiting jobs stand."""
STANDING_MAX = 10
"""The newest jobs of an account whose standing is told."""


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
    return _Frames(
        stream.frames(start),
        ping=PING_SECONDS,
        send_timeout=SEND_SECONDS_MAX,
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


class _Frames(EventSourceResponse):
    """A stream whose reader may fall asleep: that is no fault of ours."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            structlog.get_logger("gateway.events").info("slow_reader_cut_off")
            raise ClientDisconnect from None


class _Stream:
    """One open stream."""

    def __init__(self, services: Services, caller: Principal, ids: FrameIds) -> None:
        self._services = services
        self._caller = caller
        self._ids = ids
        self._told: dict[str, dict[str, Any]] = {}
        self._looked_at = -STANDING_SECONDS

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
                    async for frame in self._standing():
                        yield frame
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

    async def _standing(self) -> AsyncIterator[ServerSentEvent]:
        """Where waiting jobs stand, if that has changed; how far running ones are, once per connection."""
        now = asyncio.get_running_loop().time()
        if now - self._looked_at < STANDING_SECONDS:
            return
        self._looked_at = now
        told, self._told = self._told, {}
        for row in await self._in_flight():
            told_before = told.get(row.job_id)
            if row.state == "running":
                data = {"id": row.job_id, "state": "running"}
                if row.progress_max and told_before != data:
                    yield _progress({**data, "value": row.progress_value, "max": row.progress_max})
            else:
                data = await self._place(JobId(row.job_id))
                if told_before != data and data:
                    yield _progress(data)
            self._told[row.job_id] = data

    async def _in_flight(self) -> Sequence[Any]:
        query = (
            sa.select(
                job_queue.c.job_id, job_queue.c.state, job_queue.c.progress_value, job_queue.c.progress_max
            )
            .where(
                job_queue.c.account_id == self._caller.account_id,
                job_queue.c.state.in_(("queued", "running")),
            )
            .order_by(job_queue.c.requested_at.desc())
            .limit(STANDING_MAX)
        )
        async with self._services.engine.connect() as connection:
            return (await connection.execute(query)).all()

    async def _place(self, job_id: JobId) -> dict[str, Any]:
        estimate = await self._services.generations.estimate(job_id)
        if estimate is None:  # it was claimed meanwhile
            return {}
        known = estimate.low_seconds is not None
        eta = {"low": estimate.low_seconds, "high": estimate.high_seconds} if known else None
        return {"id": job_id, "state": "queued", "position": estimate.position, "eta_seconds": eta}

    async def _live(self, queue: asyncio.Queue[dict[str, Any]]) -> AsyncIterator[ServerSentEvent]:
        """Wait for news: pass progress on, and return when something durable may have moved."""
        try:
            async with asyncio.timeout(5.0):
                message = await queue.get()
        except TimeoutError:
            return
        newest: dict[str, dict[str, Any]] = {}
        while True:
            if message["event"] == "progress":
                before = newest.pop(message["id"], {})
                newest[message["id"]] = before | {k: v for k, v in message.items() if k != "event"}
            if queue.empty():
                break
            message = queue.get_nowait()
        for data in newest.values():
            yield _progress(data)

    def _frame(self, event: str, data: Any, position: int) -> ServerSentEvent:
        frame_id = self._ids.issue(self._caller.account_id, position)
        return ServerSentEvent(event=event, id=frame_id, data=msgspec.json.encode(data).decode())


def _progress(data: dict[str, Any]) -> ServerSentEvent:
    return ServerSentEvent(event="progress", data=msgspec.json.encode(data).decode())
