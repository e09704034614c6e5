"""`python -m sandbox.stripe --port N --data DIR [--webhook-url URL]`: run the stand-in for Stripe."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from sandbox.common.process import HOST, log_as_json
from sandbox.stripe.app import Options, run


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
    log_as_json()
    if arguments.webhook_secret_file is not None:
        secret = arguments.webhook_secret_file.read_text().strip()
    else:
        secret = os.environ.get("STRIPE_WEBHOOK_SECRET", "")
    if arguments.webhook_url and not secret:
        print("a webhook URL needs --webhook-secret-file or STRIPE_WEBHOOK_SECRET", file=sys.stderr)
        return 2
    options = Options(
        data=arguments.data,
        public_url=(arguments.public_url or f"http://{HOST}:{arguments.port}").rstrip("/"),
        webhook_url=arguments.webhook_url,
        webhook_secret=secret,
        catalogue=os.environ.get("SANDBOX_CATALOGUE") or "[]",
        first_retry_ms=arguments.first_retry_ms,
    )
    asyncio.run(run(options, arguments.port))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
