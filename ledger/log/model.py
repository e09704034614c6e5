"""What the log is made of: events, streams, transactions, and their outcomes. Pure.

A *transaction* is one command over any number of streams and side-table rows, all or
nothing. Its `decide` receives a `UnitOfWork`, appends events and puts rows, and returns a
result, or raises a `Refusal`. The sequencer runs it under the log's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import msgspec
import sqlalchemy as sa

from ledger.identifiers import CommandKey

S = TypeVar("S")


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of every stored event. The stored name is given to the category, not taken from the class."""


class Violation(NamedTuple):
    """What is wrong with an event that a command decided."""

    why: tuple[str, ...]
    """Sentences. Never empty."""
    before: Any
    """What the event touched, as it was, and as it would be; msgspec-encodable."""
    after: Any


@dataclass(frozen=True, slots=True)
class Category(Generic[S]):
    """A kind of stream: its id prefix, its stored event names, and how its state is folded.

    `events` maps a stable stored name with version (`ledger.credits_held.v1`) to the struct.
    `upcasts` maps a retired name to a function from its decoded JSON object to a current event.
    `evolve` is total: it never refuses a fact.
    `check` looks at an event that a command has just decided, and at the states before and after it: a
    violation is a fault of ours, not a refusal, and raises `InvariantViolated` before anything is kept.
    It runs under the log's lock for every new event, and never for recorded ones.
    """

    prefix: str
    events: Mapping[str, type[Event]]
    initial: S
    evolve: Callable[[S, Event], S]
    upcasts: Mapping[str, Callable[[dict[str, Any]], Event]] = field(default_factory=dict)
    check: Callable[[S, Event, S], Violation | None] | None = None
    snapshot_type: type[S] | None = None
    """A msgspec-encodable type of the state; without it the category has no snapshots."""
    follow_up: Callable[[UnitOfWork, str, S], None] | None = None
    """Puts rows for what the stream's new state causes elsewhere, in the transaction that led to it:
    called with the stream and its state after events were appended, and never on replay."""
    on_event: Callable[[UnitOfWork, str, int, Event, S], None] | None = None
    """Puts rows for what one event causes elsewhere, in the event's own transaction: called with the stream, the
    event's version in it, the event, and the state after it; never on replay. Whoever wires packages together sets
    it (`dataclasses.replace`), so that no writer of such an event can forget what follows."""
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

    `table` has a single text primary key column. Rows are plain dicts. Columns that a row does not name keep
    what they have, or begin with their default.
    """

    table: sa.Table

    def whole(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A new row with all of the table's columns."""
        return {**_defaults(self), **row}

    @property
    def key_column(self) -> str:
        """The name of the primary key column."""
        return str(next(iter(self.table.primary_key.columns)).name)


@lru_cache(maxsize=256)
def _defaults(side: SideTable) -> Mapping[str, Any]:
    """What PostgreSQL gives the columns that a new row does not name, as far as side tables have such."""
    return {column.name: _default(column) for column in side.table.columns}


def _default(column: sa.Column[Any]) -> Any:
    if column.server_default is None:
        return None
    assert isinstance(column.server_default, sa.DefaultClause)
    match column.server_default.arg:
        case str(text):
            return column.type.python_type(text)
        case sa.True_():
            return True
        case sa.False_():
            return False
        case other:
            raise TypeError(f"{column} begins with {other}, which only the database can work out")


class UnitOfWork(Protocol):
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
        """Insert a row, or change the columns that it names. It needs no declaration if it is not read."""

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
    decide: Callable[[UnitOfWork], Any]
    rows: Sequence[tuple[SideTable, str]] = ()
    occurred_at: datetime | None = None
    """When it happened in the world; None means when it is recorded."""
    suspected: bool = False
    """The caller thinks that this command may be known already: its key is looked up first. Without
    it a known key is found just the same, at the price of deciding its whole batch twice."""
    keeps_refusals: bool = True
    """Whether a refusal is the command's outcome, too. If not, nothing is recorded of it, and the same key is
    decided anew when it is sent again."""


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

    def seen(self, stream: str, including: int = 0) -> Any | None:
        """A stream's state as it was when a transaction of this process last needed it, without asking
        anybody; None if it is not remembered, or not known to include everything up to that position
        of the log. It may be behind of what came later: it decides nothing."""
