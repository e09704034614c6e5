"""`python -m sandbox.lnd --port N --control-port M --data DIR`: run the stand-in node."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import secrets
import signal
import sys
import time
from pathlib import Path

import grpc
import structlog
from aiohttp import web

from sandbox.lnd import control, services
from sandbox.lnd.interceptor import Gate
from sandbox.lnd.node import Node, open_node, server_certificate

HOST = "127.0.0.1"


def main() -> None:
    """Parse the command line and serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.lnd", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="gRPC (TLS) port")
    parser.add_argument("--control-port", type=int, required=True, help="HTTP port of the control API")
    parser.add_argument(
        "--data", type=Path, required=True, help="folder for keys, credentials and the database"
    )
    parser.add_argument("--block-seconds", type=int, default=600, help="a block every so often; 0 for none")
    arguments = parser.parse_args()
    structlog.configure(
        processors=[structlog.processors.TimeStamper(fmt="iso"), structlog.processors.JSONRenderer()],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    asyncio.run(serve(arguments.data, arguments.port, arguments.control_port, arguments.block_seconds))


async def serve(folder: Path, port: int, control_port: int, block_seconds: int) -> None:
    """Run the node until it is told to stop."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    node = open_node(folder, time.time, secrets.token_bytes)
    runner = web.AppRunner(control.build(node), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, control_port).start()
    server = await _grpc_server(node, port)
    tasks = [asyncio.create_task(node.keep_time())]
    if block_seconds:
        tasks.append(asyncio.create_task(node.keep_mining(block_seconds)))
    structlog.get_logger().info("sandbox_lnd_ready", port=port, control_port=control_port)
    await stop.wait()
    node.feed.end_all()
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    await server.stop(grace=0.2)
    await runner.cleanup()
    node.store.close()


async def _grpc_server(node: Node, port: int) -> grpc.aio.Server:
    certificate, key = server_certificate(node)
    # LND allows pings every 5 s, and none without a stream; without this gRPC's default is 5 min.
    options = [
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 0),
        ("grpc.so_reuseport", 0),
    ]
    server = grpc.aio.server(interceptors=[Gate(node)], options=options)
    services.register(node, server)
    credentials = grpc.ssl_server_credentials([(key, certificate)])
    server.add_secure_port(f"{HOST}:{port}", credentials)
    await server.start()
    return server


if __name__ == "__main__":
    main()
