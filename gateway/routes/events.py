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
import hashlib
import hmac
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import sqlalchemy as sa
import structlog
from fastapi import APIRouter, Depends, Header, Request
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncEngine
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import SendTimeoutError
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from gateway.auth.identity import Principal
from gateway.auth.networks import prefixes
from gateway.auth.sessions import Sessions
from gateway.bounds.streams import OpenStream, OpenStreams
from gateway.http.problems import Problem
from gateway.routes.bounded import BoundedRoute
from gateway.routes.generation_shapes import GenerationStateOut, ProgressOut
from gateway.routes.presenting import account_state, eta, generation_state, topup_shown
from gateway.routes.shapes import PROBLEMS_FIELD, AccountStateOut, TopupOut
from gateway.wiring.dependencies import (
    Caller,
    ClockDep,
    EngineDep,
    FeedsDep,
    GenerationsDep,
    LedgerDep,
    OpenStreamsDep,
    OriginsDep,
    OwnershipDep,
    PaymentsDep,
    ProjectionsDep,
    SessionsDep,
    SettingsDep,
    SignalsDep,
)
from generation.jobs.service import Generations
from generation.queueing.signals import RedisSignals
from generation.store.tables import job_queue
from ledger.clock import Clock
from ledger.identifiers import AccountId, JobId, PaymentId
from ledger.ownership import Ownership
from ledger.service import Ledger
from projections.feed import Feeds, Moved
from projections.runner import ProjectionRunner
from rails.payments.service import Payments

router = APIRouter(route_class=BoundedRoute, prefix="/v1", tags=["events"])
PAGE = 200
STREAM_SECONDS_MAX = 3600
PING_SECONDS = 15
LOOK_SECONDS = 5.0
"""How often, at least, it is looked whether something moved."""
SEND_SECONDS_MAX = 30
"""How long a client may leave a frame unread before its stream is closed."""
OPEN_SECONDS = 2.0
"""How often, at most, it is looked up where an account's waiting jobs stand."""
OPEN_MAX = 10
"""The newest jobs of an account whose standing is told."""
FRAMES: Mapping[str, type[BaseModel]] = {
    "account": AccountStateOut,
    "generation": GenerationStateOut,
    "topup": TopupOut,
    "progress": ProgressOut,
}
"""What the data of a frame is, by its event."""


class FrameIds:
    """Ids of durable frames: a log position, signed for one account."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def issue(self, account_id: AccountId, position: int) -> str:
        """The id of a frame."""
        return f"{position}.{self._sign(account_id, position)}"

    def read(self, accounts: Iterable[str], frame_id: str) -> int:
        """The position. Raises `Problem` 400 for an id that is none of these accounts'."""
        text, _, signature = frame_id.partition(".")
        if text.isascii() and text.isdecimal() and len(text) <= 18:
            for account_id in accounts:
                expected = self._sign(account_id, int(text))
                if hmac.compare_digest(signature.encode(), expected.encode()):
                    return int(text)
        raise Problem("bad_last_event_id", "This Last-Event-ID is not from this account's stream.")

    def _sign(self, account_id: str, position: int) -> str:
        message = f"{account_id}.{position}".encode()
        digest = hmac.new(self._secret, message, hashlib.sha256).digest()[:12]
        return base64.urlsafe_b64encode(digest).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What a stream shows, and what wakes it."""

    signals: RedisSignals
    projections: ProjectionRunner
    feeds: Feeds
    ledger: Ledger
    ownership: Ownership
    generations: Generations
    payments: Payments
    engine: AsyncEngine
    streams: OpenStreams
    sessions: Sessions
    clock: Clock


async def sources_of(
    signals: SignalsDep,
    projections: ProjectionsDep,
    feeds: FeedsDep,
    ledger: LedgerDep,
    ownership: OwnershipDep,
    generations: GenerationsDep,
    payments: PaymentsDep,
    engine: EngineDep,
    streams: OpenStreamsDep,
    sessions: SessionsDep,
    clock: ClockDep,
) -> Sources:
    """Dependency: what a stream shows."""
    return Sources(
        signals=signals,
        projections=projections,
        feeds=feeds,
        ledger=ledger,
        ownership=ownership,
        generations=generations,
        payments=payments,
        engine=engine,
        streams=streams,
        sessions=sessions,
        clock=clock,
    )


@router.get(
    "/events",
    summary="Follow an account live",
    response_class=EventSourceResponse,
    response_description="A stream of frames; see Live events.",
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
    openapi_extra={PROBLEMS_FIELD: ["bad_last_event_id", "too_many_streams", "streams_busy"]},
)
async def events(
    request: Request,
    caller: Caller,
    origins: OriginsDep,
    settings: SettingsDep,
    sources: Annotated[Sources, Depends(sources_of)],
    last_event_id: Annotated[str | None, Header(max_length=100)] = None,
) -> EventSourceResponse:
    """Server-sent events. Reconnect with `Last-Event-ID` (browsers do) and nothing is missed."""
    ids = FrameIds(settings.secret_for("event-frames"))
    network = prefixes(origins.address(request))[-1]
    accounts = await sources.ownership.accounts_of(caller.account_id)
    start = ids.read(accounts, last_event_id) if last_event_id else None
    place = sources.streams.take(caller.account_id, network)
    response = _Frames(
        _Stream(sources, place, caller, ids, accounts).frames(start),
        ping=PING_SECONDS,
        send_timeout=SEND_SECONDS_MAX,
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )
    response.on_close = partial(sources.streams.close, place)
    return response


class _Frames(EventSourceResponse):
    """A stream whose reader may fall asleep: that is no fault of ours."""

    on_close: Callable[[], None]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            structlog.get_logger("gateway.events").info("slow_reader_cut_off")
            raise ClientDisconnect from None
        finally:
            self.on_close()


class _Stream:
    """One open stream."""

    def __init__(
        self,
        sources: Sources,
        place: OpenStream,
        caller: Principal,
        ids: FrameIds,
        accounts: Sequence[str],
    ) -> None:
        self._sources = sources
        self._slot = place
        self._account_id = caller.account_id
        self._accounts = accounts
        self._credential = caller.credential
        self._ids = ids
        self._shown: dict[str, ProgressOut | None] = {}
        self._looked_at = -OPEN_SECONDS

    async def frames(self, start: int | None) -> AsyncIterator[ServerSentEvent]:
        """The account as it is, then everything that moves."""
        sources, now = self._sources, asyncio.get_running_loop().time
        async with sources.signals.watch(*self._accounts) as queue:
            self._slot.on_end = partial(_wake, queue)
            position = sources.projections.position if start is None else start
            yield self._frame("account", await self._account(), position)
            until = now() + STREAM_SECONDS_MAX
            while (
                now() < until
                and not sources.signals.closed
                and not self._slot.ended
                and self._seconds_left() > 0
            ):
                moved = await sources.feeds.after(self._account_id, position, PAGE)
                async for frame in self._durable(moved):
                    yield frame
                if moved:
                    position = moved[-1].position
                    continue
                async for frame in self._status():
                    yield frame
                async for frame in self._live(queue):
                    yield frame

    def _seconds_left(self) -> float:
        """How long the token still counts that this stream was opened with; 0 if it was ended."""
        credential = self._credential
        if credential is None:
            return STREAM_SECONDS_MAX
        if self._sources.sessions.is_ended(self._account_id, credential):
            return 0
        return (credential.expires_at - self._sources.clock()).total_seconds()

    async def _durable(self, moved: Sequence[Moved]) -> AsyncIterator[ServerSentEvent]:
        """One frame per thing that moved, showing it as it is now."""
        newest: dict[str, Moved] = {}
        for entry in moved:
            newest.pop(entry.stream, None)
            newest[entry.stream] = entry
        for entry in newest.values():
            shown = await self._present(entry)
            if shown is not None:
                yield self._frame(entry.topic, shown, entry.position)

    async def _present(self, entry: Moved) -> BaseModel | None:
        match entry.topic:
            case "account":
                return await self._account()
            case "generation":
                job_id, generations = JobId(entry.stream), self._sources.generations
                job = await generations.job(self._account_id, job_id)
                return await generation_state(generations, job_id, job)
            case "topup":
                return topup_shown(await self._sources.payments.topup(PaymentId(entry.stream)))
            case _:
                return None

    async def _account(self) -> BaseModel:
        return account_state(self._account_id, await self._sources.ledger.account(self._account_id))

    async def _status(self) -> AsyncIterator[ServerSentEvent]:
        """Where waiting jobs stand, if that has changed; how far running ones are, once per connection."""
        now = asyncio.get_running_loop().time()
        if now - self._looked_at < OPEN_SECONDS:
            return
        self._looked_at = now
        before, self._shown = self._shown, {}
        for row in await self._in_flight():
            state = await self._state(row)
            # How far a running job is comes by itself: here only that it runs, and what is known of it so far.
            known = ProgressOut(id=row.job_id, state="running") if row.state == "running" else state
            if state is not None and before.get(row.job_id) != known:
                yield _progress(state)
            self._shown[row.job_id] = known

    async def _state(self, row: Any) -> ProgressOut | None:
        if row.state != "running":
            return await self._place(JobId(row.job_id))
        if not row.progress_max:
            return None
        return ProgressOut(id=row.job_id, state="running", value=row.progress_value, max=row.progress_max)

    async def _place(self, job_id: JobId) -> ProgressOut | None:
        estimate = await self._sources.generations.estimate(job_id)
        if estimate is None:  # it was claimed meanwhile
            return None
        return ProgressOut(
            id=job_id,
            state="queued",
            position=estimate.position,
            eta_seconds=eta(estimate),
            workers=estimate.workers,
        )

    async def _in_flight(self) -> Sequence[Any]:
        query = (
            sa.select(
                job_queue.c.job_id, job_queue.c.state, job_queue.c.progress_value, job_queue.c.progress_max
            )
            .where(
                job_queue.c.account_id.in_(self._accounts),
                job_queue.c.state.in_(("queued", "running")),
            )
            .order_by(job_queue.c.requested_at.desc())
            .limit(OPEN_MAX)
        )
        async with self._sources.engine.connect() as connection:
            return (await connection.execute(query)).all()

    async def _live(self, queue: asyncio.Queue[dict[str, Any]]) -> AsyncIterator[ServerSentEvent]:
        """Wait for news: pass progress on, and return when something durable may have moved."""
        try:
            async with asyncio.timeout(min(LOOK_SECONDS, max(self._seconds_left(), 0))):
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
            yield _progress(ProgressOut.model_validate(data))

    def _frame(self, event: str, shown: BaseModel, position: int) -> ServerSentEvent:
        frame_id = self._ids.issue(self._account_id, position)
        return ServerSentEvent(event=event, id=frame_id, data=_json(shown))


def _wake(queue: asyncio.Queue[dict[str, Any]]) -> None:
    if not queue.full():
        queue.put_nowait({"event": "ended"})


def _progress(shown: ProgressOut) -> ServerSentEvent:
    return ServerSentEvent(event="progress", data=_json(shown))


def _json(shown: BaseModel) -> str:
    return shown.model_dump_json(exclude_unset=True, by_alias=True)
