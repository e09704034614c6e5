"""`llamasketch verify` and `llamasketch seal`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import psycopg
import sqlalchemy as sa
import typer

from gateway.commands import stack
from gateway.commands.audits import JobAudit, PaymentAudit, returned_together
from ledger.clock import system_clock
from ledger.errors import CorruptLog
from ledger.log.findings import Finding, Findings, Progress, silent
from ledger.log.seal import LogEmpty, Seal, SealRejected, load_or_make_key, read_seal, seal_head
from ledger.log.verify import Report, concluded, verify
from ledger.verification import AccountAudit
from projections.rebuild import compare_with_fresh_replay, rebuild


def verify_everything(url: str, *, seals: Sequence[Seal] = (), progress: Progress = silent) -> Report:
    """Log, streams, what belongs together across streams, and read models. Raises `psycopg.Error`."""
    findings, accounts, jobs = Findings(), AccountAudit(), JobAudit()
    report = verify(
        url,
        stack.categories(),
        audits={"acct": accounts, "pay": PaymentAudit(), "job": jobs},
        command_audits=(returned_together,),
        seals=seals,
        findings=findings,
        progress=progress,
    )
    _holds_against_jobs(url, report, accounts, jobs, findings)
    _read_models(url, findings, progress)
    return concluded(report, findings)


def _holds_against_jobs(
    url: str, report: Report, accounts: AccountAudit, jobs: JobAudit, findings: Findings
) -> None:
    """No hold outlives its job. Holds that stand for no job of ours are nobody's business here."""
    doubtful = sorted(set(accounts.open_holds) - jobs.unfinished)
    if not doubtful:
        return
    with psycopg.connect(url) as connection:
        ended = connection.execute(
            "SELECT DISTINCT originator_id FROM stored_events WHERE originator_id = ANY(%s) "
            "AND notification_id <= %s",
            (doubtful, report.head.position),
        ).fetchall()
    for (job_id,) in ended:
        account = accounts.open_holds[job_id]
        findings.add(
            Finding(
                why=f"{job_id} has ended but its hold on {account} is open", part="stream", stream=account
            )
        )


def _read_models(url: str, findings: Findings, progress: Progress) -> None:
    try:
        rebuilt = asyncio.run(
            compare_with_fresh_replay(stack.sqlalchemy_url(url), stack.categories(), progress=progress)
        )
    except (CorruptLog, ValueError) as error:
        findings.add(Finding(why=f"the log cannot be replayed into read models: {error}", part="projection"))
        return
    for difference in rebuilt.differences:
        findings.add(
            Finding(
                why=difference.why,
                part="projection",
                position=difference.position,
                batch=_batch_at(url, difference.position),
            )
        )


def _batch_at(url: str, position: int | None) -> int | None:
    if position is None:
        return None
    with psycopg.connect(url) as connection:
        query = "SELECT batch FROM log_batches WHERE first_position <= %s AND last_position >= %s"
        row = connection.execute(query, (position, position)).fetchone()
    return None if row is None else int(row[0])


def run_verify(*, as_json: bool, seal_files: Sequence[Path], public_key: str | None) -> int:
    """Verify, say what was found, and give the exit code: 0 if nothing is wrong, else 1."""
    began = time.monotonic()
    try:
        seals = [read_seal(path.read_bytes(), public_key) for path in seal_files]
    except (OSError, SealRejected) as error:
        stack.fail(f"This seal cannot be used: {error}.")
    line = stack.ProgressLine()
    try:
        report = verify_everything(stack.database_url(), seals=seals, progress=line)
    except psycopg.errors.UndefinedTable:
        stack.fail("This database has no ledger in it.")
    except psycopg.OperationalError as error:
        stack.fail(f"The database cannot be read: {str(error).strip().splitlines()[0]}")
    finally:
        line.close()
    seconds = time.monotonic() - began
    if as_json:
        stack.print_json({**msgspec.to_builtins(report), "seconds": round(seconds, 3)})
    else:
        _print(report, seconds)
    return 0 if report.ok else 1


def _print(report: Report, seconds: float) -> None:
    typer.echo(
        f"{report.batches:,} batches, {report.events:,} events in {report.streams:,} streams, "
        f"{report.outcomes:,} outcomes, {report.snapshots:,} snapshots: read in {seconds:.1f} s."
    )
    if report.ok:
        typer.echo("Everything is as it was recorded, and every balance follows from it.")
    else:
        typer.echo(f"{report.wrong:,} findings. First:")
        for finding in [report.first, *(f for f in report.findings if f is not report.first)][:20]:
            if finding is not None:
                typer.echo(f"  {_place(finding)}: {finding.why}")
    for sentence in report.not_proven:
        typer.echo(f"Not proven: {sentence}")


def _place(finding: Finding) -> str:
    parts = [] if finding.position is None else [f"position {finding.position}"]
    if finding.until is not None:
        parts = [f"positions {finding.position} to {finding.until}"]
    if finding.stream is not None:
        version = "" if finding.version is None else f", version {finding.version}"
        parts.append(f"{finding.stream}{version}")
    return " · ".join(parts) or (f"batch {finding.batch}" if finding.batch else finding.part)


def run_rebuild(*, as_json: bool) -> int:
    """Replay the log into the read models."""
    line = stack.ProgressLine()
    url = stack.sqlalchemy_url(stack.database_url())
    try:
        with stack.answering():
            position = asyncio.run(rebuild(url, stack.categories(), progress=line))
    except (sa.exc.SQLAlchemyError, CorruptLog) as error:
        stack.fail(f"Nothing was changed: {error}", code=1)
    finally:
        line.close()
    if as_json:
        stack.print_json({"position": position})
    else:
        typer.echo(f"Balances, statements and feeds are written anew, up to position {position}.")
    return 0


def run_seal(*, output: Path | None, key_file: Path | None, as_json: bool) -> int:
    """Sign the head of the log and write it to a file."""
    folder = stack.data_folder() / "seals"
    try:
        key = load_or_make_key(key_file or folder / "key.pem")
        with stack.answering(), psycopg.connect(stack.database_url()) as connection:
            seal = seal_head(connection, key, system_clock)
    except LogEmpty:
        stack.fail("The log is empty: there is nothing to seal yet.")
    except (psycopg.Error, SealRejected, OSError) as error:
        stack.fail(f"The log was not sealed: {error}")
    path = output or folder / f"seal-{seal.batch:012d}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(seal), indent=2) + b"\n")
    if as_json:
        stack.print_json({"file": str(path), **msgspec.to_builtins(seal)})
    else:
        typer.echo(f"Sealed batch {seal.batch}, position {seal.position}, in {path}.")
        typer.echo("Keep a copy where nobody who can write to the database can write.")
    return 0
