"""The parts of the chaos run: the balancer finds who is left, and what ends by itself is started again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from bench.chaos_stack import Balancer, Program
from sandbox.embedded.ports import free_port
from tests.waiting import SECONDS_MAX, eventually


@asynccontextmanager
async def echo() -> AsyncIterator[tuple[int, asyncio.Server]]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
        writer.close()

    port = free_port()
    server = await asyncio.start_server(answer, "127.0.0.1", port)
    async with server:
        yield port, server


async def test_a_connection_goes_to_whoever_takes_it() -> None:
    async with echo() as (port, _):
        balancer = Balancer([free_port(), port, free_port()], random.Random(1))
        await balancer.start()
        try:
            for _ in range(5):
                reader, writer = await asyncio.open_connection("127.0.0.1", balancer.port)
                writer.write(b"hello\n")
                assert await asyncio.wait_for(reader.readline(), SECONDS_MAX) == b"HELLO\n"
                writer.close()
        finally:
            await balancer.stop()


async def test_with_nobody_behind_it_a_connection_ends_at_once() -> None:
    balancer = Balancer([free_port()], random.Random(1))
    await balancer.start()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", balancer.port)
        writer.write(b"hello\n")
        with suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), SECONDS_MAX) == b""
        writer.close()
    finally:
        await balancer.stop()


async def test_a_program_that_ends_by_itself_is_counted_and_started_again(tmp_path: Path) -> None:
    program = Program("api", "short", ("-c", "print('here')"), {}, tmp_path / "log")
    await program.start()
    try:
        await eventually(lambda: program.by_itself >= 2, "it ended by itself twice", SECONDS_MAX)
        assert (tmp_path / "log").read_text().startswith("here\nhere\n")
    finally:
        await program.stop()


async def test_a_program_that_is_killed_stays_down_and_is_not_counted(tmp_path: Path) -> None:
    program = Program("worker", "long", ("-c", "import signal; signal.pause()"), {}, tmp_path / "log")
    await program.start()
    await program.kill()
    assert program.by_itself == 0
    await program.stop()  # down already: nothing to do
