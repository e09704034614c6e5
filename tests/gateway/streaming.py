"""A reader of the live stream, and previews to send."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from PIL import Image

from tests.waiting import SECONDS_MAX


@dataclass
class Frame:
    """One server-sent event."""

    event: str
    id: str | None
    data: Any


class Stream:
    """An open stream, frame by frame."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self._lines = answer.aiter_lines()

    async def next(self) -> Frame:
        fields: dict[str, str] = {}
        async with asyncio.timeout(SECONDS_MAX):
            async for line in self._lines:
                if line.startswith(":"):
                    continue
                if not line and fields:
                    return Frame(fields["event"], fields.get("id"), json.loads(fields["data"]))
                name, _, value = line.partition(": ")
                if name:
                    fields[name] = value
        raise EOFError

    async def until(self, event: str, **wanted: Any) -> list[Frame]:
        """All frames up to one of this kind with these members."""
        found = [await self.next()]
        while found[-1].event != event or any(found[-1].data.get(k) != v for k, v in wanted.items()):
            found.append(await self.next())
        return found


@asynccontextmanager
async def watching(client: httpx.AsyncClient, last: str | None = None) -> AsyncIterator[Stream]:
    headers = {"Last-Event-ID": last} if last else {}
    async with client.stream("GET", "/v1/events", headers=headers) as answer:
        assert answer.status_code == 200
        yield Stream(answer)


def jpeg(side: int) -> str:
    """A preview as a worker sends it."""
    output = io.BytesIO()
    Image.new("RGB", (side, side), "#b83f24").save(output, "JPEG", quality=40)
    return base64.b64encode(output.getvalue()).decode()
