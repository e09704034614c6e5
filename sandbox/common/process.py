"""The process of a stand-in: its log on stderr, and its HTTP server on loopback until a signal."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Coroutine
from typing import Any

import structlog
import uvicorn
from starlette.applications import Starlette

HOST = "127.0.0.1"
KEEP_ALIVE_SECONDS = 75
"""Longer than clients keep an idle connection: otherwise now and then one sends on what is just being closed."""


def log_as_json() -> None:
    """One JSON object per line on stderr."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def listen(port: int) -> socket.socket:
    """A loopback port that takes connections from now on; they are answered once `serve` runs.

    The protocol is named: asyncio sets TCP_NODELAY only on sockets that say they are TCP, and without it
    each answer waits 40 ms for the client's delayed acknowledgement.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(1024)
    except OSError:
        listener.close()
        raise
    return listener


async def serve(
    app: Starlette, listener: socket.socket, background: tuple[Coroutine[Any, Any, None], ...] = ()
) -> None:
    """Serve until SIGTERM or SIGINT, or until one of the background tasks ends: its error is raised."""
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=2,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            server_header=False,
        )
    )
    # uvicorn shuts down on these and then raises them again for the handler it found, which is this one; and one
    # that comes before uvicorn listens for them counts too.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: setattr(server, "should_exit", True))
    tasks = [asyncio.create_task(work) for work in background]
    for task in tasks:
        task.add_done_callback(lambda _: setattr(server, "should_exit", True))
    try:
        await server.serve([listener])
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for error in ended:
        if isinstance(error, Exception):
            raise error
