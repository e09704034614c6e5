"""`llamasketch check-config`: everything that is wrong with the settings, at once, before anything starts."""

from __future__ import annotations

from collections.abc import Mapping

import psycopg
import typer

from gateway.commands import stack
from gateway.configuration import EMBEDDED, PRODUCTION, SMTP_URL, is_production
from gateway.database.privileges import TooPowerful, refuse_superuser
from gateway.findings import all_findings
from rails.configuration import Finding, given

CONNECT_SECONDS = 3


def run_check_config(*, as_json: bool) -> int:
    """0 if nothing is wrong, 1 if something is."""
    environ = stack.environment()
    findings = all_findings(environ)
    role, unchecked = _database_role(environ)
    findings += role
    off = [] if SMTP_URL in given(environ) else [f"mail: {SMTP_URL} is not given, so nobody gets a receipt"]
    if as_json:
        stack.print_json(
            {
                "ok": not findings,
                "environment": PRODUCTION if is_production(environ) else EMBEDDED,
                "findings": [finding._asdict() for finding in findings],
                "unchecked": unchecked,
                "off": off,
            }
        )
    else:
        _print(findings, unchecked, off, production=is_production(environ))
    return 1 if findings else 0


def _database_role(environ: Mapping[str, str]) -> tuple[list[Finding], list[str]]:
    url = given(environ).get("DATABASE_URL", "")
    if not is_production(environ) or not url.startswith("postgresql:"):
        return [], []
    try:
        with psycopg.connect(url, connect_timeout=CONNECT_SECONDS) as connection:
            refuse_superuser(connection)
    except TooPowerful as error:
        return [Finding("DATABASE_URL", "superuser", str(error))], []
    except psycopg.Error:
        return [], ["DATABASE_URL: the database does not answer, so the rights of its role are not known"]
    return [], []


def _print(findings: list[Finding], unchecked: list[str], off: list[str], *, production: bool) -> None:
    for finding in findings:
        typer.echo(f"WRONG: {finding.problem}")
    for sentence in unchecked:
        typer.echo(f"Not checked: {sentence}")
    for sentence in off:
        typer.echo(f"Off: {sentence}")
    what = PRODUCTION if production else f"{EMBEDDED} (for trying out)"
    if findings:
        count = "1 setting is" if len(findings) == 1 else f"{len(findings)} settings are"
        typer.echo(f"{count} wrong for {what}; docs/settings.md has the rules.")
    else:
        typer.echo(f"Nothing is wrong with the settings for {what}.")
