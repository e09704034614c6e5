"""`python -m sandbox.elementsd --port N --data DIR`: run the sandbox node until SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import secrets
import signal
import sys
import time
from pathlib import Path

import structlog
import uvicorn

from sandbox.elementsd.miner import Miner
from sandbox.elementsd.node import Node
from sandbox.elementsd.rpc import Rpc
from sandbox.elementsd.server import Server
from sandbox.elementsd.store import Store
from sandbox.elementsd.treasury import ensure_treasury
from sandbox.elementsd.wallet import Wallet


def main() -> None:
    """Parse arguments and serve."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.elementsd", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rpc-user", default="sandbox")
    parser.add_argument("--rpc-password", default="sandbox")
    parser.add_argument("--block-seconds", type=int, default=60, help="seconds between idle blocks; 0 = none")
    parser.add_argument(
        "--pending-seconds", type=int, default=2, help="seconds from a payment to its block; 0 = none"
    )
    options = parser.parse_args()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    # uvicorn shuts down on these and then raises them again for the handler it found: this one.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    asyncio.run(serve(options))


async def serve(options: argparse.Namespace) -> None:
    """Until the process is told to stop."""
    options.data.mkdir(parents=True, exist_ok=True)
    ensure_treasury(options.data, secrets.token_bytes)
    store = Store(options.data / "chain.sqlite")
    node = Node(store, lambda: int(time.time()), secrets.token_bytes)
    wallet = Wallet(node, secrets.token_bytes)
    rpc = Rpc(node, lambda: int(time.time()))
    server = Server(node, wallet, rpc, user=options.rpc_user, password=options.rpc_password)
    miner = Miner(node, server, block_seconds=options.block_seconds, pending_seconds=options.pending_seconds)
    web = uvicorn.Server(
        uvicorn.Config(
            server.app(),
            host="127.0.0.1",
            port=options.port,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=2,
        )
    )
    mining = asyncio.create_task(miner.run())
    mining.add_done_callback(lambda _: setattr(web, "should_exit", True))  # a node without blocks is no use
    try:
        await web.serve()
    finally:
        mining.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await mining
        server.close()
        store.close()


if __name__ == "__main__":
    main()
