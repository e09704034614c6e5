"""The log in memory: the same answers as the real one, for unit tests and embedding in tools."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from datetime import datetime
from typing import Any

import msgspec

from ledger.clock import Clock
from ledger.errors import IdempotencyConflict, Refusal
from ledger.identifiers import CommandKey
from ledger.log.categories import Categories
from ledger.log.digest import body_digest
from ledger.log.model import Category, Envelope, Receipt, Transaction
from ledger.log.reader import StreamState
from ledger.log.unit_of_work import BatchUnitOfWork, RowKey, TransactionUnitOfWork


class MemoryLog:
    """Implements `LogWriter` and `LogReader` with plain dicts. One event loop, no durability."""

    def __init__(self, categories: Iterable[Category[Any]], clock: Clock) -> None:
        self.categories = Categories(categories)
        self.log: list[Envelope] = []
        self.tables: dict[tuple[str, str], dict[str, Any]] = {}
        self._clock = clock
        self._states: dict[str, tuple[Any, int]] = {}
        self._outcomes: dict[CommandKey, tuple[bytes, Receipt | Refusal]] = {}
        self._batch = 0
        self._recorded_at: datetime | None = None

    async def submit(self, transaction: Transaction) -> Receipt:
        """See `LogWriter.submit`."""
        digest = body_digest(transaction.body)
        known = self._outcomes.get(transaction.key)
        if known is not None:
            return _replay(known, digest)
        now = self._clock()
        if self._recorded_at is not None and now < self._recorded_at:
            now = self._recorded_at
        states = {s: self._states.get(s) or (self.categories.of(s).initial, 0) for s in transaction.streams}
        # Copies: whatever is done to them, the tables change only when all is decided.
        rows = {(t.table.name, k): deepcopy(self.tables.get((t.table.name, k))) for t, k in transaction.rows}
        batch = BatchUnitOfWork(self.categories, states, rows, now)
        uow = batch.begin(transaction)
        try:
            result = transaction.decide(uow)
        except Refusal as refusal:
            kept = Refusal.restore(refusal.code, msgspec.json.decode(msgspec.json.encode(refusal.details)))
            if transaction.keeps_refusals:
                self._outcomes[transaction.key] = (digest, kept)
            raise kept from None
        return self._record(transaction, digest, batch, uow, result)

    def seen(self, stream: str, including: int = 0) -> Any | None:
        """See `LogWriter.seen`."""
        known = self._states.get(stream) if including <= len(self.log) else None
        return None if known is None else known[0]

    def _record(
        self,
        transaction: Transaction,
        digest: bytes,
        batch: BatchUnitOfWork,
        uow: TransactionUnitOfWork,
        result: Any,
    ) -> Receipt:
        decoded = msgspec.json.decode(msgspec.json.encode(result))
        envelopes: list[Envelope] = []
        for stream, version, event in uow.events:
            name = self.categories.name_of(event)
            stored = self.categories.decode(name, msgspec.json.encode(event))
            envelopes.append(
                Envelope(
                    position=len(self.log) + len(envelopes) + 1,
                    stream=stream,
                    version=version,
                    name=name,
                    key=transaction.key,
                    actor=transaction.actor,
                    occurred_at=uow.occurred_at,
                    recorded_at=batch.now,
                    batch=self._batch + 1,
                    event=stored,
                )
            )
        uow.keep()
        rows = {key: self._whole(batch, key, row) for key, row in batch.changed_rows.items()}
        # From here on nothing fails.
        self._batch += 1
        self._recorded_at = batch.now
        self.log += envelopes
        self._states.update(batch.changed_states)
        for row_key, row in rows.items():
            if row is None:
                self.tables.pop(row_key, None)
            else:
                self.tables[row_key] = row
        self._outcomes[transaction.key] = (digest, Receipt(len(self.log), decoded, replayed=True))
        return Receipt(len(self.log), decoded, replayed=False)

    def _whole(
        self, batch: BatchUnitOfWork, key: RowKey, row: Mapping[str, Any] | None
    ) -> dict[str, Any] | None:
        """The row as it will be: what it does not name stays."""
        if row is None:
            return None
        side = batch.tables[key[0]]
        unknown = set(row) - set(side.table.columns.keys())
        if unknown:
            raise LookupError(f"{key[0]} has no column {sorted(unknown)}")
        before = self.tables.get(key)
        return deepcopy(side.whole(row) if before is None else {**before, **row})

    async def state(self, stream: str) -> StreamState:
        """See `LogReader.state`."""
        state, version = self._states.get(stream) or (self.categories.of(stream).initial, 0)
        return StreamState(state, version, len(self.log))

    async def events(
        self,
        stream: str,
        *,
        after_version: int = 0,
        up_to_position: int | None = None,
        up_to_time: datetime | None = None,
        limit: int | None = None,
    ) -> Sequence[Envelope]:
        """See `LogReader.events`."""
        found = [
            e
            for e in self.log
            if e.stream == stream
            and e.version > after_version
            and (up_to_position is None or e.position <= up_to_position)
            and (up_to_time is None or e.recorded_at <= up_to_time)
        ]
        return found if limit is None else found[:limit]

    async def read(self, *, after: int, limit: int) -> Sequence[Envelope]:
        """See `LogReader.read`."""
        return self.log[after : after + limit]

    async def head(self) -> int:
        """See `LogReader.head`."""
        return len(self.log)


def _replay(known: tuple[bytes, Receipt | Refusal], digest: bytes) -> Receipt:
    recorded_digest, outcome = known
    if recorded_digest != digest:
        raise IdempotencyConflict
    if isinstance(outcome, Refusal):
        raise Refusal.restore(outcome.code, outcome.details)
    return outcome
