"""The real process tree, started as `make run` starts it, and looked at from outside."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.commands.running import RunningStack, find
from sandbox.embedded.ports import free_port
from tests.folders import HeldFolder
from tests.living import living
from tests.waiting import SECONDS_MAX, eventually

ROOT = Path(__file__).parents[2]
KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV")
QUICK_AND_GENEROUS = {
    "SANDBOX_COMFYUI_PAINT_SECONDS": "0.2",
    # Every visitor of a test comes from one address.
    "LLAMASKETCH_NETWORK_ALLOWANCE_ADDRESS": "100000",
    "LLAMASKETCH_REQUESTS_PER_MINUTE": "100000",
    "LLAMASKETCH_REQUESTS_PER_MINUTE_NETWORK": "100000",
}
"""Settings of a stack that is tried and measured: none of them changes what is done, or in which order."""
PROCESSES = {
    "postgres": "/postgres ",
    "valkey": "valkey",
    "lnd": "sandbox.lnd",
    "elementsd": "sandbox.elementsd",
    "stripe": "sandbox.stripe",
    "comfyui": "sandbox.comfyui",
    "rates": "sandbox.rates",
    "api": "gateway.serve",
    "worker": "worker",
}
"""The processes of the tree, and what each is known by on its command line."""


class Stack:
    """One supervisor and its processes, on a data folder and a port of its own."""

    def __init__(self, settings: Mapping[str, str] = QUICK_AND_GENEROUS) -> None:
        # As root the servers run as a user of their own, who must be able to come in.
        self._folder = HeldFolder()
        self.data = self._folder.path
        self.port = free_port()
        self._settings = dict(settings)
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Where it is served."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The supervisor's."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> float:
        """Start it; how many seconds until it said that it was ready."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        given = {name: value for name, value in os.environ.items() if name in KEPT}
        with (self.data / "supervisor.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                # As `make run` does: whoever kills the tests leaves no stack behind.
                *("setpriv", "--pdeathsig", "TERM", sys.executable, "-m", "sandbox.supervisor"),
                *("--port", str(self.port), "--data", str(self.data)),
                cwd=self.data,  # a .env in the current folder may name real servers
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**given, **self._settings, "PYTHONPATH": str(ROOT)},
                start_new_session=True,
            )
        process = self._process
        await eventually(
            lambda: process.returncode is not None or self.running() is not None,
            "the stack is ready",
            SECONDS_MAX,
        )
        assert process.returncode is None, self.reported()
        return loop.time() - began

    def running(self) -> RunningStack | None:
        """What it announced, if it is ready."""
        return find(self.data)

    def setting(self, name: str) -> str:
        """A setting that its processes share, such as `SANDBOX_LND_CONTROL_URL`."""
        running = self.running()
        assert running is not None, self.reported()
        return running.environment[name]

    def reported(self) -> str:
        """What the supervisor told the person at the console."""
        return (self.data / "supervisor.log").read_text(errors="replace")

    def logged(self, name: str) -> str:
        """The log of one of its processes."""
        return (self.data / "log" / f"{name}.log").read_text(errors="replace")

    def children(self) -> dict[str, int]:
        """The living processes of the tree, by name."""
        mine = [(pid, argv) for pid, (parent, argv) in living().items() if parent == self.pid]
        return {
            name: pid
            for name, text in PROCESSES.items()
            for pid, argv in mine
            if text in argv and "setpriv" not in argv
        }

    def belongings(self) -> set[int]:
        """Every living process that has this data folder or port on its command line, or descends from such."""
        every = living()
        marks = (str(self.data), f"--port {self.port} ")
        found = {pid for pid, (_, argv) in every.items() if any(mark in f"{argv} " for mark in marks)}
        found |= (
            set(self.children().values()) if self._process and self._process.returncode is None else set()
        )
        return found

    async def kill_child(self, name: str) -> int:
        """kill -9; returns once a new one runs, with its process id."""
        old = self.children()[name]
        os.kill(old, signal.SIGKILL)
        await eventually(
            lambda: self.children().get(name, old) != old, f"{name} is started again", SECONDS_MAX
        )
        return self.children()[name]

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Stop it by a signal; its exit code."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)
        async with asyncio.timeout(SECONDS_MAX):
            return await self._process.wait()

    async def dispose(self) -> None:
        """Stop it for good and delete its data."""
        if self._process is not None:
            await self.stop()
        self._folder.remove()

    async def llamasketch(self, *arguments: str) -> tuple[int, Any]:
        """Run the command line on this stack: its exit code and the JSON it printed."""
        given = {name: value for name, value in os.environ.items() if name in KEPT}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway.cli", *arguments, "--json"),
            cwd=self.data,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**given, "PYTHONPATH": str(ROOT), "LLAMASKETCH_DATA": str(self.data)},
        )
        out, errors = await process.communicate()
        assert out, errors.decode(errors="replace")
        return process.returncode or 0, json.loads(out)
