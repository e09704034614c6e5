"""How a command in another shell finds the stack that is running.

While the stack is ready, `running.json` in the data folder (closed to others: it holds the
addresses and generated secrets) says where everything is.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FILE = "running.json"


@dataclass(frozen=True, slots=True)
class RunningStack:
    """A stack that is ready."""

    url: str
    environment: Mapping[str, str]
    """What its processes know beyond the environment they were started in."""


def announce(data: Path, stack: RunningStack) -> None:
    """Say that it is ready."""
    unfinished = data / f"{FILE}.unfinished"
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        reported = {"pid": os.getpid(), "url": stack.url, "environment": dict(stack.environment)}
        json.dump(reported, file, indent=2)
    unfinished.replace(data / FILE)


def withdraw(data: Path) -> None:
    """Say that it is not, any more or yet."""
    (data / FILE).unlink(missing_ok=True)


def find(data: Path) -> RunningStack | None:
    """The stack that runs on this data folder and is ready, or None."""
    try:
        reported = json.loads((data / FILE).read_text())
        with (data / "lock").open() as lock:
            # A killed supervisor leaves its announcement, but not its lock.
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        # The next one takes the lock a moment before it clears away what a killed one said.
        speaks = Path(f"/proc/{reported['pid']}").exists()
        return RunningStack(reported["url"], reported["environment"]) if speaks else None
    except FileNotFoundError:
        return None
    return None
