"""`python -m gateway.supervisor`: run the whole stack until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from gateway.supervisor.errors import SupervisorError
from gateway.supervisor.folder import DataFolder
from gateway.supervisor.life import supervise
from gateway.supervisor.plan import Plan, make_plan, require_linux, require_setup
from gateway.supervisor.running import RunningStack, announce, withdraw

TRY = """
  Try:  draw a llama and press Paint: the first images are free
        top up by card, Lightning or USDT; the sandbox wallet at {url}/sandbox/wallet pays for you
        llamasketch demo --sketch FILE.png --json       does all of it without a browser
  API:  {url}/docs      Logs: {logs}      Stop: Ctrl-C
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until told to stop. Returns the exit code: 0 after an orderly stop, 2 if it could not start."""
    options = _parse(arguments)
    try:
        require_linux()
        require_setup()
        folder = DataFolder(options.data)
        folder.acquire()
        try:
            _run(folder, options.host, options.port)
        finally:
            folder.release()
    except SupervisorError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _run(folder: DataFolder, host: str, port: int) -> None:
    def plan() -> Plan:
        return make_plan(folder, _settings(os.environ), host, port)

    def started(plan: Plan, seconds: float) -> None:
        url = plan.environment["LLAMASKETCH_PUBLIC_URL"]
        ours = {name: value for name, value in plan.environment.items() if os.environ.get(name) != value}
        announce(folder.path, RunningStack(url, ours))
        _say_ready(url, folder, seconds)

    withdraw(folder.path)
    try:
        asyncio.run(supervise(folder, (host, port), plan, _say, started))
    finally:
        withdraw(folder.path)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    environ = os.environ
    parser = argparse.ArgumentParser(
        prog="llamasketch run", description="Run the whole stack on this machine."
    )
    parser.add_argument("--port", type=int, default=int(environ.get("LLAMASKETCH_PORT") or 8000))
    parser.add_argument("--host", default=environ.get("LLAMASKETCH_HOST") or "127.0.0.1")
    parser.add_argument("--data", type=Path, default=Path(environ.get("LLAMASKETCH_DATA") or "var"))
    return parser.parse_args(arguments)


def _settings(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment, with settings from a `.env` file in the current folder below it."""
    settings: dict[str, str] = {}
    path = Path(".env")
    for line in path.read_text().splitlines() if path.exists() else []:
        name, separator, value = line.partition("=")
        if separator and not name.lstrip().startswith("#"):
            settings[name.strip()] = value.strip().strip("\"'")
    return settings | dict(environ)


def _say_ready(url: str, folder: DataFolder, seconds: float) -> None:
    what = TRY.format(url=url, logs=folder.path / "log")
    _say(f"Ready in {seconds:.1f} s.\n\n  LlamaSketch is at  {url}\n{what}")


def _say(sentence: str) -> None:
    print(sentence, flush=True)


if __name__ == "__main__":
    sys.exit(main())
