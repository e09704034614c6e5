"""What is wrong with the settings, by every rule and by every rail: asked by the API at start and by `check-config`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from gateway.configuration import findings_of, is_production
from ledger.clock import system_clock
from rails.configuration import Finding, given
from rails.contract import OpenReference, RailContext, RailPlugin
from rails.payments.registry import installed_plugins


class _NoReferences:
    """What a rail knows that is only built to see whether it lets itself be built."""

    async def all(self, rail: str) -> Sequence[OpenReference]:
        """See `ReferenceStore.all`."""
        return ()

    async def cursor(self, rail: str) -> str | None:
        """See `ReferenceStore.cursor`."""
        return None


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
