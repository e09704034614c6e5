"""`python -m sandbox.rates --port N [--btc-usd-cents N]`: run the stand-in price feeds."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence

import structlog

from sandbox.common.process import listen, log_as_json, serve
from sandbox.rates.app import build
from sandbox.rates.prices import DEFAULT_CENTS, Prices


def main(argv: Sequence[str]) -> int:
    """Run until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.rates", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--btc-usd-cents", type=int, default=DEFAULT_CENTS)
    arguments = parser.parse_args(argv)
    log_as_json()
    structlog.get_logger("sandbox.rates").info("rates_started", port=arguments.port)
    prices = Prices(cents=arguments.btc_usd_cents, now=time.time)
    asyncio.run(serve(build(prices), listen(arguments.port)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
