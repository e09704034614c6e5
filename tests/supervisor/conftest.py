"""A small stack as a program of its own, and looking at its processes from outside."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from sandbox.embedded.ports import free_port
from tests.folders import held_folder
from tests.living import living
from tests.waiting import SECONDS_MAX

ROOT = Path(__file__).resolve().parents[2]


class SmallStack:
    """A running `small_stack.py`."""

    def __init__(self, process: asyncio.subprocess.Process, data: Path) -> None:
        self.process = process
        self.data = data

    async def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first line it prints from now on that is `wanted`."""
        assert self.process.stdout is not None
        async with asyncio.timeout(SECONDS_MAX):
            while line := await self.process.stdout.readline():
                reported: dict[str, Any] = json.loads(line)
                if wanted(reported):
                    return reported
        raise AssertionError("the stack ended without saying so")

    async def ready(self) -> dict[str, Any]:
        return await self.until(lambda line: "ready" in line)

    def children(self) -> dict[int, str]:
        """Living processes that it started, with their command lines."""
        return {pid: argv for pid, (parent, argv) in living().items() if parent == self.process.pid}

    def child_that(self, text: str) -> int:
        """The one child whose command line contains `text`."""
        (found,) = [pid for pid, argv in self.children().items() if text in argv]
        return found

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        async with asyncio.timeout(SECONDS_MAX):
            return await self.process.wait()


def born(pid: int) -> int:
    """When a process was started, in clock ticks since the machine was."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def _heed_hang_ups() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


Launch = Callable[..., Any]


@pytest.fixture
def data() -> Iterator[Path]:
    """A data folder that also the user whom root drops to can enter."""
    with held_folder() as folder:
        yield folder


@pytest.fixture
async def launch(data: Path) -> AsyncIterator[Launch]:
    """`await launch(kind="plain", port=None)` starts a stack on the test's data folder."""
    async with AsyncExitStack() as stack:

        async def start(kind: str = "plain", port: int | None = None) -> SmallStack:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.supervisor.small_stack",
                str(data),
                str(port or free_port()),
                kind,
                cwd=ROOT,
                stdout=asyncio.subprocess.PIPE,
                # Also when the tests run under nohup, which every child would inherit.
                preexec_fn=_heed_hang_ups,
            )

            async def clean_up() -> None:
                if process.returncode is None:
                    process.kill()
                assert process.stdout is not None
                await process.stdout.read()
                await process.wait()
                process._transport.close()  # type: ignore[attr-defined]

            stack.push_async_callback(clean_up)
            return SmallStack(process, data)

        yield start
