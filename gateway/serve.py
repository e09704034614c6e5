"""`python -m gateway.serve`: wait for the database, migrate, then serve the API and the pages."""

from __future__ import annotations

import argparse
import sys
from types import FrameType

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError

from gateway.app import create_app
from gateway.logging import configure_logging
from gateway.patience import PATIENCE_SECONDS, DatabaseAway, migrate_when_there
from gateway.settings import Settings
from ledger.collector import calm_garbage_collector


class Server(uvicorn.Server):
    """uvicorn, which ends long polls and event streams at once when it is told to stop."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Tell what waits inside requests to come to an end, then stop as usual."""
        application = self.config.app
        services = getattr(getattr(application, "state", None), "services", None)
        if services is not None:
            services.signals.close()
        super().handle_exit(sig, frame)


def server_config(app: FastAPI, host: str, port: int) -> uvicorn.Config:
    """How it is served: no access log, no boasting, and no forwarding headers but by our own rules."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=5,
        backlog=4096,
    )


def main() -> None:
    """Read the settings from the environment and serve until told to stop."""
    parser = argparse.ArgumentParser(description="Serve the LlamaSketch API and pages.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument(
        "--patience",
        type=float,
        default=PATIENCE_SECONDS,
        metavar="SECONDS",
        help="how long to wait for PostgreSQL at start (default: %(default)s)",
    )
    arguments = parser.parse_args()
    configure_logging()
    try:
        settings = Settings.model_validate({})
    except ValidationError as error:
        sys.exit("\n".join(f"Setting {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()))
    try:
        migrate_when_there(settings.database_url, patience_seconds=arguments.patience)
    except DatabaseAway as away:
        sys.exit(str(away))
    calm_garbage_collector()
    Server(server_config(create_app(settings), arguments.host, arguments.port)).run()


if __name__ == "__main__":
    main()
