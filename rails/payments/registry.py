"""Which rails there are: plugins announce themselves, settings switch them on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points

import structlog

from rails.contract import Rail, RailContext, RailPlugin

GROUP = "llamasketch.rails"
"""The entry-point group of rail plugins."""


def installed_plugins() -> Sequence[RailPlugin]:
    """Every plugin that some installed distribution announces, by name."""
    found = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    plugins: list[RailPlugin] = [point.load() for point in found]
    return plugins


def build_rails(
    plugins: Sequence[RailPlugin], environ: Mapping[str, str], context: RailContext
) -> dict[str, Rail]:
    """Build what is configured. Raises `ValueError` with one clear sentence on bad configuration."""
    log = structlog.get_logger("rails.payments.registry")
    rails: dict[str, Rail] = {}
    for plugin in plugins:
        if not plugin.configured(environ):
            log.info("rail_absent", rail=plugin.name)
            continue
        if plugin.name in rails:
            raise ValueError(f"two plugins announce the rail {plugin.name!r}")
        rails[plugin.name] = plugin.build(environ, context)
        log.info("rail_built", rail=plugin.name)
    return rails
