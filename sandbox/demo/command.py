"""`llamasketch demo`: the main job without a browser, and a proof that every credit is accounted for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import httpx
import psycopg
import typer

from gateway.commands import stack
from gateway.commands.running import RunningStack, find
from sandbox.demo.client import WAIT_SECONDS_MAX, Api, DemoFailed, read_or_draw
from sandbox.demo.story import Story
from sandbox.embedded.command import bound_to_parent
from sandbox.embedded.ports import free_port

SUPERVISOR = (sys.executable, "-m", "sandbox.supervisor")
ROOT = Path(__file__).resolve().parents[2]


def run_demo(*, sketch: Path | None, url: str | None, prompt: str, as_json: bool) -> int:
    """Play the story and tell it. 0 if everything adds up, 1 if not, 2 if it could not begin.

    A stack of its own outlives this function: the caller contains it (`sandbox.containment`).
    """
    began = time.monotonic()
    try:
        picture = read_or_draw(sketch)
    except DemoFailed as error:
        stack.fail(f"The sketch: {error}.")
    running, own = _stack(url)
    api = Api(running.url)
    story = Story(api, running.environment, picture, prompt, show=_silent if as_json else typer.echo)
    try:
        story.play()
    except (DemoFailed, httpx.HTTPError, psycopg.Error) as error:
        story.problems.append(str(error))
    finally:
        api.close()
    if as_json:
        total_ms = round((time.monotonic() - began) * 1000)
        stack.print_json({**story.returned(), "url": running.url, "own_stack": own, "total_ms": total_ms})
    else:
        _conclude(story)
    return 1 if story.problems else 0


def _silent(_: str) -> None:
    """Say nothing: the JSON document says it all."""


def _conclude(story: Story) -> None:
    for problem in story.problems:
        typer.echo(f"WRONG: {problem}")
    if not story.problems:
        typer.echo("Every credit is accounted for.")


def _stack(url: str | None) -> tuple[RunningStack, bool]:
    """The stack that is meant; one of its own, and True, if none is running."""
    running = find(stack.data_folder())
    if url is not None:
        known: Mapping[str, str] = running.environment if running and running.url == url.rstrip("/") else {}
        environment = {**known, **os.environ}
        if not environment.get("DATABASE_URL"):
            stack.fail(
                "The integrity check reads the database of that stack: give its address in DATABASE_URL."
            )
        return RunningStack(url.rstrip("/"), environment), False
    return (running, False) if running is not None else (_own_stack(), True)


def _own_stack() -> RunningStack:
    """Started here; it ends with this process, and its folder with what contains it."""
    typer.echo("No stack is running: starting one in a temporary folder …", err=True)
    data = Path(tempfile.mkdtemp())
    data.chmod(0o755)  # as root, the embedded servers run as a user of their own
    arguments = ("--port", str(free_port()), "--data", str(data))
    with (data / "supervisor.log").open("wb") as log:
        process = subprocess.Popen(
            bound_to_parent([*SUPERVISOR, *arguments], signal.SIGTERM, None),
            cwd=data,  # a .env in the current folder may name real servers
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_plain_environment(),
            start_new_session=True,
        )
    return _when_ready(process, data)


def _plain_environment() -> dict[str, str]:
    """What a newcomer's shell has: a demo of its own touches no real database, rail or store."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH")
    given = {name: value for name, value in os.environ.items() if name in kept or name.startswith("SANDBOX_")}
    return {**given, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), given.get("PYTHONPATH"))))}


def _when_ready(process: subprocess.Popen[bytes], data: Path) -> RunningStack:
    until = time.monotonic() + WAIT_SECONDS_MAX
    while True:
        started = find(data)
        if started is not None:
            return started
        if process.poll() is not None or time.monotonic() > until:
            lines = (data / "supervisor.log").read_text(errors="replace").strip().splitlines()
            stack.fail(f"The stack did not start: {lines[-1] if lines else 'it reported nothing'}")
        time.sleep(0.05)
