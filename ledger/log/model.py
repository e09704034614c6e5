"""What the log is made of: events, streams, transactions, and their outcomes. Pure.

A *transaction* is one command over any number of streams and side-table rows, all or
nothing. Its `decide` receives a `Draft`, appends events and puts rows, and returns a
result, or raises a `Refusal`. The sequencer runs it under the log's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

import msgspec
import sqlalchemy as sa

from ledger.identifiers import CommandKey

S = TypeVar("S")


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of every stored event. The stored name is given to the category, not taken from the class."""


@dataclass(frozen=True, slots=True)
class Category(Generic[S]):
    """A kind of stream: its id prefix, its stored event names, and how its state is folded.

    `events` maps a stable stored name with version (`ledger.credits_held.v1`) to the struct.
    `upcasts` maps a retired name to a function from its decoded JSON object to a current event.
    `evolve` is total: it never refuses a fact.
    """

    prefix: str
    events: Mapping[str, type[Event]]
    initial: S
    evolve: Callable[[S, Event], S]
    upcasts: Mapping[str, Callable[[dict[str, Any]], Event]] = field(default_factory=dict)
    snapshot_type: type[S] | None = None
    """A msgspec-encodable type of the state; without it the category has no snapshots."""
    snapshot_version: int = 1
    """Raise it whenever `evolve` gives another state for the same history: old snapshots are ignored."""


class Envelope(msgspec.Struct, frozen=True):
    """One event as recorded, with everything known about how it came to be."""

    position: int
    """Its place in the whole log: 1, 2, 3 … without gaps."""
    stream: str
    version: int
    """Its place in its stream: 1, 2, 3 … without gaps."""
    name: str
    key: CommandKey
    actor: str
    occurred_at: datetime
    recorded_at: datetime
    batch: int
    event: Event


@dataclass(frozen=True, slots=True)
class SideTable:
    """Rows of another table that a transaction reads and writes together with events.

    `table` has a single text primary key column. Rows are plain dicts of all its columns.
    """

    table: sa.Table

    @property
    def key_column(self) -> str:
        """The name of the primary key column."""
        return str(next(iter(self.table.primary_key.columns)).name)


class Draft(Protocol):
    """What `decide` may see and do. All of it is undone if `decide` raises."""

    @property
    def now(self) -> datetime:
        """When this batch is being recorded; never decreases along the log."""

    @property
    def occurred_at(self) -> datetime:
        """When the command happened in the world."""

    def state(self, stream: str) -> Any:
        """The present state of a stream declared in `Transaction.streams`."""

    def append(self, stream: str, events: Iterable[Event]) -> None:
        """Append events; `state(stream)` reflects them at once."""

    def get(self, table: SideTable, key: str) -> Mapping[str, Any] | None:
        """A row declared in `Transaction.rows`, locked, or None if there is none."""

    def put(self, table: SideTable, row: Mapping[str, Any]) -> None:
        """Insert or replace a row. It needs no declaration if it is not read."""

    def delete(self, table: SideTable, key: str) -> None:
        """Delete a row."""


class Transaction(msgspec.Struct, frozen=True, kw_only=True):
    """One idempotent command. The same key and body always give the first outcome.

    `body` is what the command asks, as any msgspec-encodable value without personal data;
    only its digest is stored. `result` of `decide` must be msgspec-encodable: it is stored
    with the outcome and returned again, decoded from JSON, when the command is repeated.
    """

    key: CommandKey
    actor: str
    """Who asked: an account id, `worker:<id>`, `rail:<name>`, `system:<part>`, `operator:<id>`."""
    body: Any
    streams: Sequence[str]
    decide: Callable[[Draft], Any]
    rows: Sequence[tuple[SideTable, str]] = ()
    occurred_at: datetime | None = None
    """When it happened in the world; None means when it is recorded."""
    suspected: bool = False
    """The caller thinks that this command may be known already: its key is looked up first. Without
    it a known key is found just the same, at the price of deciding its whole batch twice."""


class Receipt(msgspec.Struct, frozen=True):
    """The durable answer to a transaction."""

    position: int
    """The log's position after this command; projections at or past it have seen it."""
    result: Any
    """What `decide` returned, as decoded JSON (dicts, lists, strings, ints)."""
    replayed: bool
    """True if the command had been answered before and nothing was done now."""


class LogWriter(Protocol):
    """The port through which other packages write. `ledger.log.sequencer.Sequencer` is the real one."""

    async def submit(self, transaction: Transaction) -> Receipt:
        """Run one transaction; return only after COMMIT. Raises the recorded `Refusal`."""
