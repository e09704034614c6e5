"""`llamasketch payments reconcile` and `differences`: what the rails say about our money, beside what we say."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import typer

from gateway.commands import stack
from gateway.commands.operators import show_table
from gateway.commands.payments import run
from gateway.operators_view import row_shown
from gateway.wiring.operating import Operating
from rails.contract import RailError

COLUMNS = (
    "id",
    "rail",
    "reason",
    "part",
    "subject",
    "asset",
    "ours_minor",
    "theirs_minor",
    "opened_at",
    "payment_id",
)


def reconcile(rail: str | None, *, as_json: bool) -> int:
    """Read and compare now; a rail that does not answer keeps no other from being compared."""

    async def work(operating: Operating) -> dict[str, Any]:
        reconciliation = operating.payments.reconciliation
        reports, failed = [], {}
        for name in reconciliation.rails() if rail is None else [rail]:
            try:
                reports.append(asdict(await reconciliation.run(name)))
            except RailError as error:
                failed[name] = f"{error.code}: {error.message}"
        stands = await operating.payments.differences.listed(rail=rail, limit=200)
        return {"runs": reports, "failed": failed, "differences": [row_shown(row) for row in stands]}

    shown = run(work)
    if as_json:
        stack.print_json(shown)
    else:
        for report in shown["runs"]:
            typer.echo(
                f"{report['rail']}: {report['movements']} movements read, {report['compared']} moneys compared, "
                f"{report['opened']} differences opened, {report['closed']} closed"
                + ("" if report["balance_compared"] else "; the balance never stood still")
            )
        for name, problem in shown["failed"].items():
            typer.echo(f"{name}: {problem}", err=True)
        if not shown["runs"] and not shown["failed"]:
            typer.echo("No rail here tells its own books.")
        show_table(shown["differences"], COLUMNS, "Nothing differs.")
    return 1 if shown["differences"] or shown["failed"] else 0


def list_differences(rail: str | None, *, closed: bool, limit: int, as_json: bool) -> int:
    """By the last comparison."""

    async def work(operating: Operating) -> dict[str, Any]:
        found = operating.payments.differences
        rows = await found.listed(rail=rail, closed=closed, limit=limit)
        return {
            "rails": [row_shown(row) for row in await found.runs()],
            "differences": [row_shown(row) for row in rows],
        }

    shown = run(work)
    if as_json:
        stack.print_json(shown)
    else:
        show_table(shown["differences"], COLUMNS, "Nothing differs.")
    return 0
