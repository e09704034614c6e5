"""A stranger's server: answers what it is told to, byte by byte."""

from __future__ import annotations

import asyncio
import json
import ssl
from typing import Any, Self

from rails.lightning import bech32


def _http(value: Any) -> bytes:
    body = json.dumps(value).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


class Stranger:
    """Listens on loopback while it is entered."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.asked: list[str] = []
        self.connections = 0
        self.raw: bytes | None = None
        """Sent to every question, instead of what `says` was told."""
        self.hangs = False
        """Never ends the connection by itself."""
        self._who: Any = None
        self._made: Any = None
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    @property
    def address(self) -> str:
        """Whom to ask."""
        return f"http://127.0.0.1:{self.port}/who"

    @property
    def lnurl(self) -> str:
        """The same as an LNURL."""
        return bech32.encode("lnurl", self.address.encode())

    def who(self) -> dict[str, Any]:
        """Somebody who can be paid."""
        callback = f"http://127.0.0.1:{self.port}/callback?session=1"
        return {"tag": "payRequest", "callback": callback, "minSendable": 1_000, "maxSendable": 10**9}

    def says(self, who: Any, made: Any) -> None:
        """The answers to both questions."""
        self._who, self._made = who, made

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        path = (await reader.readline()).split(b" ")[1].decode()
        while (await reader.readline()).strip():
            pass
        self.asked.append(path)
        writer.write(self.raw if self.raw is not None else _http(self._who if path == "/who" else self._made))
        if self.hangs:
            await reader.read()
        writer.close()
