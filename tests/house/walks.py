"""Follows one piece of work through the source files: how often a reader of it has to change the room.

A *stay* is a stretch of calls in one file, a *return* a stay in a file that was left before. Only calls
are counted, in the order in which they happen, each thread for itself: how two threads take turns is chance, and so
is what tasks do that ran before the work began. Coming back from a call is no stay.
A function of up to three lines is known by its name: nobody opens its file to read on.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SHORT_LINES = 3 + 1
"""With the line of `def`."""
PASSIVE = ("__init__.py", "errors.py", "tables.py", "metrics.py", "files.py")
"""Files that are looked up and not read through: faults, columns, counters, what the disk is asked."""


@dataclass
class Walk:
    """Where the work went."""

    package: str
    stays: list[str] = field(default_factory=list)
    seen: set[CodeType] = field(default_factory=set)
    last: dict[int, str] = field(default_factory=dict)
    """Where each thread is."""
    others: set[asyncio.Task[Any]] = field(default_factory=set)
    """Tasks that ran before the work began."""

    @property
    def files(self) -> int:
        return len(set(self.stays))

    @property
    def returns(self) -> int:
        return len(self.stays) - self.files

    def __str__(self) -> str:
        return f"{len(self.stays)} stays in {self.files} files with {self.returns} returns: " + " → ".join(
            stay.removeprefix(self.package + "/").removesuffix(".py") for stay in self.stays
        )

    def begin(self) -> None:
        """The work starts here: forget what was needed to prepare it."""
        self.stays.clear()
        self.seen.clear()
        self.last.clear()
        self.others = asyncio.all_tasks() - {_task()}

    def call(self, frame: FrameType, event: str, _: Any) -> None:
        """A function is entered; what is entered a second time was read before."""
        code = frame.f_code
        if event != "call" or code in self.seen or code.co_name.startswith(("<", "__")):
            return
        if _task() in self.others:
            return
        self.seen.add(code)
        if len({line for _, _, line in code.co_lines() if line is not None}) <= SHORT_LINES:
            return
        name = code.co_filename.removeprefix(f"{ROOT}/")
        if not name.startswith(f"{self.package}/") or name.endswith(PASSIVE):
            return
        thread = threading.get_ident()
        if self.last.get(thread) != name:
            self.last[thread] = name
            if not self.stays or self.stays[-1] != name:
                self.stays.append(name)


def _task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # a thread without a loop
        return None


@contextmanager
def walking(package: str) -> Iterator[Walk]:
    """Note every call into `package`, in this thread and in those that begin from here on."""
    walk = Walk(package)
    before = sys.getprofile()
    threading.setprofile(walk.call)
    sys.setprofile(walk.call)
    try:
        yield walk
    finally:
        sys.setprofile(before)
        threading.setprofile(None)  # type: ignore[arg-type]
