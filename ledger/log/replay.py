"""The second half of a verification: every stream from its first event, without snapshots."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any, Protocol

import psycopg

from ledger.errors import CorruptLog
from ledger.log.categories import Categories
from ledger.log.chain import stream_rows
from ledger.log.encoding import EventRow, decode_row
from ledger.log.findings import Finding, Findings, Progress
from ledger.log.model import Category, Envelope
from ledger.log.recorder import EVENT_COLUMNS, Snapshot


class StreamAudit(Protocol):
    """What else must be true of the streams of one category. One object sees all of them in turn."""

    def begin(self, stream: str) -> None:
        """A new stream begins."""

    def step(self, before: Any, envelope: Envelope, after: Any) -> Iterable[tuple[Envelope, str]]:
        """What is wrong with one event (or one shortly before it), given the states around it."""

    def end(self, state: Any) -> Iterable[str]:
        """What is wrong with the stream as a whole."""


class ReplayCheck:
    """Folds every stream, and compares the snapshots on the way."""

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        categories: Categories,
        findings: Findings,
        progress: Progress,
        audits: Mapping[str, StreamAudit],
    ) -> None:
        self._connection = connection
        self._categories = categories
        self._findings = findings
        self._progress = progress
        self._audits = audits
        self.streams = 0
        self.snapshots = 0

    def run(self, whole: int) -> None:
        """Read every event once, stream by stream. One stream's state is in memory at a time."""
        query = f"SELECT {EVENT_COLUMNS} FROM stored_events ORDER BY originator_id, originator_version"
        events = stream_rows(self._connection, "verify_streams", query, EventRow)
        query = "SELECT stream, version, shape, state FROM log_snapshots ORDER BY stream"
        snapshots = stream_rows(self._connection, "verify_snapshots", query, Snapshot)
        snapshot = next(snapshots, None)
        done = 0
        for stream, rows in groupby(events, key=lambda row: row.stream):
            # Both cursors are in PostgreSQL's own order of text, so only equality may be asked here.
            mine = snapshot if snapshot is not None and snapshot.stream == stream else None
            done += self._stream(stream, rows, mine)
            self.streams += 1
            if mine is not None:
                self.snapshots += 1
                snapshot = next(snapshots, None)
            self._progress("events replayed", done, whole)
        if snapshot is not None:
            why = "there is a snapshot of a stream that has no event"
            self._findings.add(Finding(why=why, part="snapshot", stream=snapshot.stream))

    def _stream(self, stream: str, rows: Iterator[EventRow], snapshot: Snapshot | None) -> int:
        try:
            category = self._categories.of(stream)
        except ValueError:
            return sum(1 for _ in rows)
        audit = self._audits.get(category.prefix)
        if audit is not None:
            audit.begin(stream)
        count, state, last = 0, category.initial, None
        sound = True
        for row in rows:
            count += 1
            if not sound:
                continue
            envelope = self._read(row, count, last)
            after = None if envelope is None else self._folded(category, state, envelope)
            if envelope is None or after is None:
                sound = False
                continue
            if audit is not None:
                self._note(audit.step(state, envelope, after[0]))
            state, last = after[0], envelope
            if snapshot is not None and snapshot.version == row.version:
                self._compare(snapshot, state, envelope)
        if sound and last is not None:
            if audit is not None:
                self._note((last, why) for why in audit.end(state))
            if snapshot is not None and snapshot.version > last.version:
                self._findings.at(last, "snapshot", "the snapshot is newer than the stream")
        return count

    def _note(self, wrong: Iterable[tuple[Envelope, str]]) -> None:
        for envelope, why in wrong:
            self._findings.at(envelope, "stream", why)

    def _read(self, row: EventRow, version: int, last: Envelope | None) -> Envelope | None:
        try:
            envelope = decode_row(row, self._categories)
        except (CorruptLog, TypeError, ValueError):
            return None  # the chain has named it
        if row.version != version:
            self._findings.at(envelope, "stream", f"version {version} of the stream is missing")
            return None
        if last is not None and row.position <= last.position:
            self._findings.at(envelope, "stream", "the event stands in the log before its predecessor")
        return envelope

    def _folded(self, category: Category[Any], state: Any, envelope: Envelope) -> tuple[Any] | None:
        try:
            return (category.evolve(state, envelope.event),)
        except Exception as error:  # noqa: BLE001 - a tampered event may break anything; that is the finding
            self._findings.at(envelope, "stream", f"the event cannot be folded: {error!r}")
            return None

    def _compare(self, snapshot: Snapshot, state: Any, envelope: Envelope) -> None:
        codec = self._categories.codec_of(snapshot.stream)
        if codec is None or codec.shape != snapshot.shape:
            return  # written by other code: nobody loads it
        try:
            same = codec.decode(snapshot.state) == state
        except ValueError:
            same = False
        if not same:
            self._findings.at(envelope, "snapshot", "the snapshot differs from a replay up to this event")
