"""`llamasketch workers`, `jobs`, `queue`: what an operator wants to see, read from PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import msgspec
import psycopg
import sqlalchemy as sa
import typer
from psycopg.rows import tuple_row

from gateway.commands import stack
from generation.fleet.quarantine import failed_accounts
from generation.fleet.registry import GONE, PRESENT_WITHIN
from generation.fleet.tokens import RegistrationTokens
from generation.store.tables import job_queue, job_results, queue_clock, worker_failures, workers
from ledger.clock import system_clock
from ledger.identifiers import is_identifier
from ledger.log.encoding import EventRow, decode_row
from ledger.log.recorder import EVENT_COLUMNS
from projections.tables import statement_entries

Row = Mapping[str, Any]
HOUR_MILLISECONDS = 3_600_000


def _ask(query: sa.Select[Any]) -> list[dict[str, Any]]:
    engine = sa.create_engine(stack.sqlalchemy_url(stack.database_url()))
    try:
        with stack.answering(), engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]
    finally:
        engine.dispose()


def show_table(rows: Sequence[Row], columns: Sequence[str], nothing: str) -> None:
    """Rows for people, in columns; a sentence if there are none."""
    if not rows:
        typer.echo(nothing)
        return
    shown = [[_text(row[column]) for column in columns] for row in rows]
    widths = [max(len(column), *(len(row[n]) for row in shown)) for n, column in enumerate(columns)]
    for line in ([column.replace("_", " ") for column in columns], *shown):
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return value.strftime("%Y-%m-%d %H:%M:%S") if hasattr(value, "strftime") else str(value)


def show_workers(*, as_json: bool) -> int:
    """Every worker that is or was here; `present` if it was heard of lately."""
    query = sa.select(
        workers.c.worker_id,
        workers.c.name,
        workers.c.version,
        workers.c.state,
        workers.c.jobs_done,
        workers.c.gpu_milliseconds,
        failed_accounts(),
        workers.c.self_test_at,
        workers.c.capabilities,
        workers.c.registered_at,
        workers.c.seen_at,
    ).order_by(workers.c.seen_at.desc())
    since = system_clock() - PRESENT_WITHIN
    rows = [
        {**row, "present": row["seen_at"] > since, **_pace(row["jobs_done"], row["gpu_milliseconds"])}
        for row in _ask(query.limit(500))
    ]
    if as_json:
        stack.print_json({"workers": rows})
    else:
        columns = (
            *("worker_id", "name", "state", "present", "jobs_done", "gpu_milliseconds_per_image"),
            *("images_per_gpu_hour", "failed_accounts", "self_test_at", "seen_at"),
        )
        show_table(rows, columns, "No worker has ever registered.")
    return 0


def _pace(images: int, gpu_milliseconds: int) -> dict[str, int | None]:
    """GPU time per image and images per hour of GPU time; None without evidence."""
    known = images > 0 and gpu_milliseconds > 0
    return {
        "gpu_milliseconds_per_image": gpu_milliseconds // images if known else None,
        "images_per_gpu_hour": images * HOUR_MILLISECONDS // gpu_milliseconds if known else None,
    }


def _last_hour() -> dict[str, int | None]:
    """What was delivered, what it took, and what it earned, from the statements."""
    done = (
        sa.select(
            sa.func.count().label("images"),
            sa.func.coalesce(sa.func.sum(job_results.c.gpu_milliseconds), 0).label("gpu_milliseconds"),
            sa.func.coalesce(-sa.func.sum(statement_entries.c.credits), 0).label("credits"),
        )
        .select_from(job_results)
        .join(
            statement_entries,
            sa.and_(
                statement_entries.c.account_id == job_results.c.account_id,
                statement_entries.c.reference_id == job_results.c.job_id,
                statement_entries.c.kind == "captured",
            ),
        )
        .where(job_results.c.completed_at > system_clock() - timedelta(hours=1))
    )
    found = _ask(done)[0]
    images, spent, earned = (int(found[name]) for name in ("images", "gpu_milliseconds", "credits"))
    return {
        "images": images,
        "credits": earned,
        "gpu_milliseconds": spent,
        **_pace(images, spent),
        "credits_per_gpu_hour": earned * HOUR_MILLISECONDS // spent if spent else None,
    }


def set_worker_state(worker_id: str, state: str) -> int:
    """Drain a worker, trust it again, or shut it out for good."""
    values: dict[str, Any] = {"state": state}
    if state == GONE:
        values["token_expires_at"] = system_clock()
    if state == "active":
        values |= {"self_test_at": None, "self_tests": 0}
    engine = sa.create_engine(stack.sqlalchemy_url(stack.database_url()))
    try:
        with stack.answering(), engine.begin() as connection:
            mine = workers.c.worker_id == worker_id
            update = sa.update(workers).where(mine, workers.c.state != GONE).values(**values)
            found = connection.execute(update).rowcount
            if state == "active":
                connection.execute(sa.delete(worker_failures).where(worker_failures.c.worker_id == worker_id))
    finally:
        engine.dispose()
    if not found:
        stack.fail("There is no such worker.", code=1)
    typer.echo(f"{worker_id} is {state}.")
    return 0


def mint_token(hours: int) -> int:
    """Print a one-time registration token."""
    from gateway.derived_secrets import WORKER_REGISTRATION, derive_secret

    stack.refuse_unless_sound("LLAMASKETCH_SECRET_KEY")
    key = stack.environment()["LLAMASKETCH_SECRET_KEY"]
    tokens = RegistrationTokens(derive_secret(key, WORKER_REGISTRATION), system_clock)
    typer.echo(tokens.mint(valid_for=timedelta(hours=hours)))
    return 0


def show_jobs(job_id: str | None, *, account: str | None, limit: int, as_json: bool) -> int:
    """In flight and newest results, or one job's history."""
    if job_id is not None:
        return _history(job_id, as_json=as_json)
    waiting = sa.select(
        job_queue.c.job_id,
        job_queue.c.account_id,
        job_queue.c.state,
        job_queue.c.graph,
        job_queue.c.attempts,
        job_queue.c.worker_id,
        job_queue.c.requested_at,
        job_queue.c.deadline,
    ).order_by(job_queue.c.state.desc(), job_queue.c.rank)
    done = sa.select(
        job_results.c.job_id,
        job_results.c.account_id,
        job_results.c.gpu_milliseconds,
        job_results.c.completed_at,
    ).order_by(job_results.c.completed_at.desc())
    if account is not None:
        waiting = waiting.where(job_queue.c.account_id == account)
        done = done.where(job_results.c.account_id == account)
    in_flight, delivered = _ask(waiting.limit(limit)), _ask(done.limit(limit))
    if as_json:
        stack.print_json({"in_flight": in_flight, "delivered": delivered})
        return 0
    columns = ("job_id", "account_id", "state", "attempts", "worker_id", "requested_at", "deadline")
    show_table(in_flight, columns, "No job is in flight.")
    typer.echo("")
    show_table(
        delivered, ("job_id", "account_id", "gpu_milliseconds", "completed_at"), "No image was delivered yet."
    )
    return 0


def _history(job_id: str, *, as_json: bool) -> int:
    if not is_identifier(job_id, "job"):
        stack.fail("This is not the id of a job.")
    known = stack.categories()
    query = f"SELECT {EVENT_COLUMNS} FROM stored_events WHERE originator_id = %s ORDER BY originator_version"
    with (
        stack.answering(),
        psycopg.connect(stack.database_url()) as connection,
        connection.cursor(row_factory=tuple_row, binary=True) as cursor,
    ):
        found = [decode_row(EventRow(*row), known) for row in cursor.execute(query.encode(), (job_id,))]
    if not found:
        stack.fail("There is no such job.", code=1)
    events: Iterable[dict[str, Any]] = (
        {
            "position": entry.position,
            "recorded_at": entry.recorded_at,
            "event": entry.name,
            "actor": entry.actor,
            "data": msgspec.to_builtins(entry.event),
        }
        for entry in found
    )
    if as_json:
        stack.print_json({"job": job_id, "events": list(events)})
        return 0
    for event in events:
        returned = ", ".join(f"{name} {value}" for name, value in event["data"].items() if value is not None)
        typer.echo(f"{_text(event['recorded_at'])}  {event['event']}  by {event['actor']}\n    {returned}")
    return 0


def show_queue(*, as_json: bool) -> int:
    """Counts, the longest wait, who waits, who works."""
    now = system_clock()
    states = _ask(
        sa.select(
            job_queue.c.state,
            sa.func.count().label("jobs"),
            sa.func.min(job_queue.c.requested_at).label("oldest"),
        ).group_by(job_queue.c.state)
    )
    people = _ask(
        sa.select(job_queue.c.account_id, sa.func.count().label("jobs"))
        .group_by(job_queue.c.account_id)
        .order_by(sa.desc("jobs"))
        .limit(10)
    )
    present = _ask(
        sa.select(workers.c.state, sa.func.count().label("workers"))
        .where(workers.c.seen_at > now - PRESENT_WITHIN)
        .group_by(workers.c.state)
    )
    clock = _ask(sa.select(queue_clock.c.virtual_time))
    by_state = {row["state"]: row for row in states}
    queued = by_state.get("queued", {"jobs": 0, "oldest": None})
    summary = {
        "queued": queued["jobs"],
        "running": by_state.get("running", {"jobs": 0})["jobs"],
        "longest_wait_seconds": int((now - queued["oldest"]).total_seconds()) if queued["oldest"] else 0,
        "workers": {row["state"]: row["workers"] for row in present},
        "virtual_time": clock[0]["virtual_time"] if clock else 0,
        "most_in_flight": people,
        "last_hour": (hour := _last_hour()),
    }
    if as_json:
        stack.print_json(summary)
        return 0
    typer.echo(
        f"{summary['queued']} waiting (longest {summary['longest_wait_seconds']} s), {summary['running']} running"
    )
    typer.echo("workers: " + (", ".join(f"{n} {s}" for s, n in summary["workers"].items()) or "none"))
    typer.echo(
        f"last hour: {hour['images']} images for {hour['credits']} credits, "
        f"{_text(hour['gpu_milliseconds_per_image'])} ms of GPU time each, "
        f"{_text(hour['credits_per_gpu_hour'])} credits per GPU hour"
    )
    for row in people:
        typer.echo(f"  {row['account_id']}  {row['jobs']} in flight")
    return 0
