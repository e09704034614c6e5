"""Verification: does the log match its own hashes and rules?

Everything is read in one snapshot of the database, so writers may go on. Two passes: the log in
order against its chain (`ledger.log.chain`), and every stream from its first event
(`ledger.log.replay`). What streams of a category must satisfy is given as audits. Memory is
bounded by one page of rows, the largest single batch, the largest single state, and what the
audits keep.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import psycopg
from psycopg.rows import tuple_row

from ledger.log.categories import Categories
from ledger.log.chain import ChainCheck, CommandAudit
from ledger.log.encoding import Sealed
from ledger.log.findings import Finding, Findings, Progress, silent
from ledger.log.replay import ReplayCheck, StreamAudit
from ledger.log.seal import Seal, check_seal


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """Where the log ends."""

    batch: int
    position: int
    hash: str
    recorded_at: str


class Report(msgspec.Struct, kw_only=True):
    """What a verification did and found."""

    ok: bool
    head: Head
    batches: int
    events: int
    outcomes: int
    streams: int
    snapshots: int
    first: Finding | None
    """The first event that is wrong, or as near as can be said."""
    findings: list[Finding]
    wrong: int
    """How many findings there are; only the first hundred are listed."""
    not_proven: list[str]
    """What this verification could not tell, in sentences."""


def verify(
    url: str,
    categories: Categories,
    *,
    audits: Mapping[str, StreamAudit] | None = None,
    command_audits: Sequence[CommandAudit] = (),
    seals: Sequence[Seal] = (),
    findings: Findings | None = None,
    progress: Progress = silent,
) -> Report:
    """Read the whole log of a database. Raises `psycopg.Error` if it cannot be read.

    `audits` are by stream prefix. `findings` may already hold what other checks found.
    """
    found = findings or Findings()
    with psycopg.connect(url, row_factory=tuple_row) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        whole = _about(connection)
        chain = ChainCheck(connection, categories, found, progress, command_audits).run(whole)
        replay = ReplayCheck(connection, categories, found, progress, audits or {})
        replay.run(chain.events)
        for seal in seals:
            check_seal(connection, seal, found)
    return Report(
        ok=found.count == 0,
        head=head_of(chain.head),
        batches=chain.batches,
        events=chain.events,
        outcomes=chain.outcomes,
        streams=replay.streams,
        snapshots=replay.snapshots,
        first=found.first,
        findings=found.kept,
        wrong=found.count,
        not_proven=_not_proven(seals, chain.head),
    )


def concluded(report: Report, findings: Findings) -> Report:
    """The report with what was found afterwards by other checks."""
    report.ok, report.first = findings.count == 0, findings.first
    report.findings, report.wrong = findings.kept, findings.count
    return report


def head_of(sealed: Sealed) -> Head:
    """The end of the log for people and programs."""
    return Head(
        batch=sealed.batch,
        position=sealed.last_position,
        hash=bytes(sealed.hash).hex(),
        recorded_at=sealed.recorded_at.isoformat(),
    )


def _about(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("SELECT coalesce(max(last_position), 0) FROM log_batches").fetchone()
    return 0 if row is None else int(row[0])


def _not_proven(seals: Sequence[Seal], head: Sealed) -> list[str]:
    if not seals:
        sentence = (
            f"That nothing was cut off the end after batch {head.batch}, and that the chain was not written "
            "anew as a whole: only a head sealed outside the database can show it (--seal FILE)."
        )
        return [sentence]
    newest = max(seal.batch for seal in seals)
    if newest < head.batch:
        return [f"That nothing was cut off after batch {head.batch}: the newest seal is of batch {newest}."]
    return []
