"""One WebSocket to a ComfyUI server: a fresh client id, the handshake, decoded messages."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from worker.comfyui.faults import ServerUnreachable

_PREVIEW = 1
_PREVIEW_WITH_METADATA = 4
_IMAGE_TYPES = {1: "image/jpeg", 2: "image/png"}
MESSAGE_LIMIT = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Message:
    """A JSON message."""

    kind: str
    data: dict[str, Any]

    @property
    def prompt_id(self) -> str | None:
        """The prompt it speaks of, if any."""
        found = self.data.get("prompt_id")
        return found if isinstance(found, str) else None


@dataclass(frozen=True, slots=True)
class Picture:
    """A binary image. `prompt_id` and `node` are None in frames of type 1."""

    content: bytes
    content_type: str
    prompt_id: str | None
    node: str | None


Frame: TypeAlias = Message | Picture


class _Event(msgspec.Struct):
    type: str
    data: dict[str, Any] | None = None


class _About(msgspec.Struct):
    """What is written in front of an image of type 4."""

    image_type: str = "image/jpeg"
    prompt_id: str | None = None
    node_id: str | None = None


class ComfySocket:
    """Yields frames until the server closes the connection."""

    def __init__(self, connection: ClientConnection, client_id: str) -> None:
        self._connection = connection
        self.client_id = client_id

    async def frames(self) -> AsyncIterator[Frame]:
        """Frames that we understand; ends quietly when the connection is gone."""
        try:
            async for raw in self._connection:
                frame = decode_frame(raw)
                if frame is not None:
                    yield frame
        except ConnectionClosed:
            return


def decode_frame(raw: str | bytes) -> Frame | None:
    """Decode one frame; None for kinds and shapes unknown to us."""
    if isinstance(raw, str):
        try:
            message = msgspec.json.decode(raw, type=_Event)
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            return None
        return Message(message.type, message.data or {})
    if len(raw) < 8:
        return None
    kind, second = struct.unpack(">II", raw[:8])
    if kind == _PREVIEW and second in _IMAGE_TYPES:
        return Picture(raw[8:], _IMAGE_TYPES[second], None, None)
    if kind == _PREVIEW_WITH_METADATA and len(raw) >= 8 + second:
        try:
            about = msgspec.json.decode(raw[8 : 8 + second], type=_About)
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            return None
        return Picture(raw[8 + second :], about.image_type, about.prompt_id, about.node_id)
    return None


@asynccontextmanager
async def open_socket(base_url: str, client_id: str, timeout_seconds: float) -> AsyncIterator[ComfySocket]:
    """Connect under a client id that was never used before.

    Two sockets with one id deafen the newer when the older closes, hence the fresh id. Asks
    for previews that name their prompt. Raises `ServerUnreachable`.
    """
    address = "ws" + base_url.removeprefix("http").rstrip("/") + f"/ws?clientId={client_id}"
    try:
        connection = await connect(
            address,
            open_timeout=timeout_seconds,
            max_size=MESSAGE_LIMIT,
            ping_interval=None,
            proxy=None,
            # On loopback, and of pictures, which are compressed already: a fifth of the worker's processor time.
            compression=None,
        )
    except (OSError, TimeoutError, InvalidHandshake, InvalidURI, ConnectionClosed) as fault:
        raise ServerUnreachable(type(fault).__name__) from fault
    try:
        flags = {"type": "feature_flags", "data": {"supports_preview_metadata": True}}
        await connection.send(msgspec.json.encode(flags).decode())
        yield ComfySocket(connection, client_id)
    except ConnectionClosed as fault:
        raise ServerUnreachable("closed during the handshake") from fault
    finally:
        await connection.close()
