"""`python -m sandbox.elementsd --port N --data DIR`: run the stand-in node until SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import time
from pathlib import Path

from sandbox.common.process import listen, log_as_json, serve
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
    log_as_json()
    asyncio.run(run(options))


async def run(options: argparse.Namespace) -> None:
    """Until a signal, or until the miner fails: a node without blocks is no use."""
    ensure_treasury(options.data, secrets.token_bytes)
    store = Store(options.data / "chain.sqlite")
    node = Node(store, lambda: int(time.time()), secrets.token_bytes)
    wallet = Wallet(node, secrets.token_bytes)
    rpc = Rpc(node, lambda: int(time.time()))
    server = Server(node, wallet, rpc, user=options.rpc_user, password=options.rpc_password)
    miner = Miner(node, server, block_seconds=options.block_seconds, pending_seconds=options.pending_seconds)
    try:
        await serve(server.app(), listen(options.port), (miner.run(),))
    finally:
        server.close()
        store.close()


if __name__ == "__main__":
    main()
