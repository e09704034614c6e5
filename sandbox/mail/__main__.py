"""`python -m sandbox.mail --port N --smtp-port M --data DIR`: run the stand-in mail server until SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path

from sandbox.common.process import log_as_json
from sandbox.mail.app import run


def main() -> None:
    """Parse arguments and serve."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.mail", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="of the mailbox page")
    parser.add_argument("--smtp-port", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    log_as_json()
    product_url = os.environ.get("LLAMASKETCH_PUBLIC_URL", "")
    asyncio.run(run(options.data, port=options.port, smtp_port=options.smtp_port, product_url=product_url))


if __name__ == "__main__":
    main()
