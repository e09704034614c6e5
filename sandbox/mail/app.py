"""Puts one stand-in together: SMTP on one port, the mailbox and its control on another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from starlette.applications import Starlette

from sandbox.common import control
from sandbox.common.process import listen, serve
from sandbox.mail.faults import MailFaults
from sandbox.mail.pages import Pages, parts_of, summary_of
from sandbox.mail.reception import Door, Reception
from sandbox.mail.store import Kept, Mailbox


class Stand:
    """One stand-in mail server."""

    def __init__(self, data: Path, *, product_url: str, now: Callable[[], datetime]) -> None:
        """`product_url`: where the mailbox page leads back to."""
        self.faults = MailFaults()
        self.mailbox = Mailbox(data / "messages")
        self._reception = Reception(self.mailbox, self.faults, now)
        self._product_url = product_url

    @asynccontextmanager
    async def receiving(self, port: int, door: Door) -> AsyncIterator[None]:
        """Takes messages in on this port for as long as the context lasts."""
        loop = asyncio.get_running_loop()
        first = door.tls if door.tls_first else None
        server = await loop.create_server(self._reception.connections(door), sock=listen(port), ssl=first)
        try:
            yield
        finally:
            server.close()
            self._reception.hang_up()

    def app(self) -> Starlette:
        """The mailbox page, and its JSON and faults under `/sandbox`."""
        return Starlette(
            routes=[
                *Pages(self.mailbox, self._product_url).routes(),
                control.get("/sandbox/messages", self._messages),
                control.post("/sandbox/clear", self._clear),
                control.post("/sandbox/faults", self.faults.change),
                control.get("/sandbox/health", lambda _: {"ok": True}),
            ]
        )

    def _messages(self, values: control.Values) -> dict[str, Any]:
        """The newest first; `to` narrows them to one recipient."""
        to = values.get("to")
        return {
            "messages": [_whole(kept) for kept in self.mailbox.all() if to is None or to in kept.recipients]
        }

    def _clear(self, _: control.Values) -> dict[str, Any]:
        self.mailbox.clear()
        return {"messages": []}


def _whole(kept: Kept) -> dict[str, Any]:
    headers = {name: str(value) for name, value in kept.parsed().items()}
    return {**summary_of(kept), "headers": headers, **parts_of(kept)}


async def run(data: Path, *, port: int, smtp_port: int, product_url: str) -> None:
    """Serve until a signal."""
    stand = Stand(data, product_url=product_url, now=lambda: datetime.now(UTC))
    async with stand.receiving(smtp_port, Door()):
        await serve(stand.app(), listen(port))
