"""The draft of a batch: what has been decided so far and is not yet recorded.

A batch decides many transactions one after another. Each sees what the earlier ones decided.
A refusal undoes exactly its own transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from ledger.log.categories import Categories
from ledger.log.model import Event, SideTable, Transaction

RowKey = tuple[str, str]


class Drafted(NamedTuple):
    """An event that a transaction decided, before it has a position."""

    stream: str
    version: int
    event: Event


class BatchDraft:
    """Everything a batch would change, layered over what is recorded.

    `states` and `rows` are loaded by the caller for every stream and row that the batch
    declares; decided changes stay here until the batch has committed.
    """

    def __init__(
        self,
        categories: Categories,
        states: Mapping[str, tuple[Any, int]],
        rows: Mapping[RowKey, Mapping[str, Any] | None],
        now: datetime,
    ) -> None:
        self.categories = categories
        self.now = now
        self.changed_states: dict[str, tuple[Any, int]] = {}
        self.changed_rows: dict[RowKey, Mapping[str, Any] | None] = {}
        self.tables: dict[str, SideTable] = {}
        self._states = states
        self._rows = rows

    def state(self, stream: str) -> tuple[Any, int]:
        """State and version as left by the transactions decided so far."""
        found = self.changed_states.get(stream)
        if found is None:
            found = self._states[stream]
        return found

    def row(self, key: RowKey) -> Mapping[str, Any] | None:
        """A row as left by the transactions decided so far."""
        if key in self.changed_rows:
            return self.changed_rows[key]
        return self._rows[key]

    def begin(self, transaction: Transaction) -> TransactionDraft:
        """A fresh layer for one transaction."""
        return TransactionDraft(self, transaction)


class TransactionDraft:
    """One transaction's layer: `Draft` for `decide`, kept or dropped as a whole."""

    __slots__ = ("_batch", "_declared", "_rows", "_states", "_tables", "events", "now", "occurred_at")

    def __init__(self, batch: BatchDraft, transaction: Transaction) -> None:
        self._batch = batch
        self._declared = transaction.streams
        self._states: dict[str, tuple[Any, int]] = {}
        self._rows: dict[RowKey, Mapping[str, Any] | None] = {}
        self._tables: dict[str, SideTable] = {}
        self.events: list[Drafted] = []
        self.now = batch.now
        self.occurred_at = transaction.occurred_at or batch.now

    def state(self, stream: str) -> Any:
        """See `Draft.state`."""
        return self._versioned(stream)[0]

    def _versioned(self, stream: str) -> tuple[Any, int]:
        found = self._states.get(stream)
        if found is not None:
            return found
        if stream not in self._declared:
            raise LookupError(f"{stream} was not declared in Transaction.streams")
        return self._batch.state(stream)

    def append(self, stream: str, events: Iterable[Event]) -> None:
        """See `Draft.append`."""
        state, version = self._versioned(stream)
        evolve = self._batch.categories.of(stream).evolve
        for event in events:
            version += 1
            state = evolve(state, event)
            self.events.append(Drafted(stream, version, event))
        self._states[stream] = (state, version)

    def get(self, table: SideTable, key: str) -> Mapping[str, Any] | None:
        """See `Draft.get`."""
        row_key = (table.table.name, key)
        if row_key in self._rows:
            return self._rows[row_key]
        try:
            return self._batch.row(row_key)
        except KeyError:
            raise LookupError(f"row {key!r} of {table.table.name} was not declared") from None

    def put(self, table: SideTable, row: Mapping[str, Any]) -> None:
        """See `Draft.put`."""
        self._tables[table.table.name] = table
        self._rows[(table.table.name, row[table.key_column])] = row

    def delete(self, table: SideTable, key: str) -> None:
        """See `Draft.delete`."""
        self._tables[table.table.name] = table
        self._rows[(table.table.name, key)] = None

    def keep(self) -> None:
        """Merge into the batch: later transactions see it."""
        self._batch.changed_states.update(self._states)
        if self._rows:
            self._batch.changed_rows.update(self._rows)
            self._batch.tables.update(self._tables)
