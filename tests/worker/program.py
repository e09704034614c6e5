"""Starts `python -m worker` as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def program(log: Path, environment: Mapping[str, str], *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that lives as long as the context at most, and logs into this file."""
    command = ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "worker", *options]
    with log.open("wb") as output:
        process = subprocess.Popen(command, env={**os.environ, **environment}, stderr=output)
        try:
            yield process
        finally:
            process.kill()
            process.wait()
