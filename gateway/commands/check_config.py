"""`llamasketch check-config`: everything that is wrong with the settings, at once, before anything starts."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import psycopg
import typer

from gateway.commands import stack
from gateway.configuration import EMBEDDED, PRODUCTION, findings_of, is_production
from gateway.database.privileges import TooPowerful, refuse_superuser
from ledger.clock import system_clock
from rails.configuration import Finding, given
from rails.contract import OpenReference, RailContext, RailPlugin
from rails.payments.registry import installed_plugins

CONNECT_SECONDS = 3


class _NoReferences:
    """What a rail knows that is only built to see whether it lets itself be built."""

    async def all(self, rail: str) -> Sequence[OpenReference]:
        """See `ReferenceStore.all`."""
        return ()


def run_check_config(*, as_json: bool) -> int:
    """0 if nothing is wrong, 1 if something is."""
    environ = stack.environment()
    findings = all_findings(environ)
    role, unchecked = _database_role(environ)
    findings += role
    if as_json:
        stack.print_json(
            {
                "ok": not findings,
                "environment": PRODUCTION if is_production(environ) else EMBEDDED,
                "findings": [finding._asdict() for finding in findings],
                "unchecked": unchecked,
            }
        )
    else:
        _print(findings, unchecked, production=is_production(environ))
    return 1 if findings else 0


def all_findings(environ: Mapping[str, str]) -> list[Finding]:
    """What the rules say, and what each rail itself refuses to be built with. Nothing is connected."""
    plugins = installed_plugins()
    findings = findings_of(environ, plugins)
    return findings + asyncio.run(_refused_by_rails(given(environ), plugins, findings))


async def _refused_by_rails(
    environ: Mapping[str, str], plugins: Sequence[RailPlugin], findings: list[Finding]
) -> list[Finding]:
    context = RailContext(clock=system_clock, references=_NoReferences(), production=is_production(environ))
    known = {finding.problem for finding in findings}
    refused = [await _refusal(plugin, environ, context) for plugin in plugins if plugin.configured(environ)]
    return [finding for finding in refused if finding is not None and finding.problem not in known]


async def _refusal(plugin: RailPlugin, environ: Mapping[str, str], context: RailContext) -> Finding | None:
    try:
        rail = plugin.build(environ, context)
    except ValueError as error:
        return Finding(f"rail {plugin.name}", "refused_by_rail", str(error))
    await rail.close()
    return None


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


def _print(findings: list[Finding], unchecked: list[str], *, production: bool) -> None:
    for finding in findings:
        typer.echo(f"WRONG: {finding.problem}")
    for sentence in unchecked:
        typer.echo(f"Not checked: {sentence}")
    what = PRODUCTION if production else f"{EMBEDDED} (for trying out)"
    if findings:
        count = "1 setting is" if len(findings) == 1 else f"{len(findings)} settings are"
        typer.echo(f"{count} wrong for {what}; docs/settings.md has the rules.")
    else:
        typer.echo(f"Nothing is wrong with the settings for {what}.")
