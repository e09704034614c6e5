"""One gRPC channel to the node: deadlines, typed errors, and new credentials without a restart."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import structlog
from lndgrpc.compiled import invoices_pb2_grpc, lightning_pb2_grpc, router_pb2_grpc, stateservice_pb2_grpc

from rails.lightning.credentials import CredentialFiles, Version
from rails.lightning.errors import AnswerUnreadable, meaning

DEADLINE_SECONDS = 10
CLOSE_GRACE_SECONDS = 1
RECONNECT_SECONDS = 1
"""How long a call waits for a channel that has lost its node: long enough for a node that is back."""
# LND's server counts pings that come more often than every 5 s, or without a stream, as abuse.
_OPTIONS = (
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    # Despite its name this is how long one attempt to connect may take, TLS included.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_receive_message_length", 32 * 1024 * 1024),
    ("grpc.enable_retries", 0),
)

Pick = Callable[["Stubs"], Any]
"""Chooses a method of the stubs."""


@dataclass(frozen=True, slots=True)
class Stubs:
    """The compiled stubs on one channel. They carry no types."""

    state: Any
    lightning: Any
    invoices: Any
    router: Any


@dataclass(frozen=True, slots=True)
class _Live:
    channel: grpc.aio.Channel
    stubs: Stubs
    metadata: tuple[tuple[str, str], ...]
    versions: tuple[Version, Version]


class Connection:
    """Calls the node. Replaced certificate and macaroon files are picked up at the next call."""

    def __init__(
        self, address: str, files: CredentialFiles, deadline_seconds: int = DEADLINE_SECONDS
    ) -> None:
        self._address = address
        self._files = files
        self._deadline_seconds = deadline_seconds
        self._live: _Live | None = None
        self._retired: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger()

    async def call(self, pick: Pick, request: Any, *, method: str, wait_ms: int | None = None) -> Any:
        """One unary call, `wait_ms` long at most. Raises `RailUnavailable` or an `LndRefused`."""
        live = self._current()
        await _reconnected(live.channel)
        try:
            answer: Awaitable[Any] = pick(live.stubs)(
                request,
                timeout=self._deadline_seconds if wait_ms is None else wait_ms * 0.001,
                metadata=live.metadata,
            )
            return _read(await answer, method)
        except grpc.aio.AioRpcError as error:
            raise meaning(error, method) from None

    async def stream(
        self, pick: Pick, request: Any, *, method: str, seconds: int | None = None
    ) -> AsyncGenerator[Any, None]:
        """A stream of messages until the node ends it. Raises like `call`."""
        live = self._current()
        call = pick(live.stubs)(request, timeout=seconds, metadata=live.metadata)
        try:
            async for message in call:
                yield _read(message, method)
        except grpc.aio.AioRpcError as error:
            raise meaning(error, method) from None
        finally:
            call.cancel()

    async def close(self) -> None:
        """Let go of the channel; calls under way are cancelled."""
        if self._live is not None:
            await self._live.channel.close()
            self._live = None
        await asyncio.gather(*self._retired)

    def _current(self) -> _Live:
        versions = self._files.versions()
        if self._live is not None and self._live.versions == versions:
            return self._live
        if self._live is not None:
            self._log.info("lnd_credentials_replaced", address=self._address)
            closing = asyncio.create_task(self._live.channel.close(CLOSE_GRACE_SECONDS))
            self._retired.add(closing)
            closing.add_done_callback(self._retired.discard)
        self._live = self._connect(versions)
        return self._live

    def _connect(self, versions: tuple[Version, Version]) -> _Live:
        credentials = grpc.ssl_channel_credentials(self._files.read_certificate())
        channel = grpc.aio.secure_channel(self._address, credentials, options=_OPTIONS)
        stubs = Stubs(
            state=stateservice_pb2_grpc.StateStub(channel),
            lightning=lightning_pb2_grpc.LightningStub(channel),
            invoices=invoices_pb2_grpc.InvoicesStub(channel),
            router=router_pb2_grpc.RouterStub(channel),
        )
        metadata = (("macaroon", self._files.read_macaroon().hex()),)
        return _Live(channel, stubs, metadata, versions)


def _read(message: Any, method: str) -> Any:
    """None is what gRPC gives for bytes that are no such message. Raises `AnswerUnreadable`."""
    if message is None:
        raise AnswerUnreadable(f"{method}: the answer cannot be read")
    return message


async def _reconnected(channel: grpc.aio.Channel) -> None:
    """Give a broken channel a moment. gRPC itself fails such calls at once, until its next attempt."""
    state = channel.get_state(try_to_connect=True)
    if state is not grpc.ChannelConnectivity.TRANSIENT_FAILURE:
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(RECONNECT_SECONDS):
            while state is not grpc.ChannelConnectivity.READY:
                await channel.wait_for_state_change(state)
                state = channel.get_state(try_to_connect=True)
