"""Wake-ups and progress: notifications that may get lost without harm. PostgreSQL is the truth."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

import msgspec
import redis.asyncio as redis
import structlog
from redis.exceptions import RedisError

JOBS_CHANNEL = "llamasketch:jobs"
ACCOUNT_CHANNEL = "llamasketch:account:"
MOVED_CHANNEL = "llamasketch:moved"
"""Of which accounts something durable happened: a list for each page of the log."""
MESSAGES_APART_SECONDS = 0.005
"""Between two messages that work has arrived. This process's own claims are woken at once."""
WATCHED_MAX = 64
"""Messages that wait for one watcher. Each is a notification, and replaced by a newer one: the oldest are dropped."""


class Signals(Protocol):
    """Who waits for work is woken; who watches an account is told. Losing one costs only time."""

    closed: bool
    """Whether this process is about to stop: waiting has no sense any more."""

    async def work_arrived(self) -> None:
        """Wake the waiting claims of all processes."""

    def news(self) -> asyncio.Event:
        """Set as soon as work arrives from now on. Take it before looking, and nothing slips through."""

    async def wait_for_work(self, timeout_seconds: float, news: asyncio.Event | None = None) -> None:
        """Return when work may have arrived, or after the time-out."""

    async def publish(self, account_id: str, message: dict[str, Any]) -> None:
        """Send a small JSON message to whoever watches this account now."""

    async def moved(self, accounts: Sequence[str]) -> None:
        """Tell whoever watches one of these accounts that something durable happened to it."""

    def watch(self, *accounts: str) -> contextlib.AbstractAsyncContextManager[asyncio.Queue[dict[str, Any]]]:
        """Messages for these accounts while the context lasts; a full queue drops the oldest."""


class LocalSignals:
    """Signals within one process: the fallback when Redis is away, and the fake in tests."""

    def __init__(self) -> None:
        self._arrived = asyncio.Event()
        self._watchers: dict[str, set[asyncio.Queue[dict[str, Any]]]] = {}
        self.closed = False

    def close(self) -> None:
        """Everything that waits here comes to an end. Safe to call from a signal handler."""
        self.closed = True
        self._arrived.set()
        for account_id in self._watchers:
            self.deliver(account_id, {"event": "closed"})

    def session_ended(self, account_id: str) -> None:
        """Whoever watches this account in this process looks again whether they still may."""
        self.deliver(account_id, {"event": "session_ended"})

    async def work_arrived(self) -> None:
        """See `Signals.work_arrived`."""
        self.wake()

    def wake(self) -> None:
        """Wake the claims that wait in this process."""
        arrived, self._arrived = self._arrived, asyncio.Event()
        arrived.set()

    def news(self) -> asyncio.Event:
        """See `Signals.news`."""
        return self._arrived

    async def wait_for_work(self, timeout_seconds: float, news: asyncio.Event | None = None) -> None:
        """See `Signals.wait_for_work`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await (news or self._arrived).wait()

    async def publish(self, account_id: str, message: dict[str, Any]) -> None:
        """See `Signals.tell`."""
        self.deliver(account_id, message)

    async def moved(self, accounts: Sequence[str]) -> None:
        """See `Signals.moved`."""
        for account_id in accounts:
            self.deliver(account_id, {"event": "moved"})

    def deliver(self, account_id: str, message: dict[str, Any]) -> None:
        """Hand a message to this process's watchers."""
        for queue in self._watchers.get(account_id, ()):
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(message)

    def watched(self) -> list[str]:
        """The accounts that somebody watches in this process."""
        return list(self._watchers)

    @contextlib.asynccontextmanager
    async def watch(self, *accounts: str) -> AsyncIterator[asyncio.Queue[dict[str, Any]]]:
        """See `Signals.watch`."""
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(maxsize=WATCHED_MAX)
        for account_id in accounts:
            self._watchers.setdefault(account_id, set()).add(queue)
        try:
            yield queue
        finally:
            for account_id in accounts:
                watchers = self._watchers[account_id]
                watchers.discard(queue)
                if not watchers:
                    del self._watchers[account_id]


class RedisSignals(LocalSignals):
    """Signals among processes by Redis or Valkey pub/sub. `run` it as a task.

    While Redis is away everything within this process still works; `connected` tells health.
    """

    def __init__(self, client: redis.Redis) -> None:
        super().__init__()
        self._client = client
        self._sending: set[asyncio.Future[None]] = set()
        self._unannounced = False
        """Whether work has arrived that other processes have not been told of."""
        self._announcing: asyncio.Future[None] | None = None
        self._log = structlog.get_logger("generation.queueing.signals")
        self.connected = False

    async def work_arrived(self) -> None:
        """See `Signals.work_arrived`."""
        self.wake()
        self._unannounced = True
        if self._announcing is None:
            self._announcing = asyncio.ensure_future(self._announce())
            self.remember(self._announcing)

    async def _announce(self) -> None:
        """One message for all work that arrives while the one before is on its way, or soon after it."""
        try:
            while self._unannounced:
                self._unannounced = False
                await self._publish(JOBS_CHANNEL, b"1")
                await asyncio.sleep(MESSAGES_APART_SECONDS)
        finally:
            self._announcing = None

    async def publish(self, account_id: str, message: dict[str, Any]) -> None:
        """See `Signals.tell`."""
        if not await self._publish(ACCOUNT_CHANNEL + account_id, msgspec.json.encode(message)):
            self.deliver(account_id, message)

    async def moved(self, accounts: Sequence[str]) -> None:
        """See `Signals.moved`. One message for all of them, however many."""
        if not await self._publish(MOVED_CHANNEL, msgspec.json.encode(accounts)):
            await super().moved(accounts)

    async def _publish(self, channel: str, payload: bytes) -> bool:
        try:
            async with asyncio.timeout(1.0):
                await self._client.publish(channel, payload)
        except (RedisError, OSError, TimeoutError) as error:
            self._log.debug("publish_failed", error=type(error).__name__)
            return False
        return self.connected

    def remember(self, sending: asyncio.Future[None]) -> None:
        """Keep a message that is on its way from being forgotten by the loop."""
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)

    async def run(self) -> None:
        """Listen for ever; reconnect after a loss, waking everybody once."""
        while True:
            try:
                await self._listen()
            except (RedisError, OSError) as error:
                self._log.warning("redis_lost", error=type(error).__name__)
            finally:
                self.connected = False
            self.wake()
            await asyncio.sleep(0.5)

    async def _listen(self) -> None:
        async with self._client.pubsub() as pubsub:
            await pubsub.subscribe(JOBS_CHANNEL, MOVED_CHANNEL)
            await pubsub.psubscribe(ACCOUNT_CHANNEL + "*")
            self.connected = True
            self.wake()
            async for message in pubsub.listen():
                if message["type"] == "message" and message["channel"] == MOVED_CHANNEL.encode():
                    await super().moved(msgspec.json.decode(message["data"]))
                elif message["type"] == "message":
                    self.wake()
                elif message["type"] == "pmessage":
                    account_id = message["channel"].decode().removeprefix(ACCOUNT_CHANNEL)
                    self.deliver(account_id, msgspec.json.decode(message["data"]))
