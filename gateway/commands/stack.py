"""Where a command finds what it works on: a running stack, or the settings of the environment."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec
import typer

from gateway.commands.running import find
from ledger.clock import system_clock
from ledger.identifiers import Identifiers
from ledger.log.categories import Categories

if TYPE_CHECKING:
    from gateway.settings import Settings

USAGE = 2
"""Exit code of a command that could not begin."""


def data_folder() -> Path:
    """The data folder as `llamasketch run` chooses it."""
    return Path(os.environ.get("LLAMASKETCH_DATA") or "var")


def environment() -> Mapping[str, str]:
    """The settings: those given in the environment over those of the stack running on the data folder."""
    running = find(data_folder())
    given = {name: value for name, value in os.environ.items() if value}
    return given if running is None else {**running.environment, **given}


def database_url() -> str:
    """The database to work on; ends the command with a sentence if there is none."""
    url = environment().get("DATABASE_URL")
    if not url:
        fail(
            f"No stack is running on {data_folder()} and DATABASE_URL is not set: start one with `make run`, "
            "name its folder in LLAMASKETCH_DATA, or give the database's address in DATABASE_URL."
        )
    return url


def settings() -> Settings:
    """The gateway's settings as the stack has them; ends the command with a sentence if they are not known."""
    from pydantic import ValidationError

    from gateway.settings import Settings

    database_url()
    known = {
        name.removeprefix("LLAMASKETCH_").lower() if name.startswith("LLAMASKETCH_") else name: value
        for name, value in environment().items()
    }
    try:
        return Settings.model_validate(known)
    except ValidationError as error:
        wrong = "; ".join(str(part["msg"]).removeprefix("Value error, ") for part in error.errors())
        fail(f"{wrong}. Run it where the stack runs, or with its environment.")


def refuse_unless_sound(name: str) -> None:
    """End the command with a sentence if this setting breaks its rules."""
    from gateway.configuration import SETTINGS, is_production
    from rails.configuration import check

    environ, one = environment(), [setting for setting in SETTINGS if setting.name == name]
    for finding in check(one, environ, production=is_production(environ)):
        fail(f"{finding.problem}.")


def sqlalchemy_url(url: str) -> str:
    """The same database, for SQLAlchemy on psycopg."""
    return url.replace("postgresql://", "postgresql+psycopg://", 1)


def categories() -> Categories:
    """Every kind of stream that there is."""
    from generation.domain.job import JOBS
    from ledger.domain.account import ACCOUNTS
    from rails.domain.state import PAYMENTS

    return Categories((ACCOUNTS, PAYMENTS, JOBS))


def identifiers() -> Identifiers:
    """Fresh ids for what the command line writes."""
    return Identifiers(system_clock)


def fail(sentence: str, code: int = USAGE) -> NoReturn:
    """End the command with one sentence."""
    typer.echo(sentence, err=True)
    raise typer.Exit(code)


def print_json(value: Any) -> None:
    """One JSON document, indented, on standard output."""
    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


class ProgressLine:
    """Tells a person on a terminal how far a long work is, at most every half second."""

    def __init__(self) -> None:
        self._shown_at = time.monotonic()
        self._open = False

    def __call__(self, what: str, done: int, whole: int) -> None:
        """See `Progress`."""
        now = time.monotonic()
        if now - self._shown_at < 0.5 or not sys.stderr.isatty():
            return
        self._shown_at, self._open = now, True
        typer.echo(f"\r  {done:,} of {whole:,} {what} ", err=True, nl=False)

    def close(self) -> None:
        """Leave the line."""
        if self._open:
            typer.echo("\r\x1b[K", err=True, nl=False)
