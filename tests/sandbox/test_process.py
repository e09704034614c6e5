"""How a stand-in is served."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys

from sandbox.common.process import listen
from tests.waiting import SECONDS_MAX


async def test_an_answer_does_not_wait_for_the_clients_delayed_acknowledgement():
    options: asyncio.Queue[int] = asyncio.Queue()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted = writer.get_extra_info("socket")
        options.put_nowait(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    async with await asyncio.start_server(accept, sock=listen(0)) as server:
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            async with asyncio.timeout(SECONDS_MAX):
                assert await options.get() != 0
        finally:
            writer.close()


STOPPED_AT_ONCE = """
import asyncio, os, signal
from starlette.applications import Starlette
from sandbox.common.process import listen, serve
from sandbox.embedded.ports import free_port


def while_it_starts():
    os.kill(os.getpid(), signal.SIGTERM)
    yield from ()


asyncio.run(serve(Starlette(), listen(free_port()), while_it_starts()))
"""


def test_a_signal_that_comes_while_it_starts_ends_it() -> None:
    subprocess.run([sys.executable, "-c", STOPPED_AT_ONCE], check=True, timeout=SECONDS_MAX)
