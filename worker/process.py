"""The ComfyUI process next to the worker: how big it is, and how to restart it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol


class ComfyProcess(Protocol):
    """What the worker may do to the server's process."""

    async def rss_bytes(self) -> int | None:
        """Resident memory; None when it cannot be told."""

    async def restart(self) -> bool:
        """Restart it; False when that is not ours to do or did not work."""


class UnmanagedProcess:
    """A server that someone else looks after."""

    async def rss_bytes(self) -> int | None:
        """Unknown."""
        return None

    async def restart(self) -> bool:
        """Never."""
        return False


class LocalProcess:
    """A server on this machine, found by its listening port, restarted by a command."""

    def __init__(self, port: int, restart_command: Sequence[str], wait_seconds_max: float = 60.0) -> None:
        self._port = port
        self._command = list(restart_command)
        self._retry_pause = wait_seconds_max

    async def rss_bytes(self) -> int | None:
        """Resident memory of the process that listens on the port (Linux only)."""
        return await asyncio.to_thread(self._measure)

    def _measure(self) -> int | None:
        sockets = _listening_sockets(self._port)
        for folder in Path("/proc").glob("[0-9]*"):
            if sockets and _holds_one(folder / "fd", sockets):
                return _resident_bytes(folder)
        return None

    async def restart(self) -> bool:
        """Run the command."""
        if not self._command:
            return False
        process = await asyncio.create_subprocess_exec(
            *self._command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL
        )
        try:
            async with asyncio.timeout(self._retry_pause):
                return await process.wait() == 0
        except TimeoutError:
            process.kill()
            await process.wait()
            return False


_LISTEN = "0A"


def _listening_sockets(port: int) -> frozenset[str]:
    """How `/proc/<pid>/fd` names the sockets that listen on this port."""
    found = []
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        try:
            lines = table.read_text("ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            columns = line.split()
            if columns[3] == _LISTEN and int(columns[1].rpartition(":")[2], 16) == port:
                found.append(f"socket:[{columns[9]}]")
    return frozenset(found)


def _holds_one(folder: Path, sockets: frozenset[str]) -> bool:
    try:
        return any(str(link.readlink()) in sockets for link in folder.iterdir())
    except OSError:
        # Another user's process, or one that has just ended.
        return False


def _resident_bytes(folder: Path) -> int | None:
    try:
        lines = (folder / "status").read_text("utf-8").splitlines()
    except OSError:
        return None
    sizes = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")]
    return sizes[0] if sizes else None
