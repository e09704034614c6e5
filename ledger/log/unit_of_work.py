"""The unit of work of a batch: what has been decided so far and is not yet recorded.

A batch decides many transactions one after another. Each sees what the earlier ones decided.
A refusal undoes exactly its own transaction, and so does an event that breaks an invariant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from ledger.errors import InvariantViolated
from ledger.log.categories import Categories
from ledger.log.model import Event, SideTable, Transaction

RowKey = tuple[str, str]


MISSING: Any = object()


class DecidedEvent(NamedTuple):
    """An event that a transaction decided, before it has a position."""

    stream: str
    version: int
    event: Event


class BatchUnitOfWork:
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

    def known(self, key: RowKey) -> Any:
        """The same, or `MISSING` if nobody has read or written it."""
        return self.changed_rows[key] if key in self.changed_rows else self._rows.get(key, MISSING)

    def begin(self, transaction: Transaction) -> TransactionUnitOfWork:
        """A fresh layer for one transaction."""
        return TransactionUnitOfWork(self, transaction)


class TransactionUnitOfWork:
    """One transaction's layer: `UnitOfWork` for `decide`, kept or dropped as a whole."""

    __slots__ = ("_batch", "_declared", "_rows", "_states", "_tables", "events", "now", "occurred_at")

    def __init__(self, batch: BatchUnitOfWork, transaction: Transaction) -> None:
        self._batch = batch
        self._declared = transaction.streams
        self._states: dict[str, tuple[Any, int]] = {}
        self._rows: dict[RowKey, Mapping[str, Any] | None] = {}
        self._tables: dict[str, SideTable] = {}
        self.events: list[DecidedEvent] = []
        self.now = batch.now
        self.occurred_at = transaction.occurred_at or batch.now

    def state(self, stream: str) -> Any:
        """See `UnitOfWork.state`."""
        return self._versioned(stream)[0]

    def _versioned(self, stream: str) -> tuple[Any, int]:
        found = self._states.get(stream)
        if found is not None:
            return found
        if stream not in self._declared:
            raise LookupError(f"{stream} was not declared in Transaction.streams")
        return self._batch.state(stream)

    def append(self, stream: str, events: Iterable[Event]) -> None:
        """See `UnitOfWork.append`."""
        state, version = self._versioned(stream)
        category = self._batch.categories.of(stream)
        evolve, check, on_event = category.evolve, category.check, category.on_event
        for event in events:
            version += 1
            before, state = state, evolve(state, event)
            if check is not None:
                violation = check(before, event, state)
                if violation is not None:
                    raise InvariantViolated(stream, version, event, violation)
            self.events.append(DecidedEvent(stream, version, event))
            if on_event is not None:
                on_event(self, stream, version, event, state)
        self._states[stream] = (state, version)
        if category.follow_up is not None:
            category.follow_up(self, stream, state)

    def get(self, table: SideTable, key: str) -> Mapping[str, Any] | None:
        """See `UnitOfWork.get`."""
        row_key = (table.table.name, key)
        if row_key in self._rows:
            row = self._rows[row_key]
        else:
            try:
                row = self._batch.row(row_key)
            except KeyError:
                raise LookupError(f"row {key!r} of {table.table.name} was not declared") from None
        return None if row is None else dict(row)

    def put(self, table: SideTable, row: Mapping[str, Any]) -> None:
        """See `UnitOfWork.put`."""
        self._tables[table.table.name] = table
        key = (table.table.name, row[table.key_column])
        known = self._rows[key] if key in self._rows else self._batch.known(key)
        if known is MISSING:
            self._rows[key] = row
        else:
            self._rows[key] = table.whole(row) if known is None else {**known, **row}

    def delete(self, table: SideTable, key: str) -> None:
        """See `UnitOfWork.delete`."""
        self._tables[table.table.name] = table
        self._rows[(table.table.name, key)] = None

    def keep(self) -> None:
        """Merge into the batch: later transactions see it."""
        self._batch.changed_states.update(self._states)
        if self._rows:
            self._batch.changed_rows.update(self._rows)
            self._batch.tables.update(self._tables)
