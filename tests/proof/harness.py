"""Two processes on one database, and a reader of their log that trusts neither."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any

import psycopg

from ledger.clock import ManualClock
from ledger.domain.account import ACCOUNTS
from ledger.errors import LogUnavailable, OutcomeUnknown
from ledger.identifiers import CommandKey
from ledger.log.categories import Categories
from ledger.log.encoding import EventRow, decode_row
from ledger.log.model import Envelope, Receipt, Transaction
from ledger.log.recorder import EVENT_COLUMNS, LOG_LOCK
from ledger.log.sequencer import Sequencer
from ledger.log.verify import Report, verify
from ledger.verification import AccountAudit
from tests.proof.killing import KillableRecorder, Killer, kill_backends
from tests.waiting import SECONDS_MAX

EPOCH = datetime(2028, 2, 26, 12, tzinfo=UTC)
CATEGORIES = Categories([ACCOUNTS])
NOT_ANSWERED = (LogUnavailable, OutcomeUnknown)
Answer = Receipt | BaseException


@dataclass
class Outcome:
    key: str
    refusal: str | None
    recorded_at: datetime


class Process:
    """A sequencer with connections and a clock of its own."""

    def __init__(self, url: str, clock: ManualClock, admin: psycopg.Connection[Any]) -> None:
        self.killer = Killer(admin)
        self.clock = clock
        self._recorder = KillableRecorder(url, self.killer)
        self.sequencer = Sequencer(self._recorder, CATEGORIES, clock, cache_capacity=2)
        self.sequencer._pause.set()  # no waiting between attempts
        self.sequencer.start()

    def stop(self) -> None:
        self.sequencer.stop()
        self._recorder.datastore.close()


class Harness:
    """`database` is the URL of a database with the log's tables. One desk sees many lives."""

    def __init__(self, database: str) -> None:
        self.url = database
        self.loop = asyncio.new_event_loop()
        self.reader = psycopg.connect(database, autocommit=True)
        self._lock = psycopg.connect(database)
        self._admin = psycopg.connect(database, autocommit=True)
        self.processes = [Process(database, ManualClock(EPOCH), self._admin) for _ in range(2)]
        self.lives = self.batches = self._barriers = self.born_at = 0
        self.rows: list[EventRow] = []

    def new_life(self) -> datetime:
        """Begin at the noon after everything that was; returns when that is."""
        self.lives += 1
        row = self.reader.execute(
            "SELECT coalesce(max(batch), 0), coalesce(max(last_position), 0), max(recorded_at) FROM log_batches"
        ).fetchone()
        assert row is not None
        self.batches, self.born_at = row[0], row[1]
        last = (row[2] or EPOCH).astimezone(UTC)
        start = datetime.combine(last.date() + timedelta(days=2), time(12), UTC)
        self.rows = []
        for number, process in enumerate(self.processes):
            process.clock.set(start)
            if process.killer.dead:
                self.replace(number)
            process.killer.plan, process.killer.dies = [], False
        return start

    def close(self) -> None:
        for process in self.processes:
            process.stop()
        for connection in (self.reader, self._lock, self._admin):
            connection.close()
        self.loop.close()

    def replace(self, number: int) -> None:
        """Stop a process and start another in its place: no cache, the same clock."""
        old = self.processes[number]
        old.stop()
        self.processes[number] = Process(self.url, old.clock, self._admin)

    def disconnect(self, number: int) -> None:
        """The server ends the connections of an idle process."""
        kill_backends(self._admin, self.processes[number].killer.backends)

    # Submitting

    def submit(self, number: int, transactions: Sequence[Transaction]) -> list[Answer]:
        """All at once to one process; as one batch if there are several."""
        if len(transactions) == 1:
            return self.loop.run_until_complete(self._gather([(number, t) for t in transactions]))
        return self.loop.run_until_complete(self._one_batch(number, transactions))

    def race(self, transactions: Sequence[tuple[int, Transaction]]) -> list[Answer]:
        """All at once, each to its process."""
        return self.loop.run_until_complete(self._gather(transactions))

    async def _gather(self, transactions: Sequence[tuple[int, Transaction]]) -> list[Answer]:
        waiting = [self.processes[number].sequencer.submit(t) for number, t in transactions]
        async with asyncio.timeout(SECONDS_MAX):
            return await asyncio.gather(*waiting, return_exceptions=True)

    async def _one_batch(self, number: int, transactions: Sequence[Transaction]) -> list[Answer]:
        """Hold the log's lock until the process waits for it, so that all others pile up behind."""
        sequencer = self.processes[number].sequencer
        with self._lock.transaction():
            self._lock.execute("SELECT pg_advisory_xact_lock(%s)", (LOG_LOCK,))
            first = asyncio.ensure_future(sequencer.submit(self._barrier()))
            async with asyncio.timeout(SECONDS_MAX):
                await asyncio.sleep(0)
                while sequencer.waiting:
                    await asyncio.sleep(0)
            rest = asyncio.ensure_future(self._gather([(number, t) for t in transactions]))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        await asyncio.gather(first, return_exceptions=True)  # it may never hear its answer
        return await rest

    def _barrier(self) -> Transaction:
        self._barriers += 1
        return Transaction(
            key=CommandKey(f"barrier-{self._barriers}"),
            actor="system:test",
            body=[],
            streams=(),
            decide=lambda _: None,
        )

    # Reading

    def news(self) -> list[Outcome]:
        """What was answered since the last time, in the order of the log."""
        found = self.reader.execute(
            "SELECT o.key, o.refusal, b.recorded_at FROM log_outcomes o JOIN log_batches b USING (batch) "
            "WHERE o.batch > %s ORDER BY o.batch, o.ordinal",
            (self.batches,),
        ).fetchall()
        newest = self.reader.execute("SELECT coalesce(max(batch), 0) FROM log_batches").fetchone()
        assert newest is not None
        self.batches = newest[0]
        return [Outcome(*row) for row in found if not row[0].startswith("barrier")]

    def events(self) -> list[Envelope]:
        """The events since the last time; their positions have no gap."""
        cursor = self.reader.execute(
            f"SELECT {EVENT_COLUMNS} FROM stored_events WHERE notification_id > %s ORDER BY notification_id",
            (self.born_at + len(self.rows),),
        )
        fresh = [EventRow(*row) for row in cursor]
        first = self.born_at + len(self.rows) + 1
        assert [row.position for row in fresh] == list(range(first, first + len(fresh)))
        self.rows += fresh
        return [decode_row(row, CATEGORIES) for row in fresh]

    def all_rows(self) -> list[EventRow]:
        """What this life has left in the log, as it is now."""
        query = (
            f"SELECT {EVENT_COLUMNS} FROM stored_events WHERE notification_id > %s ORDER BY notification_id"
        )
        return [EventRow(*row) for row in self.reader.execute(query, (self.born_at,))]

    def verified(self) -> Report:
        return verify(self.url, CATEGORIES, audits={"acct": AccountAudit()})


def result_of(answer: Answer) -> Any:
    """What can be compared of an answer."""
    if isinstance(answer, Receipt):
        return "accepted", answer.position, answer.result
    return type(answer).__name__, getattr(answer, "details", None)
