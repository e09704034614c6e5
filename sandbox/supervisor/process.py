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

from gateway.supervisor.errors import ChildFailed
from gateway.supervisor.readiness import is_ready
from sandbox.service import FileReady, Ready

READY_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 6.0
POLL_SECONDS = 0.04
BACKOFF_SECONDS = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Waits before the first, second … restart in a row; the last one is repeated."""
HEALTHY_SECONDS = 30.0
"""After this long a death is the first in a row again."""
START_ATTEMPTS_MAX = 5

Say = Callable[[str], None]


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
    stop_signal: signal.Signals = signal.SIGTERM
    cwd: Path = Path("/")


class Child:
    """A process that is kept alive until it is told to stop."""

    def __init__(self, spec: ChildSpec, log: Callable[[], Path], say: Say) -> None:
        """`log` names the log file at each start; `say` tells the person at the console."""
        self.spec = spec
        self._log = log
        self._say = say
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self._ready = asyncio.Event()
        self._deaths = 0
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
            await asyncio.wait(
                {waiter, self._keeper}, timeout=READY_SECONDS_MAX, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            waiter.cancel()
        if self._ready.is_set() or self._stopping:
            return
        raise ChildFailed(f"{self.spec.name} did not become ready: {self._last_words()}")

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
                self._say(f"{self.spec.name} ended ({_manner(code)}); starting it again.")
            await asyncio.sleep(BACKOFF_SECONDS[min(self._deaths, len(BACKOFF_SECONDS)) - 1])

    async def _run_once(self) -> int:
        if isinstance(self.spec.ready, FileReady):
            self.spec.ready.path.unlink(missing_ok=True)
        with self._log().open("ab") as log:
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
            log.seek(max(0, path.stat().st_size - 2_000))
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
