"""Stable loopback ports, kept in the data folder."""

from __future__ import annotations

import json
import secrets
import socket
import time
from collections.abc import Mapping
from pathlib import Path

PORT_RANGE = range(20_000, 30_000)
"""Below the range from which the kernel takes ports for outgoing connections."""
WAIT_SECONDS_MAX = 3.0
"""How long a known port may stay busy: processes of a killed instance need a moment to die."""


class PortFile:
    """A `sandbox.service.PortBook` that remembers its ports in a JSON file."""

    def __init__(self, path: Path, fixed: Mapping[str, int] | None = None) -> None:
        """`fixed` are ports that somebody else decides on, such as the public one."""
        self._path = path
        self._fixed = dict(fixed or {})
        self._known: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
        self._checked: set[str] = set()

    def __call__(self, name: str) -> int:
        """The port for `name`: the same as last time unless another program has taken it since."""
        if name in self._fixed:
            return self._fixed[name]
        known = self._known.get(name)
        if known is not None and (
            name in self._checked or wait_until_free("127.0.0.1", known, WAIT_SECONDS_MAX)
        ):
            self._checked.add(name)
            return known
        return self._assign(name)

    def _assign(self, name: str) -> int:
        taken = {*self._known.values(), *self._fixed.values()}
        for _ in range(1_000):
            port = secrets.choice(PORT_RANGE)
            if port not in taken and is_free("127.0.0.1", port):
                self._known[name] = port
                self._checked.add(name)
                self._save()
                return port
        raise OSError(f"No free port between {PORT_RANGE.start} and {PORT_RANGE.stop}.")

    def _save(self) -> None:
        unfinished = self._path.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(self._known, indent=2, sort_keys=True) + "\n")
        unfinished.replace(self._path)


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now. Connections winding down do not count."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def wait_until_free(host: str, port: int, seconds_max: float) -> bool:
    """Whether the port is or becomes free within the time given."""
    deadline = time.monotonic() + seconds_max
    while not is_free(host, port):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
