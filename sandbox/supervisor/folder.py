"""The data folder: one instance at a time, one log file per process."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

from sandbox.supervisor.errors import AlreadyRunning

LOG_BYTES_MAX = 8_000_000
"""A log longer than this is set aside (one generation) when its process starts."""


class DataFolder:
    """The folder below which everything lives. Only one supervisor holds it at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self._lock: IO[str] | None = None

    def acquire(self) -> None:
        """Make the folder and take it; the kernel lets go of it however we end. Raises `AlreadyRunning`."""
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "log").mkdir(exist_ok=True)
        lock = (self.path / "lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            lock.close()
            raise AlreadyRunning(
                f"LlamaSketch is already running on {self.path} (process {holder}): "
                "stop it first, or choose another folder with LLAMASKETCH_DATA."
            ) from None
        lock.seek(0)
        lock.truncate()
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        self._lock = lock

    def release(self) -> None:
        """Let the next instance have it."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def log_file(self, name: str) -> Path:
        """Where the process `name` writes its log; a long one from before is set aside."""
        path = self.path / "log" / f"{name}.log"
        if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
            path.replace(path.with_suffix(".log.1"))
        return path

    def service_folder(self, name: str) -> Path:
        """The folder of one sandbox's own data."""
        path = self.path / "sandbox" / name
        path.mkdir(parents=True, exist_ok=True)
        return path
