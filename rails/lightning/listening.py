"""Notifications for ever, whatever the node does meanwhile.

SubscribeInvoices tells of adds and settles only, so open hold invoices are followed one by one,
and a sweep notices whatever left the node's list of pending invoices unannounced (expired,
canceled, or lost on the way). The cursor is `<add_index>:<settle_index>`. LND gives no backlog
for an index of 0, so while one is 0 all invoices are paged instead.

On a node that others use, too, their invoices only move the cursor on: what names no payment as ours do is not ours.

Every (re)connection begins with a notification about nothing in particular: look at all that is pending.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

import structlog

from ledger.cancelling import end_tasks
from rails.contract import Notification, RailError, RailProtocolError, RailUnavailable
from rails.lightning.client import LndClient
from rails.lightning.credentials import Preimages
from rails.lightning.invoices import Invoice, InvoiceState
from rails.outages import Outages

NOTIFICATIONS_WAITING_MAX = 1000
_CURSOR = re.compile(r"([0-9]{1,20}):([0-9]{1,20})")
_INDEX_MAX = 2**64 - 1
PENDING = (InvoiceState.OPEN, InvoiceState.ACCEPTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How eagerly to listen."""

    retry_ms: int = 250
    """Between attempts to reach the node again."""
    beat_ms: int = 500
    """Between questions whether the node is still there: a connection may be up and nobody behind it."""
    beat_wait_ms: int = 2_000
    """How long it may take to answer one. Together with `beat_ms`, an outage is noticed in less than 3 s."""
    first_sweep_ms: int = 1_000
    sweep_ms: int = 10_000
    followed_max: int = 2_000
    """Hold invoices followed by a stream each; what is beyond is left to the sweep."""


@dataclass(slots=True)
class Position:
    """Where we are in the node's two sequences."""

    add_index: int = 0
    settle_index: int = 0

    @classmethod
    def parse(cls, cursor: str | None) -> Position:
        """Read a cursor. Raises `RailProtocolError` if it is not one of ours."""
        if cursor is None:
            return cls()
        found = _CURSOR.fullmatch(cursor)
        if found is None or max(place := (int(found[1]), int(found[2]))) > _INDEX_MAX:
            raise RailProtocolError("the cursor of the Lightning rail is not <add_index>:<settle_index>")
        return cls(*place)

    @property
    def has_backlog(self) -> bool:
        """Whether LND will send us everything after it."""
        return self.add_index > 0 and self.settle_index > 0

    def __str__(self) -> str:
        """The cursor that leads here."""
        return f"{self.add_index}:{self.settle_index}"


class Listener:
    """Turns the node's streams into notifications."""

    def __init__(self, client: LndClient, pace: Pace) -> None:
        self.outages = Outages()
        self._client = client
        self._pace = pace
        self._log = structlog.get_logger()

    async def notifications(self, cursor: str | None) -> AsyncGenerator[Notification, None]:
        """Notifications since `cursor`, then live, across restarts of the node."""
        out: asyncio.Queue[Notification] = asyncio.Queue(NOTIFICATIONS_WAITING_MAX)
        ended = asyncio.Event()
        following = asyncio.create_task(self._follow_until(ended, Position.parse(cursor), out))
        beating = asyncio.create_task(self._beat())
        try:
            while True:
                waiting = asyncio.create_task(out.get())
                try:
                    await asyncio.wait({waiting, following}, return_when=asyncio.FIRST_COMPLETED)
                    if not waiting.done():
                        await following  # it never ends but by a fault of ours: let it be seen
                finally:
                    waiting.cancel()
                yield waiting.result()
        finally:
            # A task group that fails while it is being cancelled tells of the failure only: say it twice.
            ended.set()
            await end_tasks([following, beating])

    async def _beat(self) -> None:
        """Ask again and again whether the node is there."""
        while True:
            await asyncio.sleep(self._pace.beat_ms * 0.001)
            try:
                await self._client.require_active(wait_ms=self._pace.beat_wait_ms)
            except RailError as error:
                self.outages.notice(str(error))

    async def _follow_until(
        self, ended: asyncio.Event, position: Position, out: asyncio.Queue[Notification]
    ) -> None:
        reported: list[str] = []
        while not ended.is_set():
            try:
                await self._client.require_active()
                reported = []
                await _Session(self._client, self._pace, position, out).run()
            except* RailError as group:
                reasons = sorted({str(error) for error in _leaves(group)})
                self.outages.notice("; ".join(reasons))
                if reasons != reported:  # an outage is one line, not one per attempt
                    self._log.warning("lightning_stream_lost", reasons=reasons)
                reported = reasons
            await asyncio.sleep(self._pace.retry_ms * 0.001)


@dataclass
class _Session:
    """One connection: ends with an exception group when the node goes away."""

    client: LndClient
    pace: Pace
    position: Position
    out: asyncio.Queue[Notification]
    pending: dict[str, Invoice] = field(default_factory=dict)
    """The node's pending invoices as last seen, by payment hash."""
    followed: set[str] = field(default_factory=set)

    async def run(self) -> None:
        """Listen until the node goes away."""
        async with asyncio.TaskGroup() as group:
            if not self.position.has_backlog:
                await self._page(group)
            group.create_task(self._subscribe(group))
            await self._sweep_once(group)
            await self.out.put(Notification(reference=None))
            group.create_task(self._sweep(group))

    async def _page(self, group: asyncio.TaskGroup) -> None:
        """Everything the node knows. Only at its end there is a cursor: pages are not a sequence of settles."""
        top = Position(self.position.add_index, self.position.settle_index)
        opened: dict[str, Invoice] = {}
        async with aclosing(self.client.pages()) as invoices:
            async for invoice in invoices:
                top.add_index = max(top.add_index, invoice.add_index)
                top.settle_index = max(top.settle_index, invoice.settle_index)
                if not Preimages.may_be_ours(invoice.memo):
                    continue
                if invoice.state is InvoiceState.OPEN:
                    opened[invoice.payment_hash] = invoice
                elif invoice.state is not InvoiceState.CANCELED:
                    await self.out.put(Notification(reference=invoice.payment_hash))
        # What was settled while we paged may lie below the highest settle index: it left the pending ones.
        self.pending = opened
        await self._sweep_once(group)
        self.position.add_index, self.position.settle_index = top.add_index, top.settle_index
        await self.out.put(Notification(reference=None, cursor=str(self.position)))

    async def _subscribe(self, group: asyncio.TaskGroup) -> None:
        position = self.position
        async with aclosing(self.client.subscribe(position.add_index, position.settle_index)) as stream:
            async for invoice in stream:
                # A new add may carry a later state, out of the order of settles: only its add index counts.
                if invoice.add_index > position.add_index:
                    position.add_index = invoice.add_index
                elif invoice.state is InvoiceState.SETTLED:
                    position.settle_index = max(position.settle_index, invoice.settle_index)
                ours = Preimages.may_be_ours(invoice.memo)
                if ours and invoice.state in PENDING:
                    self._pending(group, invoice)
                if invoice.state is InvoiceState.OPEN:
                    continue
                cursor = str(position) if position.has_backlog else None
                if ours:
                    await self.out.put(Notification(reference=invoice.payment_hash, cursor=cursor))
                elif cursor is not None:
                    await self.out.put(Notification(reference=None, cursor=cursor, look=False))
        raise RailUnavailable("the Lightning node ended its stream of invoices")

    def _pending(self, group: asyncio.TaskGroup, invoice: Invoice) -> None:
        self.pending.setdefault(invoice.payment_hash, invoice)
        is_hold = not invoice.preimage_known
        if (
            is_hold
            and invoice.payment_hash not in self.followed
            and len(self.followed) < self.pace.followed_max
        ):
            self.followed.add(invoice.payment_hash)
            group.create_task(self._follow(invoice.payment_hash))

    async def _follow(self, payment_hash: str) -> None:
        try:
            async with aclosing(self.client.follow(payment_hash)) as states:
                async for invoice in states:
                    if invoice.state is not InvoiceState.OPEN:
                        await self.out.put(Notification(reference=payment_hash))
        finally:
            self.followed.discard(payment_hash)

    async def _sweep(self, group: asyncio.TaskGroup) -> None:
        await asyncio.sleep(self.pace.first_sweep_ms * 0.001)
        while True:
            # Without a backlog a settle may have slipped in between paging and subscribing.
            if self.position.has_backlog:
                await self._sweep_once(group)
            else:
                await self._page(group)
            await asyncio.sleep(self.pace.sweep_ms * 0.001)

    async def _sweep_once(self, group: asyncio.TaskGroup) -> None:
        """Notification at every invoice that is no longer pending, or newly accepted."""
        before = dict(self.pending)
        oldest = min((invoice.add_index for invoice in before.values()), default=1)
        now: dict[str, Invoice] = {}
        async with aclosing(self.client.pages(oldest - 1, pending_only=True)) as invoices:
            async for invoice in invoices:
                if Preimages.may_be_ours(invoice.memo):
                    now[invoice.payment_hash] = invoice
        added_meanwhile = {key: one for key, one in self.pending.items() if key not in before}
        self.pending = {**added_meanwhile, **now}
        for payment_hash in before.keys() - now.keys():
            await self.out.put(Notification(reference=payment_hash))
        for invoice in now.values():
            known = before.get(invoice.payment_hash)
            if invoice.state is InvoiceState.ACCEPTED and (known is None or known.state is not invoice.state):
                await self.out.put(Notification(reference=invoice.payment_hash))
            self._pending(group, invoice)


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found.extend(_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    return found
