"""A supervisor over tiny children, run as a program by the tests: `small_stack.py DATA PORT [real]`.

It prints one JSON line per thing that happens.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from sandbox.embedded.command import bound_to_parent
from sandbox.embedded.postgres import EmbeddedPostgres
from sandbox.service import FileReady, TcpReady
from sandbox.supervisor import process
from sandbox.supervisor.errors import SupervisorError
from sandbox.supervisor.folder import DataFolder
from sandbox.supervisor.life import supervise
from sandbox.supervisor.ports import PortFile
from sandbox.supervisor.process import ChildSpec, Plan

LISTEN = "import socket, time; s = socket.create_server(('127.0.0.1', {port})); time.sleep(600)"
MARK = "import pathlib, time; pathlib.Path({path!r}).touch(); time.sleep(600)"
STUBBORN = "import signal, pathlib, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + MARK


def child(name: str, code: str, ready: TcpReady | FileReady, after: tuple[str, ...] = ()) -> ChildSpec:
    """A child that dies with its parent."""
    argv = bound_to_parent([sys.executable, "-S", "-c", code], signal.SIGKILL, None)
    return ChildSpec(name=name, argv=argv, environment=dict(os.environ), ready=ready, depends_on=after)


def small_plan(folder: DataFolder, kind: str) -> Plan:
    """Three children in a row; `kind` puts a special one in the middle."""
    ports = PortFile(folder.path / "ports.json")
    mark = folder.path / "marked"
    specs = [
        child("last", LISTEN.format(port=ports("last")), TcpReady(ports("last")), ("middle",)),
        child("first", LISTEN.format(port=ports("first")), TcpReady(ports("first"))),
    ]
    match kind:
        case "broken":
            specs.append(child("middle", "raise SystemExit('no luck today')", FileReady(mark), ("first",)))
        case "stubborn":
            process.STOP_SECONDS_MAX = 600.0  # longer than any test waits
            specs.append(child("middle", STUBBORN.format(path=str(mark)), FileReady(mark), ("first",)))
        case "postgres":
            command = EmbeddedPostgres(folder.path, ports("postgres")).command()
            print(json.dumps({"database": command.environment["DATABASE_URL"]}), flush=True)
            specs.append(
                ChildSpec(
                    name="middle", argv=command.argv, ready=command.ready, stop_signal=command.stop_signal
                )
            )
        case _:
            specs.append(child("middle", MARK.format(path=str(mark)), FileReady(mark), ("first",)))
    return Plan(specs=specs)


def main() -> None:
    data, port, kind = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]

    def say(sentence: str) -> None:
        print(json.dumps({"said": sentence}), flush=True)

    def started(plan: Plan, seconds: float) -> None:
        print(json.dumps({"ready": sorted(spec.name for spec in plan.specs), "seconds": seconds}), flush=True)

    try:
        folder = DataFolder(data)
        folder.acquire()
        asyncio.run(supervise(folder, ("127.0.0.1", port), lambda: small_plan(folder, kind), say, started))
    except SupervisorError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
