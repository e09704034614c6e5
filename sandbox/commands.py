"""The commands that the try-out stack adds to `llamasketch`: entry points of `llamasketch.commands`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def add_run(app: typer.Typer) -> None:
    """Add `llamasketch run`."""

    @app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
    def run(context: typer.Context) -> None:
        """Run the whole stack on this machine until Ctrl-C (--port, --host, --data)."""
        from sandbox.supervisor.__main__ import main as supervise

        raise typer.Exit(supervise(context.args))


def add_demo(app: typer.Typer) -> None:
    """Add `llamasketch demo`."""

    @app.command()
    def demo(
        sketch: Annotated[
            Path | None, typer.Option(help="A PNG, JPEG or WebP; without one a llama is drawn.")
        ] = None,
        url: Annotated[
            str | None, typer.Option(help="Another stack than the one on the data folder.")
        ] = None,
        prompt: Annotated[str, typer.Option()] = "a watercolour llama at sunset",
        as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of words.")] = False,
    ) -> None:
        """The main job without a browser: images, three top-ups, a failure, the statement, the proof.

        Runs against the running stack, or one of its own in a temporary folder. Ends with 1 if
        anything does not add up.
        """
        from sandbox.containment import contain
        from sandbox.demo.command import run_demo

        contain()
        raise typer.Exit(run_demo(sketch=sketch, url=url, prompt=prompt, as_json=as_json))
