"""The WebSocket side: which socket has which client id, and how messages are framed."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Mapping
from typing import Any

from aiohttp import WSCloseCode, web

PREVIEW = 1
PREVIEW_WITH_METADATA = 4
_IMAGE_TYPES = {"image/jpeg": 1, "image/png": 2}

SERVER_FEATURES: Mapping[str, Any] = {"supports_preview_metadata": True, "max_upload_size": 104857600}


class Sockets:
    """Sockets by client id. Messages may be sent from any thread and keep their order."""

    def __init__(self) -> None:
        self._sockets: dict[str, web.WebSocketResponse] = {}
        self._flags: dict[str, Mapping[str, Any]] = {}
        self._outbox: asyncio.Queue[tuple[str | bytes | None, str | None]] = asyncio.Queue()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def deliver(self) -> None:
        """Send what is queued, for ever; one task of this per server."""
        self._loop = asyncio.get_running_loop()
        while True:
            frame, client_id = await self._outbox.get()
            if frame is None:
                await self._close_all()
                continue
            for socket in self._receivers(client_id):
                await _send(socket, frame)

    def _receivers(self, client_id: str | None) -> list[web.WebSocketResponse]:
        if client_id is None:
            return list(self._sockets.values())
        socket = self._sockets.get(client_id)
        return [] if socket is None else [socket]

    async def _close_all(self) -> None:
        for socket in list(self._sockets.values()):
            await socket.close(code=WSCloseCode.GOING_AWAY)

    def open(self, client_id: str, socket: web.WebSocketResponse) -> None:
        """Register a socket; an older one of this id stays open and receives nothing more."""
        self._sockets[client_id] = socket
        self._flags[client_id] = {}

    def closed(self, client_id: str) -> None:
        """Forget the id. As in the original, a newer socket of the same id receives nothing more either."""
        self._sockets.pop(client_id, None)
        self._flags.pop(client_id, None)

    def remember_flags(self, client_id: str, flags: Mapping[str, Any]) -> None:
        """Keep the feature flags that a client announced."""
        self._flags[client_id] = flags

    def wants_metadata(self, client_id: str | None) -> bool:
        """Whether previews for this client carry their prompt id."""
        return bool(self._flags.get(client_id or "", {}).get("supports_preview_metadata"))

    def send(self, kind: str, data: Mapping[str, Any], client_id: str | None = None) -> None:
        """Queue a JSON message to one client, or to all when `client_id` is None."""
        self._put(json.dumps({"type": kind, "data": data}), client_id)

    def send_image(
        self, image: bytes, content_type: str, metadata: Mapping[str, Any] | None, client_id: str | None
    ) -> None:
        """Queue a binary image: type 4 with metadata, or type 1 without."""
        if metadata is None:
            header = struct.pack(">II", PREVIEW, _IMAGE_TYPES[content_type])
        else:
            text = json.dumps({**metadata, "image_type": content_type}).encode()
            header = struct.pack(">II", PREVIEW_WITH_METADATA, len(text)) + text
        self._put(header + image, client_id)

    def drop_all(self) -> None:
        """Queue the closing of every socket."""
        self._put(None, None)

    def _put(self, frame: str | bytes | None, client_id: str | None) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._outbox.put_nowait, (frame, client_id))


async def _send(socket: web.WebSocketResponse, frame: str | bytes) -> None:
    try:
        if isinstance(frame, str):
            await socket.send_str(frame)
        else:
            await socket.send_bytes(frame)
    except ConnectionError:
        # The reader of this socket notices the same and forgets it.
        return
