"""`python -m sandbox.stripe --port N --data DIR [--webhook-url URL]`."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog
import uvicorn

from sandbox.stripe.app import Options, build


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.stripe", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--public-url", help="where a browser reaches this process")
    parser.add_argument("--webhook-url", default=os.environ.get("SANDBOX_STRIPE_WEBHOOK_URL"))
    parser.add_argument("--webhook-secret-file", type=Path, help="a file whose first line is the secret")
    parser.add_argument("--first-retry-ms", type=int, default=500)
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Run until SIGTERM or SIGINT."""
    arguments = parse(argv)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    if arguments.webhook_secret_file is not None:
        secret = arguments.webhook_secret_file.read_text().strip()
    else:
        secret = os.environ.get("STRIPE_WEBHOOK_SECRET", "")
    if arguments.webhook_url and not secret:
        print("a webhook URL needs --webhook-secret-file or STRIPE_WEBHOOK_SECRET", file=sys.stderr)
        return 2
    app = build(
        Options(
            data=arguments.data,
            public_url=(arguments.public_url or f"http://127.0.0.1:{arguments.port}").rstrip("/"),
            webhook_url=arguments.webhook_url,
            webhook_secret=secret,
            first_retry_ms=arguments.first_retry_ms,
        )
    )
    # uvicorn finishes in order and then raises the signal again; that shall not count as a crash.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: None)
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=arguments.port,
        log_level="warning",
        timeout_graceful_shutdown=2,
        server_header=False,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
