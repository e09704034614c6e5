"""Who subscribes to which invoices. Messages are copies: what happens later does not change them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LIMIT = 10_000
"""Messages that may wait for one slow subscriber; then its stream is ended."""


class Feed:
    """Fans invoice messages out to streams."""

    def __init__(self) -> None:
        self._all: set[asyncio.Queue[Any]] = set()
        self._one: dict[bytes, set[asyncio.Queue[Any]]] = {}

    @contextmanager
    def everything(self) -> Iterator[asyncio.Queue[Any]]:
        """Adds and settles of all invoices, as SubscribeInvoices sends them."""
        queue: asyncio.Queue[Any] = asyncio.Queue(LIMIT)
        self._all.add(queue)
        try:
            yield queue
        finally:
            self._all.discard(queue)

    @contextmanager
    def single(self, payment_hash: bytes) -> Iterator[asyncio.Queue[Any]]:
        """Every state of one invoice."""
        queue: asyncio.Queue[Any] = asyncio.Queue(LIMIT)
        subscribers = self._one.setdefault(payment_hash, set())
        subscribers.add(queue)
        try:
            yield queue
        finally:
            subscribers.discard(queue)
            if not subscribers:
                self._one.pop(payment_hash, None)

    def publish(self, message: Any, *, to_everyone: bool) -> None:
        """Send the subscribers one invoice's present state."""
        copy = type(message)()
        copy.CopyFrom(message)
        queues = set(self._one.get(bytes(message.r_hash), ()))
        if to_everyone:
            queues |= self._all
        for queue in queues:
            _put(queue, copy)

    def announce(self, payment_hash: bytes) -> None:
        """Wake those who follow one outgoing payment."""
        for queue in self._one.get(payment_hash, ()):
            _put(queue, payment_hash)

    def end_all(self) -> None:
        """End every stream, as a node does that goes away."""
        for queue in self._all.union(*self._one.values()):
            _put(queue, None)


def _put(queue: asyncio.Queue[Any], message: Any) -> None:
    if queue.full():
        queue.get_nowait()
        message = None
    queue.put_nowait(message)
