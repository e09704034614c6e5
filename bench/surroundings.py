"""What every measuring program needs: a durable PostgreSQL of its own, and words about the machine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import uvloop

from sandbox.embedded.ports import free_port
from sandbox.embedded.postgres import EmbeddedPostgres
from sandbox.embedded.running import RunningServer

T = TypeVar("T")
_SHOWN = (
    "server_version",
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_sync_method",
    "shared_buffers",
)


@contextlib.contextmanager
def own_postgres(settings: Mapping[str, str] | None = None) -> Iterator[RunningServer]:
    """A fresh embedded PostgreSQL with the product's own settings, deleted afterwards."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # as root, it runs as a user of its own
        command = EmbeddedPostgres(folder, free_port(), settings).command()
        with RunningServer(command, folder / "postgres.log") as server:
            yield server


def machine() -> dict[str, Any]:
    """What it ran on, and how busy that was already: figures from a busy machine say little."""
    memory = next(line.split()[1] for line in Path("/proc/meminfo").read_text().splitlines())
    model = [
        line.partition(": ")[2]
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return {
        "cpu": model[0] if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mb": int(memory) // 1024,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": [round(load, 2) for load in os.getloadavg()],
        "fsync_ms": round(fsync_ms(), 3),
    }


def fsync_ms(times: int = 50) -> float:
    """How long the disk takes to keep 8 kB, median in milliseconds."""
    from time import perf_counter

    taken = []
    with tempfile.NamedTemporaryFile() as file:
        for _ in range(times):
            file.write(b"x" * 8192)
            file.flush()
            began = perf_counter()
            os.fdatasync(file.fileno())
            taken.append((perf_counter() - began) * 1000)
    return statistics.median(taken)


def postgres_settings(url: str) -> dict[str, str]:
    """The settings that durability and speed depend on, as the server says them."""
    with psycopg.connect(url) as connection:
        rows = [connection.execute(f"SHOW {name}").fetchone() for name in _SHOWN]
    return {name: str(row[0]) for name, row in zip(_SHOWN, rows, strict=True) if row is not None}


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run on the event loop that the gateway runs on."""
    return asyncio.Runner(loop_factory=uvloop.new_event_loop).run(work)


def note(text: str) -> None:
    """Progress, and what is not the result."""
    print(text, file=sys.stderr, flush=True)


def print_found(found: Mapping[str, Any], *, as_json: bool) -> None:
    """What was measured: one JSON document, or a line for each figure or each row of a list."""
    if as_json:
        print(json.dumps(found, indent=1))
        return
    for name, value in found.items():
        for line in value if isinstance(value, list) else [value]:
            print(name, line)


def print_table(result: Mapping[str, Any], table: str, *, as_json: bool) -> None:
    """What was measured, for a person; with JSON on standard output, beside it."""
    if as_json:
        note(table)
        print(json.dumps(result, indent=2))
    else:
        print(table)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of all is not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def median_case(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One case out of several rounds: the median of each figure."""
    first = rounds[0]
    return {
        name: round(statistics.median(r[name] for r in rounds), 3)
        if isinstance(value, int | float)
        else value
        for name, value in first.items()
    }


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, from whichever of its threads, and those that they have."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(folder.name))
    found, seen = [], [pid]
    while seen:
        mine = children.get(seen.pop(), [])
        found += mine
        seen += mine
    return found
