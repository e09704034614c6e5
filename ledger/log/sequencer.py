"""The sequencer: many commands, one transaction, answered only after COMMIT.

A thread of its own takes whatever is waiting, up to a bound, and for that *batch*

1. takes the log's lock and reads the newest batch (any number of processes may do this);
2. folds in what other processes appended since, and loads what is not cached;
3. decides all commands one after another, in memory;
4. writes events, outcomes, side-table rows and snapshots, seals the batch's hash, commits;
5. answers the callers.

While PostgreSQL works on step 4, the next batch is decided ahead, on the states that this one will
leave. That decision holds only if the lock then shows that nobody else came between; otherwise it is
dropped and made again. So nothing is recorded that was not decided on the newest batch, and writers
never conflict. A command key that is already
recorded shows itself as a unique violation: the batch is undone and run again with its known
outcomes looked up first. A connection lost while committing is the same case: the outcomes
tell whether the batch is there.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import datetime, timedelta
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

import msgspec
import psycopg
import structlog
from eventsourcing.persistence import PersistenceError

from ledger.clock import Clock
from ledger.errors import InvariantViolated, LogUnavailable, OutcomeUnknown, TooBusy
from ledger.log.cache import StateCache
from ledger.log.categories import Categories
from ledger.log.columns import batch_hash, columns
from ledger.log.deciding import Answer, Decision, decide_batch
from ledger.log.encoding import EventRow, Sealed
from ledger.log.model import Receipt, SideTable, Transaction
from ledger.log.recorder import LogConnection, LogRecorder, Looked
from ledger.log.unit_of_work import BatchUnitOfWork, RowKey

RETRY_SECONDS = (0.02, 0.1, 0.3, 0.6, 1.0, 1.5, 2.0)
"""Waits between attempts while PostgreSQL is away; after the last one the commands fail."""
STALE = timedelta(seconds=1)
"""A decision made ahead longer ago than this is made again: deadlines may have passed."""
_LOST = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    PersistenceError,
    psycopg.errors.IdleInTransactionSessionTimeout,
    psycopg.errors.TransactionTimeout,
    psycopg.errors.ReadOnlySqlTransaction,  # a standby, or a primary that no longer is one
)
CATCH_UP_LIMIT = 20_000
"""More foreign events than this are not folded in: the cache starts afresh."""


class _Waiting(NamedTuple):
    transaction: Transaction
    future: asyncio.Future[Receipt]


class _Ahead(NamedTuple):
    """What was decided before its turn, and the batch on whose states."""

    transactions: Sequence[Transaction]
    base: Sealed
    decision: Decision


class Sequencer:
    """The real `LogWriter`. `start` it once, `stop` it once; `submit` from one event loop or many."""

    def __init__(
        self,
        recorder: LogRecorder,
        categories: Categories,
        clock: Clock,
        *,
        batch_limit: int = 512,
        queue_limit: int = 20_000,
        cache_capacity: int = 50_000,
        clock_ahead_max: timedelta | None = None,
    ) -> None:
        """`clock_ahead_max`: how far `clock` may run ahead of PostgreSQL's before it is held back to
        that. One process with a wrong date would otherwise carry the whole log into the future, where
        credits have expired and no deadline comes. None (for simulated time) does not compare."""
        self._recorder = recorder
        self._categories = categories
        self._clock = clock
        self._batch_limit = batch_limit
        self._queue_limit = queue_limit
        self._cache = StateCache(categories, capacity=cache_capacity)
        self._clock_ahead_max = clock_ahead_max
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._stopping = False
        self.violations = 0
        """Commands of this process that broke an invariant and were not kept."""
        self._door = threading.Lock()
        """Nothing is put into the queue after the None that ends it."""
        self._ended = False
        self._pause = threading.Event()
        self._committing = False
        self._alone = False
        """No other process has written since our last batch."""
        self._next: list[_Waiting] = []
        """Taken while the batch before was on its way."""
        self._ahead: _Ahead | None = None
        self._thread = threading.Thread(target=self._run, name="sequencer", daemon=True)
        self._connection: LogConnection | None = None
        self._connections = ExitStack()
        self._log = structlog.get_logger("ledger.sequencer")

    def start(self) -> None:
        """Start the thread. The first command opens the connection."""
        self._thread.start()

    def stop(self) -> None:
        """Finish what is waiting, then stop. Blocks until the thread has ended."""
        with self._door:
            self._stopping = True
            self._queue.put(None)
        self._thread.join()

    @property
    def waiting(self) -> int:
        """How many commands have not been taken yet."""
        return self._queue.qsize()

    async def submit(self, transaction: Transaction) -> Receipt:
        """See `LogWriter.submit`. Raises the recorded `Refusal`, `IdempotencyConflict`,
        `TooBusy`, `LogUnavailable` (nothing was decided), `InvariantViolated` (nothing was recorded)
        or `OutcomeUnknown` (ask again).
        """
        if self._queue.qsize() >= self._queue_limit:
            raise TooBusy
        future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        with self._door:
            if self._stopping:
                raise LogUnavailable
            self._queue.put(_Waiting(transaction, future))
        return await future

    def seen(self, stream: str, including: int = 0) -> Any | None:
        """See `LogWriter.seen`."""
        return self._cache.seen(stream, including)

    def _run(self) -> None:
        try:
            while self._next or not self._ended:
                batch, self._next = self._next or self._take(self._queue.get()), []
                if batch:
                    self._answer(batch, self._answers([waiting.transaction for waiting in batch]))
        finally:
            self._leave()

    def _answers(self, transactions: Sequence[Transaction]) -> list[Answer]:
        """An answer for each, whatever happens: a thread that died would let everybody wait for ever."""
        try:
            return self._process(transactions)
        except BaseException as fault:  # noqa: BLE001 - even what is no error, and errors of the log file
            # A part of the batch may be recorded: that nobody knows is all that can be said of any of it.
            self._ahead = None
            with suppress(Exception):
                self._log.error("sequencer_failed", error=repr(fault))
            with suppress(Exception):
                self._undo()
            return [OutcomeUnknown() for _ in transactions]

    def _leave(self) -> None:
        with self._door:
            self._stopping = True
        left = [*self._next, *iter(self._waiting_or_none, None)]
        self._answer(left, [LogUnavailable() for _ in left])
        self._disconnect()

    def _waiting_or_none(self) -> _Waiting | None:
        try:
            return self._queue.get_nowait()
        except Empty:
            return None

    def _take(self, first: _Waiting | None) -> list[_Waiting]:
        """`first` and what else is waiting, up to the limit. None ends the queue."""
        batch: list[_Waiting] = []
        waiting = first
        try:
            while waiting is not None:
                batch.append(waiting)
                if len(batch) >= self._batch_limit:
                    return batch
                waiting = self._queue.get_nowait()
            self._ended = True
        except Empty:
            pass
        return batch

    def _answer(self, batch: Sequence[_Waiting], answers: Sequence[Answer]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Receipt], Answer]]] = {}
        for waiting, answer in zip(batch, answers, strict=True):
            by_loop.setdefault(waiting.future.get_loop(), []).append((waiting.future, answer))
        for loop, settled in by_loop.items():
            try:
                loop.call_soon_threadsafe(_settle, settled)
            except RuntimeError:  # that loop was closed: nobody is waiting any more
                self._log.info("answers_dropped", count=len(settled))

    def _process(
        self, transactions: Sequence[Transaction], *, look_up: bool = False, unknown: bool = False
    ) -> list[Answer]:
        """`unknown`: an earlier attempt may have committed, and nobody could tell."""
        for wait in (*RETRY_SECONDS, None):
            try:
                return self._attempt(transactions, look_up=look_up)
            except psycopg.errors.UniqueViolation as violation:
                # Loaded states stay true: they were read under the lock and nothing was kept.
                self._roll_back()
                if look_up or violation.diag.table_name not in ("log_outcomes", "stored_events"):
                    return self._divide(transactions, violation, look_up, unknown)
                if violation.diag.table_name == "stored_events":
                    self._cache.clear(0)
                look_up = True
            except _LOST as lost:
                if isinstance(lost, psycopg.errors.QueryCanceled):
                    self._undo()
                    return self._divide(transactions, lost, look_up, unknown)
                self._log.warning("log_connection_lost", error=type(lost).__name__)
                look_up, unknown = True, unknown or self._committing
                self._disconnect()
                if wait is None:
                    break
                self._pause.wait(wait)
            except Exception as fault:  # noqa: BLE001 - whatever it is, one command of the batch brought it
                # An error that PostgreSQL reports has undone the batch; of any other nobody knows.
                unknown = unknown or (self._committing and not isinstance(fault, psycopg.Error))
                self._undo()
                return self._divide(transactions, fault, look_up or unknown, unknown)
        return [OutcomeUnknown() if unknown else LogUnavailable() for _ in transactions]

    def _divide(
        self, transactions: Sequence[Transaction], fault: BaseException, look_up: bool, unknown: bool
    ) -> list[Answer]:
        """Find the command that PostgreSQL would not take; its neighbours go through."""
        if len(transactions) == 1:
            self._log.error("command_failed", key=transactions[0].key, error=repr(fault))
            return [OutcomeUnknown() if unknown else fault]
        middle = len(transactions) // 2
        halves = transactions[:middle], transactions[middle:]
        return [answer for half in halves for answer in self._process(half, look_up=look_up, unknown=unknown)]

    def _attempt(self, transactions: Sequence[Transaction], *, look_up: bool) -> list[Answer]:
        self._committing = False
        connection = self._connect()
        newest = connection.begin()
        self._alone = newest.last_position == self._cache.position
        self._catch_up(connection, newest)
        decision = self._decided_ahead(connection, transactions, newest)
        if decision is None:
            suspects = [t.key for t in transactions if look_up or t.suspected]
            decision = self._decided(connection, transactions, newest, suspects)
        if decision.unrecorded and not look_up and connection.outcomes(decision.unrecorded):
            # One of them was done before, and could not be done now.
            decision = self._decided(connection, transactions, newest, [t.key for t in transactions])
        if not decision.outcomes:
            connection.rollback()
        else:
            self._record(connection, decision, newest)
        for transaction, violated in decision.violations:
            self._report(transaction, violated)
        return decision.answers

    def _decided(
        self,
        connection: LogConnection,
        transactions: Sequence[Transaction],
        newest: Sealed,
        suspects: Sequence[str],
    ) -> Decision:
        known = connection.outcomes(suspects) if suspects else {}
        uow = self._uow(connection, transactions, newest)
        return decide_batch(transactions, known, uow, batch=newest.batch + 1, position=newest.last_position)

    def _report(self, transaction: Transaction, violated: InvariantViolated) -> None:
        """Say everything that a repair needs, so that the command can be understood without being repeated."""
        self.violations += 1
        with suppress(Exception):  # the others of the batch are recorded, and wait for their answers
            self._log.critical(
                "invariant_violated",
                stream=violated.stream,
                version=violated.version,
                key=transaction.key,
                actor=transaction.actor,
                why=violated.violation.why,
                name=self._categories.name_of(violated.event),
                decided=msgspec.to_builtins(violated.event),
                before=msgspec.to_builtins(violated.violation.before),
                after=msgspec.to_builtins(violated.violation.after),
            )

    def _decided_ahead(
        self, connection: LogConnection, transactions: Sequence[Transaction], newest: Sealed
    ) -> Decision | None:
        ahead, self._ahead = self._ahead, None
        if ahead is None or ahead.base != newest or ahead.transactions != transactions:
            return None
        if self._clock_ahead_max is not None and connection.server_now() - ahead.decision.uow.now > STALE:
            return None  # somebody held the lock meanwhile, and wrote nothing
        if self._cache.missing({stream for t in transactions for stream in t.streams}):
            return None
        return ahead.decision

    def _decide_ahead(self, connection: LogConnection, decision: Decision, sealed: Sealed) -> None:
        """Take what is waiting and decide it on what the batch that was just sent will leave.

        What wants rows or states that only the database has is decided in its turn.
        """
        try:
            self._next = self._take(self._queue.get_nowait())
        except Empty:
            return
        transactions = [waiting.transaction for waiting in self._next]
        if any(t.rows or t.suspected for t in transactions):
            return
        changed = decision.uow.changed_states
        streams = {stream for t in transactions for stream in t.streams}
        settled = [stream for stream in streams if stream not in changed]
        if self._cache.missing(settled):
            return
        states = self._cache.view(settled)
        states.update((stream, changed[stream]) for stream in streams if stream in changed)
        now = max(self._now(connection), sealed.recorded_at)
        uow = BatchUnitOfWork(self._categories, states, {}, now)
        ahead = decide_batch(transactions, {}, uow, batch=sealed.batch + 1, position=sealed.last_position)
        self._ahead = _Ahead(transactions, sealed, ahead)

    def _catch_up(self, connection: LogConnection, newest: Sealed) -> None:
        behind = newest.last_position - self._cache.position
        if behind < 0 or behind > CATCH_UP_LIMIT or not len(self._cache):
            self._cache.clear(newest.last_position)
        elif behind:
            self._cache.catch_up(connection.tail(self._cache.position), newest.last_position)

    def _uow(
        self, connection: LogConnection, transactions: Sequence[Transaction], newest: Sealed
    ) -> BatchUnitOfWork:
        streams = {stream for t in transactions for stream in t.streams}
        missing = sorted(self._cache.missing(streams))
        wanted = _wanted_rows(transactions)
        looked = connection.look(missing, wanted)
        if missing:
            self._cache.load(missing, looked.snapshots, partial(_events_after, connection, looked))
        rows: dict[RowKey, Mapping[str, object] | None] = {
            (side.table.name, key): None for side, keys in wanted for key in keys
        }
        now = max(self._now(connection), newest.recorded_at)
        return BatchUnitOfWork(self._categories, self._cache.view(streams), rows | looked.rows, now)

    def _now(self, connection: LogConnection) -> datetime:
        now = self._clock()
        if self._clock_ahead_max is not None:
            server_now = connection.server_now()
            latest = server_now + self._clock_ahead_max
            if now > latest:
                self._log.error("clock_runs_ahead", by_seconds=(now - server_now).total_seconds())
                return latest
        return now

    def _record(self, connection: LogConnection, decision: Decision, newest: Sealed) -> None:
        uow = decision.uow
        rows = columns(decision.events, decision.outcomes)
        first_position = newest.last_position + 1
        sealed = Sealed(
            decision.batch,
            first_position,
            decision.position,
            rows.outcomes,
            uow.now,
            newest.hash,
            batch_hash(newest.hash, decision.batch, first_position, uow.now, rows),
        )
        changes = connection.row_changes(uow.tables, uow.changed_rows)
        snapshots = self._cache.due_snapshots(uow.changed_states)
        more = bool(self._next) or not self._queue.empty()
        self._committing = True
        connection.send(rows, sealed, changes, snapshots, again=more)
        sound = self._meanwhile(connection, decision, sealed, more=more)
        connection.sent()
        self._cache.keep(uow.changed_states, snapshots, decision.position)
        if not sound:
            self._cache.clear(decision.position)

    def _meanwhile(
        self, connection: LogConnection, decision: Decision, sealed: Sealed, *, more: bool
    ) -> bool:
        """Use the time in which PostgreSQL works. Whatever goes wrong here, the batch is on its way.

        False if the cache may be wrong now.
        """
        try:
            if not self._alone:
                self._cache.fold_in()
            elif more and not self._next:
                self._decide_ahead(connection, decision, sealed)
        except Exception as fault:  # noqa: BLE001 - it comes again in the turn of those it concerns
            self._ahead = None
            self._log.error("not_decided_ahead", error=repr(fault))
            return False
        return True

    def _connect(self) -> LogConnection:
        if self._connection is None:
            self._connection = self._connections.enter_context(self._recorder.writing())
            self._cache.clear(0)
        return self._connection

    def _disconnect(self) -> None:
        self._connection = None
        try:
            self._connections.close()
        except (psycopg.Error, PersistenceError) as error:
            self._log.info("log_connection_closed", error=type(error).__name__)
        self._connections = ExitStack()

    def _undo(self) -> None:
        """Roll back, and forget all cached states: who knows what happened."""
        self._cache.clear(0)
        self._roll_back()

    def _roll_back(self) -> None:
        try:
            if self._connection is not None:
                self._connection.rollback()
        except psycopg.Error:
            self._disconnect()


def _wanted_rows(transactions: Sequence[Transaction]) -> list[tuple[SideTable, list[str]]]:
    """The rows that they declare, in one order for all processes: tables by name, and keys in each."""
    wanted: dict[str, tuple[SideTable, set[str]]] = {}
    for transaction in transactions:
        for table, key in transaction.rows:
            wanted.setdefault(table.table.name, (table, set()))[1].add(key)
    return [(table, sorted(keys)) for _, (table, keys) in sorted(wanted.items())]


def _events_after(
    connection: LogConnection, looked: Looked, versions: Mapping[str, int]
) -> Iterable[EventRow]:
    """The events that are past these versions: at hand, unless a snapshot was of no use."""
    snapshots = {snapshot.stream: snapshot.version for snapshot in looked.snapshots}
    useless = {stream: version for stream, version in versions.items() if version < snapshots.get(stream, 0)}
    if not useless:
        return looked.events
    return [
        *(row for row in looked.events if row.stream not in useless),
        *connection.events_after(useless),
    ]


def _settle(settled: Sequence[tuple[asyncio.Future[Receipt], Answer]]) -> None:
    for future, answer in settled:
        if future.done():
            continue
        if isinstance(answer, Receipt):
            future.set_result(answer)
        else:
            future.set_exception(answer)
