"""The first half of a verification: the log in order, batch by batch, against its own hashes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple, TypeVar

import psycopg
from psycopg.rows import tuple_row

from ledger.errors import CorruptLog
from ledger.log.categories import Categories
from ledger.log.columns import batch_hash, columns
from ledger.log.encoding import EventRow, OutcomeRow, Sealed, decode_row, is_as_written
from ledger.log.findings import Finding, Findings, Progress
from ledger.log.model import Envelope
from ledger.log.recorder import EVENT_COLUMNS, GENESIS

PAGE_ROWS = 2_000
R = TypeVar("R")

CommandAudit = Callable[[Sequence[Envelope]], Iterable[tuple[Envelope, str]]]
"""Says what is wrong with the events of one command, which were recorded together."""


class Counted(NamedTuple):
    """How much was read, and where the log ends."""

    batches: int
    events: int
    outcomes: int
    head: Sealed


def stream_rows(
    connection: psycopg.Connection[Any], name: str, query: str, make: Callable[..., R]
) -> Iterator[R]:
    """The rows of a query by a server-side cursor: never more than a page of them in memory."""
    with connection.cursor(name, row_factory=tuple_row) as cursor:
        cursor.itersize = PAGE_ROWS
        cursor.execute(query.encode(), binary=True)
        for row in cursor:
            yield make(*row)


class _Peekable(Iterator[R]):
    """An iterator whose next element can be looked at."""

    def __init__(self, source: Iterator[R]) -> None:
        self._source = source
        self.head = next(source, None)

    def __next__(self) -> R:
        if self.head is None:
            raise StopIteration
        taken, self.head = self.head, next(self._source, None)
        return taken

    def take_while(self, wanted: Callable[[R], bool]) -> list[R]:
        """What comes next, as long as it is wanted."""
        taken = []
        while self.head is not None and wanted(self.head):
            taken.append(next(self))
        return taken


class ChainCheck:
    """Recomputes the hash of every batch and checks what belongs to it."""

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        categories: Categories,
        findings: Findings,
        progress: Progress,
        audits: Sequence[CommandAudit],
    ) -> None:
        self._connection = connection
        self._categories = categories
        self._findings = findings
        self._progress = progress
        self._audits = audits

    def run(self, whole: int) -> Counted:
        """Read everything once, in the order of the log; `whole` is about how many events there are."""
        batches = stream_rows(
            self._connection,
            "verify_batches",
            "SELECT batch, first_position, last_position, outcomes, recorded_at, previous_hash, hash "
            "FROM log_batches ORDER BY batch",
            Sealed,
        )
        query = f"SELECT {EVENT_COLUMNS} FROM stored_events ORDER BY notification_id"
        events = _Peekable(stream_rows(self._connection, "verify_events", query, EventRow))
        outcomes = _Peekable(
            stream_rows(
                self._connection,
                "verify_outcomes",
                "SELECT key, batch, ordinal, body_digest, position, refusal, detail "
                "FROM log_outcomes ORDER BY batch, ordinal",
                OutcomeRow,
            )
        )
        count = seen = answered = 0
        before = GENESIS
        for sealed in batches:
            last, number = sealed.last_position, sealed.batch
            rows = events.take_while(lambda row, last=last: row.position <= last)  # type: ignore[misc]
            answers = outcomes.take_while(lambda row, number=number: row.batch <= number)  # type: ignore[misc]
            self._batch(before, sealed, rows, answers)
            count, seen, answered = count + 1, seen + len(rows), answered + len(answers)
            before = sealed
            self._progress("events against the chain", seen, whole)
        self._beyond_the_chain(events, outcomes, before)
        return Counted(count, seen, answered, before)

    def _beyond_the_chain(
        self, events: _Peekable[EventRow], outcomes: _Peekable[OutcomeRow], head: Sealed
    ) -> None:
        """What lies beyond the last batch was never recorded by us."""
        for row in events:
            self._wrong_row(row, None, "the event belongs to no batch: it was put there by other means")
        for outcome in outcomes:
            self._wrong(head, f"the outcome of command {outcome.key} belongs to no batch")

    def _batch(self, before: Sealed, sealed: Sealed, rows: list[EventRow], answers: list[OutcomeRow]) -> None:
        if sealed.batch != before.batch + 1:
            self._wrong(sealed, f"batches {before.batch + 1} to {sealed.batch - 1} are missing")
        elif bytes(sealed.previous_hash) != bytes(before.hash):
            self._wrong(sealed, "the batch does not name the hash of the one before it")
        if sealed.first_position != before.last_position + 1:
            self._wrong(sealed, f"the batch should begin at position {before.last_position + 1}")
        if sealed.recorded_at < before.recorded_at:
            self._wrong(sealed, "the batch is dated before the one that it follows")
        self._positions(sealed, rows)
        envelopes = self._envelopes(sealed, rows)
        self._ordinals(sealed, answers)
        if len(envelopes) == len(rows):
            self._commands(sealed, before.last_position, envelopes, answers)
        computed = batch_hash(
            bytes(before.hash),
            sealed.batch,
            sealed.first_position,
            sealed.recorded_at,
            columns(rows, answers),
        )
        if computed != bytes(sealed.hash):
            self._explain(sealed, rows)

    def _positions(self, sealed: Sealed, rows: list[EventRow]) -> None:
        expected = sealed.first_position
        for row in rows:
            if row.position > expected:
                self._missing(sealed, expected, row.position - 1)
            elif row.position < expected:
                self._wrong_row(row, sealed.batch, f"position {row.position} is not of this batch")
            expected = max(expected, row.position + 1)
        if expected <= sealed.last_position:
            self._missing(sealed, expected, sealed.last_position)

    def _missing(self, sealed: Sealed, first: int, last: int) -> None:
        many = f"the events at positions {first} to {last} are" if last > first else "the event is"
        self._findings.add(Finding(why=f"{many} missing", part="chain", position=first, batch=sealed.batch))

    def _envelopes(self, sealed: Sealed, rows: list[EventRow]) -> list[Envelope]:
        found = []
        for row in rows:
            try:
                envelope = decode_row(row, self._categories)
                self._categories.of(row.stream)
            except (CorruptLog, TypeError, ValueError) as error:
                self._wrong_row(row, sealed.batch, f"the event cannot be read: {error}")
                continue
            found.append(envelope)
            if envelope.batch != sealed.batch:
                self._wrong_row(row, sealed.batch, f"the event says it is of batch {envelope.batch}")
            if envelope.recorded_at != sealed.recorded_at:
                self._wrong_row(row, sealed.batch, "the event was recorded at another time than its batch")
        return found

    def _ordinals(self, sealed: Sealed, answers: list[OutcomeRow]) -> None:
        if len(answers) != sealed.outcomes:
            why = f"the batch should have {sealed.outcomes} outcomes and has {len(answers)}"
            self._wrong(sealed, why)
        for place, answer in enumerate(answers):
            if answer.batch != sealed.batch or answer.ordinal != place:
                self._wrong(sealed, f"the outcome of command {answer.key} is out of its place")
                return

    def _commands(
        self, sealed: Sealed, position: int, envelopes: list[Envelope], answers: list[OutcomeRow]
    ) -> None:
        """Each accepted command has its events, and they stand together."""
        groups = [(key, list(group)) for key, group in groupby(envelopes, key=lambda e: e.key)]
        by_key = dict(groups)
        if len(by_key) != len(groups):
            self._wrong(sealed, "the events of one command do not stand together")
            return
        for answer in answers:
            own = by_key.pop(answer.key, []) if answer.refusal is None else by_key.get(answer.key, [])
            if answer.refusal is not None and own:
                self._findings.at(own[0], "chain", f"command {answer.key} was refused but has this event")
            position += len(own)
            if answer.position != position:
                why = f"the outcome of command {answer.key} says position {answer.position}, not {position}"
                self._wrong(sealed, why)
                break
        for key, orphans in by_key.items():
            self._findings.at(orphans[0], "chain", f"no accepted command {key} is recorded for this event")
        for _, group in groups:
            for audit in self._audits:
                for envelope, why in audit(group):
                    self._findings.at(envelope, "command", why)

    def _explain(self, sealed: Sealed, rows: list[EventRow]) -> None:
        """A batch does not match its hash: name the event that was changed if it shows."""
        why = (
            f"batch {sealed.batch} (positions {sealed.first_position} to {sealed.last_position}) does not "
            "match its hash: an event, an outcome or the batch itself was changed"
        )
        for row in rows:
            if not is_as_written(row, self._categories):
                self._wrong_row(row, sealed.batch, f"{why}; this event is not written as we write events")
                return
        only = len(rows) == 1
        self._findings.add(
            Finding(
                why=why,
                part="chain",
                position=sealed.first_position if rows else None,
                stream=rows[0].stream if only else None,
                version=rows[0].version if only else None,
                batch=sealed.batch,
                until=sealed.last_position if sealed.last_position > sealed.first_position else None,
            )
        )

    def _wrong(self, sealed: Sealed, why: str) -> None:
        some = sealed.last_position >= sealed.first_position
        self._findings.add(
            Finding(
                why=why,
                part="chain",
                position=sealed.first_position if some else None,
                until=sealed.last_position if sealed.last_position > sealed.first_position else None,
                batch=sealed.batch or None,
            )
        )

    def _wrong_row(self, row: EventRow, batch: int | None, why: str) -> None:
        self._findings.add(
            Finding(
                why=why,
                part="chain",
                position=row.position,
                stream=row.stream,
                version=row.version,
                batch=batch,
            )
        )
