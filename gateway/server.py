"""What `python -m gateway.serve` runs: check the settings, wait for the database, migrate, serve by uvicorn, bounded."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Iterable
from functools import partial
from types import FrameType
from typing import NoReturn, cast

import uvicorn
from fastapi import FastAPI

from gateway.app import create_app
from gateway.auth.networks import Origins
from gateway.bounds.connections import ConnectionLimits, Connections, raise_descriptor_limit
from gateway.bounds.protocol import BoundedProtocol
from gateway.database.privileges import TooPowerful
from gateway.database.schema import MigrationBlocked
from gateway.database.startup_retry import WAIT_SECONDS_MAX, DatabaseAway, NotTheOwner, migrate_when_there
from gateway.findings import all_findings
from gateway.logging import configure_logging
from gateway.settings import Settings
from ledger.collector import calm_garbage_collector

WRONG_SETTINGS = 2
"""The exit code when it may not start like this."""


class Server(uvicorn.Server):
    """uvicorn, which ends long polls and event streams at once when it is told to stop."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Tell what waits inside requests to come to an end, then stop as usual."""
        application = self.config.app
        services = getattr(getattr(application, "state", None), "services", None)
        if services is not None:
            services.base.signals.close()
        super().handle_exit(sig, frame)


def server_config(app: FastAPI, host: str, port: int, settings: Settings) -> uvicorn.Config:
    """How it is served: bounded, no access log, no boasting, and no forwarding headers but by our own rules."""
    limits = ConnectionLimits.of(settings, raise_descriptor_limit())
    connections = Connections(limits, Origins(settings.trusted_proxies))
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=cast("type[asyncio.Protocol]", partial(BoundedProtocol, connections)),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=5,
        backlog=4096,
    )


def _refuse(problems: Iterable[str]) -> NoReturn:
    """End with what is wrong, a line each, as `llamasketch check-config` says it."""
    sys.stderr.writelines(f"WRONG: {problem}\n" for problem in problems)
    sys.exit(WRONG_SETTINGS)


def main() -> None:
    """Read the settings from the environment and serve until told to stop."""
    parser = argparse.ArgumentParser(description="Serve the LlamaSketch API and pages.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument(
        "--startup-timeout",
        type=float,
        default=WAIT_SECONDS_MAX,
        metavar="SECONDS",
        help="how long to wait for PostgreSQL at start (default: %(default)s)",
    )
    arguments = parser.parse_args()
    configure_logging()
    findings = all_findings(os.environ)
    if findings:
        _refuse(finding.problem for finding in findings)
    settings = Settings.model_validate({})
    try:
        migrate_when_there(
            settings.database_url,
            production=not settings.embedded,
            wait_seconds_max=arguments.startup_timeout,
        )
    except (DatabaseAway, MigrationBlocked) as reason:
        sys.exit(str(reason))
    except (TooPowerful, NotTheOwner) as refusal:
        _refuse([str(refusal)])
    calm_garbage_collector()
    Server(server_config(create_app(settings), arguments.host, arguments.port, settings)).run()
