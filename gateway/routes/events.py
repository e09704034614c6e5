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
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, Header, Request
from pydantic import BaseModel
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import SendTimeoutError
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from gateway.auth.identity import Principal
from gateway.auth.networks import prefixes
from gateway.auth.sessions import Sessions
from gateway.bounds.streams import OpenStream, OpenStreams
from gateway.http.codes import BUSY
from gateway.http.problems import Problem, log_fault, problem_of
from gateway.routes.bounded import BoundedRoute
from gateway.routes.generation_shapes import GenerationStateOut, ProgressOut
from gateway.routes.presenting import account_state, eta, generation_state, topup_shown
from gateway.routes.shapes import PROBLEMS_FIELD, AccountStateOut, TopupOut
from gateway.streams.news import News, Seen
from gateway.wiring.dependencies import (
    Caller,
    ClockDep,
    FeedsDep,
    GenerationsDep,
    LedgerDep,
    NewsDep,
    OpenStreamsDep,
    OriginsDep,
    OwnershipDep,
    PaymentsDep,
    ProjectionsDep,
    SessionsDep,
    SettingsDep,
    SignalsDep,
)
from generation.domain.states import JobState
from generation.jobs.service import Generations
from generation.queueing.estimating import Estimate
from generation.queueing.queue import JobInFlight
from generation.queueing.signals import RedisSignals
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
"""How often, at least, it is looked whether the stream must end. That asks nobody."""
SEND_SECONDS_MAX = 30
"""How long a client may leave a frame unread before its stream is closed."""
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
    news: News
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
    news: NewsDep,
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
        news=news,
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
        self._position: int | None = None

    async def frames(self, start: int | None) -> AsyncIterator[ServerSentEvent]:
        """The account as it is, then everything that moves. Ends where neither can be known just now: the head is
        sent, so no other answer can be, and the reader comes again to where it was."""
        async with aclosing(self._everything(start)) as frames:
            try:
                async for frame in frames:
                    yield frame
            except Exception as error:
                problem = problem_of(error)
                if problem.code == "internal":
                    raise
                if problem.code in BUSY:
                    structlog.get_logger("gateway.events").info("stream_cut_short", code=problem.code)
                else:
                    log_fault("/v1/events", problem, error)

    async def _everything(self, start: int | None) -> AsyncGenerator[ServerSentEvent, None]:
        until = asyncio.get_running_loop().time() + STREAM_SECONDS_MAX
        while self._goes_on(until):
            async with self._sources.signals.watch(*self._accounts) as queue:
                self._slot.on_end = partial(_wake, queue)
                if self._position is None:
                    self._position = self._sources.projections.position if start is None else start
                    yield self._frame("account", await self._account(), self._position)
                async for frame in self._while_watched(queue, until):
                    yield frame
            self._accounts = await self._sources.ownership.accounts_of(self._account_id)

    async def _while_watched(
        self, queue: asyncio.Queue[dict[str, Any]], until: float
    ) -> AsyncIterator[ServerSentEvent]:
        """Until the stream ends, or there is another account to watch: whoever was merged into this one."""
        async for frame in self._catch_up():
            yield frame
        for shown in self._status(await self._sources.news.in_flight(self._accounts)):
            yield _progress(shown)
        while self._goes_on(until):
            received = await self._received(queue)
            for data in received.progress:
                yield _progress(ProgressOut.model_validate(data))
            if received.merged:
                return
            if received.moved:
                async for frame in self._catch_up():
                    yield frame
            if received.in_flight:
                for shown in self._status(self._sources.news.known(self._accounts)):
                    yield _progress(shown)

    def _goes_on(self, until: float) -> bool:
        return (
            asyncio.get_running_loop().time() < until
            and not self._sources.signals.closed
            and not self._slot.ended
            and self._seconds_left() > 0
        )

    def _seconds_left(self) -> float:
        """How long the token still counts that this stream was opened with; 0 if it was ended."""
        credential = self._credential
        if credential is None:
            return STREAM_SECONDS_MAX
        if self._sources.sessions.is_ended(self._account_id, credential):
            return 0
        return (credential.expires_at - self._sources.clock()).total_seconds()

    async def _catch_up(self) -> AsyncIterator[ServerSentEvent]:
        """Everything durable past the last position."""
        assert self._position is not None, "it begins somewhere"
        while moved := await self._sources.feeds.after(self._accounts, self._position, PAGE):
            if any(entry.topic == "generation" for entry in moved):
                self._sources.news.hurry()
            async for frame in self._durable(moved):
                yield frame
            self._position = moved[-1].position
            if len(moved) < PAGE:  # of whatever comes later we are told
                return

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
                return await self._account(entry.position)
            case "generation":
                job_id, generations = JobId(entry.stream), self._sources.generations
                job = await generations.job(self._account_id, job_id, including=entry.position)
                return await generation_state(generations, self._sources.payments, job_id, job)
            case "topup":
                return topup_shown(await self._sources.payments.topup(PaymentId(entry.stream)))
            case _:
                return None

    async def _account(self, including: int | None = None) -> BaseModel:
        account = await self._sources.ledger.account(self._account_id, including=including)
        return account_state(self._account_id, account)

    def _status(self, jobs: Sequence[Seen]) -> Iterator[ProgressOut]:
        """Where waiting jobs stand, if that has changed; how far running ones are, once per connection."""
        before, self._shown = self._shown, {}
        for job, foreseen in jobs:
            state = _state(job, foreseen)
            # How far a running job is comes by itself: here only that it runs, and what is known of it so far.
            known = ProgressOut(id=job.job_id, state="running") if job.place is None else state
            if state is not None and before.get(job.job_id) != known:
                yield state
            self._shown[job.job_id] = known

    async def _received(self, queue: asyncio.Queue[dict[str, Any]]) -> _Received:
        """Wait for news, and take all that have come. Nothing where none comes for `LOOK_SECONDS`."""
        try:
            async with asyncio.timeout(min(LOOK_SECONDS, max(self._seconds_left(), 0))):
                message = await queue.get()
        except TimeoutError:
            return _Received()
        received, newest = _Received(), dict[str, dict[str, Any]]()
        while True:
            match message["event"]:
                case "progress":
                    before = newest.pop(message["id"], {})
                    newest[message["id"]] = before | {k: v for k, v in message.items() if k != "event"}
                case "moved":
                    received.moved |= message.get("position", math.inf) > (self._position or 0)
                case "in_flight":
                    received.in_flight = True
                case "merged":
                    received.merged = True
                case _:  # that it may have to end: it looks by itself
                    pass
            if queue.empty():
                break
            message = queue.get_nowait()
        received.progress = list(newest.values())
        return received

    def _frame(self, event: str, shown: BaseModel, position: int) -> ServerSentEvent:
        frame_id = self._ids.issue(self._account_id, position)
        return ServerSentEvent(event=event, id=frame_id, data=_json(shown))


@dataclass(slots=True)
class _Received:
    """What a stream was told."""

    progress: Sequence[Mapping[str, Any]] = ()
    """The newest of each job."""
    moved: bool = False
    in_flight: bool = False
    merged: bool = False


def _state(job: JobInFlight, foreseen: Estimate | None) -> ProgressOut | None:
    if foreseen is not None:
        return ProgressOut(
            id=job.job_id,
            state="queued",
            position=foreseen.position,
            eta_seconds=eta(foreseen),
            workers=foreseen.workers,
        )
    if job.state != JobState.RUNNING.value or not job.progress_max:
        return None
    return ProgressOut(id=job.job_id, state="running", value=job.progress_value, max=job.progress_max)


def _wake(queue: asyncio.Queue[dict[str, Any]]) -> None:
    if not queue.full():
        queue.put_nowait({"event": "ended"})


def _progress(shown: ProgressOut) -> ServerSentEvent:
    return ServerSentEvent(event="progress", data=_json(shown))


def _json(shown: BaseModel) -> str:
    return shown.model_dump_json(exclude_unset=True, by_alias=True)
