"""`python -m sandbox.lnd --port N --control-port M --data DIR`: run the stand-in node."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import time
from pathlib import Path

import grpc
import structlog

from sandbox.common.process import HOST, listen, log_as_json, serve
from sandbox.lnd import control, services
from sandbox.lnd.interceptor import Gate
from sandbox.lnd.node import Node, open_node, server_certificate


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
    log_as_json()
    asyncio.run(run(arguments.data, arguments.port, arguments.control_port, arguments.block_seconds))


async def run(folder: Path, port: int, control_port: int, block_seconds: int) -> None:
    """Run the node until a signal."""
    node = open_node(folder, time.time, secrets.token_bytes)
    listener = listen(control_port)
    server = await _grpc_server(node, port)
    await node.wake_up()
    structlog.get_logger().info("sandbox_lnd_ready", port=port, control_port=control_port)
    mining = (node.keep_mining(block_seconds),) if block_seconds else ()
    await serve(control.build(node), listener, (node.keep_time(), *mining))
    node.feed.end_all()
    await server.stop(grace=0.2)
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
