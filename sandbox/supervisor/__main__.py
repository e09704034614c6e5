"""`python -m sandbox.supervisor`: run the whole stack until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from dotenv import dotenv_values

from gateway.commands.running import RunningStack, announce, withdraw
from sandbox.supervisor.errors import SupervisorError
from sandbox.supervisor.folder import DataFolder
from sandbox.supervisor.life import supervise
from sandbox.supervisor.plan import make_plan, require_linux, require_setup, require_trying_out
from sandbox.supervisor.process import Plan

TRY = """
  Try:  draw a llama and press Paint: the first images are free
        top up by card, Lightning or USDT; the sandbox wallet at {url}/sandbox/wallet pays for you
        read what it mails at {url}/sandbox/mail
        llamasketch demo --sketch FILE.png --json       does all of it without a browser
  API:  {url}/docs      Logs: {logs}      Stop: Ctrl-C
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until told to stop. Returns the exit code: 0 after an orderly stop, 2 if it could not start."""
    settings = _settings(os.environ)
    options = _parse(arguments, settings)
    try:
        require_linux()
        require_setup()
        require_trying_out(settings)
        folder = DataFolder(options.data)
        folder.acquire()
        try:
            _run(folder, settings, options.host, options.port)
        finally:
            folder.release()
    except SupervisorError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _run(folder: DataFolder, settings: Mapping[str, str], host: str, port: int) -> None:
    def plan() -> Plan:
        return make_plan(folder, settings, host, port)

    def started(plan: Plan, seconds: float) -> None:
        url = plan.environment["LLAMASKETCH_PUBLIC_URL"]
        ours = {name: value for name, value in plan.environment.items() if os.environ.get(name) != value}
        announce(folder.path, RunningStack(url, ours))
        _print_ready(url, folder, seconds)

    withdraw(folder.path)
    try:
        asyncio.run(supervise(folder, (host, port), plan, _print, started))
    finally:
        withdraw(folder.path)


def _parse(arguments: Sequence[str] | None, settings: Mapping[str, str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="llamasketch run", description="Run the whole stack on this machine."
    )
    parser.add_argument("--port", type=int, default=int(settings.get("LLAMASKETCH_PORT") or 8000))
    parser.add_argument("--host", default=settings.get("LLAMASKETCH_HOST") or "127.0.0.1")
    parser.add_argument("--data", type=Path, default=Path(settings.get("LLAMASKETCH_DATA") or "var"))
    return parser.parse_args(arguments)


def _settings(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment, with settings from a `.env` file in the current folder below it."""
    # Nothing is filled in: a secret may hold `${`.
    given = dotenv_values(Path(".env"), interpolate=False)
    return {name: value for name, value in given.items() if value is not None} | dict(environ)


def _print_ready(url: str, folder: DataFolder, seconds: float) -> None:
    what = TRY.format(url=url, logs=folder.path / "log")
    _print(f"Ready in {seconds:.1f} s.\n\n  LlamaSketch is at  {url}\n{what}")


def _print(sentence: str) -> None:
    print(sentence, flush=True)


if __name__ == "__main__":
    sys.exit(main())
