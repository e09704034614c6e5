"""Start a server and stop it again: for tests and benches. The supervisor has its own way."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self, assert_never

from sandbox.embedded.command import EmbeddedError, ServerCommand
from sandbox.service import CommandReady, FileReady, HttpReady, Ready, TcpReady

READY_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 20.0
_POLL_SECONDS = 0.01


class RunningServer:
    """A started server; as a context manager it is stopped at the end.

    Start it from a thread that lives as long as the server shall: it dies with that thread.
    """

    def __init__(self, command: ServerCommand, log: Path) -> None:
        """Start it and wait until it is ready. Raises `EmbeddedError` with the end of its log."""
        self.command = command
        self._log = log
        self._process = self._launch()

    @property
    def url(self) -> str:
        """The address that clients need."""
        return next(iter(self.command.environment.values()))

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    def kill(self) -> None:
        """`kill -9`, as a crash would."""
        self._process.kill()
        self._process.wait(STOP_SECONDS_MAX)

    def start(self) -> None:
        """Start it again after `kill` or `stop`; after a crash it recovers first."""
        if self._process.poll() is None:
            raise EmbeddedError(f"{self.command.name} is still running.")
        self._process = self._launch()

    def stop(self) -> None:
        """Stop it in order, or by force if it does not obey in time."""
        if self._process.poll() is not None:
            return
        self._process.send_signal(self.command.stop_signal)
        try:
            self._process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.stop()

    def _launch(self) -> subprocess.Popen[bytes]:
        deadline = time.monotonic() + READY_SECONDS_MAX
        while True:
            process = self._spawn()
            if self._becomes_ready(process, deadline):
                return process
            # After a crash the old server's helpers may still hold its shared memory for a moment.
            if "pre-existing shared memory" not in self._last_words() or time.monotonic() > deadline:
                raise EmbeddedError(f"{self.command.name} did not start: {self._last_words()}")

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                list(self.command.argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
                start_new_session=True,
            )

    def _becomes_ready(self, process: subprocess.Popen[bytes], deadline: float) -> bool:
        while process.poll() is None:
            if is_ready(self.command.ready):
                return True
            if time.monotonic() > deadline:
                process.send_signal(signal.SIGKILL)
                process.wait(STOP_SECONDS_MAX)
                return False
            time.sleep(_POLL_SECONDS)
        return False

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        return " / ".join(lines[-5:]) or "it said nothing"


def is_ready(ready: Ready) -> bool:
    """Ask once. Embedded servers are ready by TCP, by a command or by a file; HTTP is for the supervisor."""
    match ready:
        case TcpReady(port=port):
            return answers(port)
        case CommandReady(argv=argv):
            return subprocess.run(list(argv), check=False, capture_output=True, timeout=10).returncode == 0
        case FileReady(path=path):
            return path.exists()
        case HttpReady():
            raise EmbeddedError("An embedded server has no HTTP to be asked by.")
        case _:
            assert_never(ready)


def answers(port: int) -> bool:
    """Whether something accepts connections on this loopback port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
