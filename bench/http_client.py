"""A client for measuring: one kept connection of plain sockets, so that little of the time is its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """What came back: the status, the body as it was sent, and the head in lower case."""

    status: int
    body: bytes
    head: bytes = b""

    def json(self) -> Any:
        """The body, read."""
        return json.loads(self.body)

    @property
    def named(self) -> str:
        """The status; of a problem document its code too."""
        if self.status < 400 or b"problem+json" not in self.head:
            return str(self.status)
        return f"{self.status} {self.json()['code']}"

    @property
    def says_when(self) -> bool:
        """Whether it names the time to come again."""
        return b"\r\nretry-after:" in self.head


def written(method: str, path: str, token: str = "", body: bytes = b"", key: str = "") -> bytes:
    """A request as it goes over the wire; `key` makes it the same one however often it is sent."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    if key:
        lines.append(f"Idempotency-Key: {key}")
    if body:
        lines.append("Content-Type: application/json")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Connection:
    """One caller's connection: a request is sent when the answer to the one before it has come."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, request: bytes) -> Answer:
        """Send it, and wait for the whole answer. Raises `OSError` or `EOFError` where none comes."""
        self._writer.write(request)
        await self._writer.drain()
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = next((line for line in head.split(b"\r\n") if line.startswith(b"content-length:")), b":0")
        body = await self._reader.readexactly(int(length.partition(b":")[2]))
        return Answer(int(head.split(b" ", 2)[1]), body, head)


def address(number: int) -> str:
    """One of many addresses of this machine, each in a network of its own."""
    high, low = divmod(number, 250)
    return f"127.{1 + high % 250}.{low}.1"


@contextlib.asynccontextmanager
async def connected(port: int, source: str = "127.0.0.1") -> AsyncIterator[Connection]:
    """A connection to a server on this machine, from an address of it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()
