"""One supervised process: started, waited for, restarted when it dies, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox.service import FileReady, Ready
from sandbox.supervisor.errors import ChildFailed
from sandbox.supervisor.readiness import is_ready

READY_SECONDS_MAX = 60.0
"""How long a process may neither write nor compute before it is given up."""
SHOWN_EVERY_SECONDS = 10.0
STOP_SECONDS_MAX = 6.0
POLL_SECONDS = 0.04
BACKOFF_SECONDS = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Waits before the first, second … restart in a row; the last one is repeated."""
HEALTHY_SECONDS = 30.0
"""After this long a death is the first in a row again."""
START_ATTEMPTS_MAX = 5

Show = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """What to run and how to treat it.

    `argv` must already be bound to its parent (`setpriv --pdeathsig`): the supervisor may be
    killed at any moment and cannot clean up then.
    """

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    """The whole environment of the process."""
    ready: Ready | None = None
    """None: ready as soon as it runs."""
    depends_on: Sequence[str] = ()
    """What it is stopped before, and, unless it waits for them itself, started after."""
    waits_itself: bool = False
    """Whether it may be started before what it depends on, and loads meanwhile."""
    stop_signal: signal.Signals = signal.SIGTERM
    cwd: Path = Path("/")


@dataclass(slots=True, kw_only=True)
class Plan:
    """The processes to start, and what to tell the person who asked.

    It is here and not beside `make_plan`, which imports the product: who only runs a plan starts at once.
    """

    specs: list[ChildSpec] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    """The settings that the API, the worker and the command line share."""
    notes: list[str] = field(default_factory=list)


class Child:
    """A process that is kept alive until it is told to stop."""

    def __init__(self, spec: ChildSpec, log: Callable[[], Path], show: Show) -> None:
        """`log` names the log file at each start; `show` tells the person at the console."""
        self.spec = spec
        self._log = log
        self._show = show
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self._ready = asyncio.Event()
        self._deaths = 0
        self._log_from = 0
        """Where in its log this run begins: what an earlier one said is no reason."""
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process id, or None while it is not running."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if running and self._process is not None else None

    async def start(self) -> None:
        """Start it and wait until it is ready. Raises `ChildFailed` if it will not."""
        self._keeper = asyncio.create_task(self._keep(), name=f"keep-{self.spec.name}")
        waiter = asyncio.create_task(self._ready.wait())
        try:
            await self._wait_while_it_moves({waiter, self._keeper})
        finally:
            waiter.cancel()
        if self._ready.is_set() or self._stopping:
            return
        raise ChildFailed(f"{self.spec.name} did not become ready: {self._last_words()}")

    async def _wait_while_it_moves(self, ends: set[asyncio.Task[Any]]) -> None:
        """Until one of `ends`, or until nothing has moved for a minute: a busy machine may need longer."""
        began = moved = time.monotonic()
        seen = self._movement()
        while True:
            done, _ = await asyncio.wait(
                ends, timeout=SHOWN_EVERY_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            now, before, seen = time.monotonic(), seen, self._movement()
            moved = now if seen != before else moved
            if done or now - moved >= READY_SECONDS_MAX:
                return
            self._show(f"Waiting for {self.spec.name}, since {now - began:.0f} s …")

    def _movement(self) -> tuple[int, str]:
        """What changes as long as it does something: the bytes of its log, and the processor time it took."""
        size = path.stat().st_size if (path := self._log()).exists() else 0
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
            return size, " ".join(fields[11:13])
        return size, ""

    async def stop(self) -> None:
        """Ask it to stop, and kill it if it has not after a few seconds."""
        self._stopping = True
        process = self._process
        if process is not None and process.returncode is None:
            _signal(process, self.spec.stop_signal)
            try:
                async with asyncio.timeout(STOP_SECONDS_MAX):
                    await process.wait()
            except TimeoutError:
                _signal(process, signal.SIGKILL)
                await process.wait()
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper

    def kill(self) -> None:
        """End it at once."""
        self._stopping = True
        if self._process is not None and self._process.returncode is None:
            _signal(self._process, signal.SIGKILL)

    async def _keep(self) -> None:
        while not self._stopping:
            started = time.monotonic()
            code = await self._run_once()
            if self._stopping:
                return
            self._deaths = 1 if time.monotonic() - started > HEALTHY_SECONDS else self._deaths + 1
            if not self._ready.is_set() and self._deaths >= START_ATTEMPTS_MAX:
                return
            if self._ready.is_set():
                self._show(f"{self.spec.name} ended ({_manner(code)}); starting it again.")
            await asyncio.sleep(BACKOFF_SECONDS[min(self._deaths, len(BACKOFF_SECONDS)) - 1])

    async def _run_once(self) -> int:
        if isinstance(self.spec.ready, FileReady):
            self.spec.ready.path.unlink(missing_ok=True)
        with self._log().open("ab") as log:
            if not self._deaths:
                self._log_from = log.tell()
            process = await asyncio.create_subprocess_exec(
                *self.spec.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(self.spec.environment),
                cwd=self.spec.cwd,
                start_new_session=True,
            )
        self._process = process
        watcher = asyncio.create_task(self._watch_ready())
        try:
            return await process.wait()
        finally:
            watcher.cancel()

    async def _watch_ready(self) -> None:
        while self.spec.ready is not None and not await is_ready(self.spec.ready):  # noqa: ASYNC110 - asks another process
            await asyncio.sleep(POLL_SECONDS)
        # Something else may answer on the port while our process is failing to get it.
        if self.pid is not None:
            self._ready.set()

    def _last_words(self) -> str:
        path = self._log()
        with contextlib.suppress(OSError), path.open("rb") as log:
            log.seek(max(self._log_from, path.stat().st_size - 2_000))
            lines = log.read().decode(errors="replace").strip().splitlines()
            if lines:
                return f"{lines[-1][:300]} (more in {path})"
        return f"it said nothing (its log is {path})"


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(process.pid, number)


def _manner(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
