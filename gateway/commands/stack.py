"""Where a command finds what it works on: a running stack, or the settings of the environment."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping
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

DATABASE = "DATABASE_URL"
USAGE = 2
"""Exit code of a command that could not begin."""


def data_folder() -> Path:
    """The data folder as `llamasketch run` chooses it."""
    return Path(os.environ.get("LLAMASKETCH_DATA") or "var")


def environment() -> Mapping[str, str]:
    """The settings: those given in the environment over those of the stack running on the data folder.

    With a database of its own the environment speaks alone: the try-out stack that runs beside it is another one, and
    its kind, its secrets and its store are not that database's.
    """
    running = find(data_folder())
    given = {name: value for name, value in os.environ.items() if value}
    if running is None or given.get(DATABASE) not in (None, running.environment.get(DATABASE)):
        return given
    return {**running.environment, **given}


def database_url() -> str:
    """The database to work on; ends the command with a sentence if there is none."""
    url = environment().get(DATABASE)
    if not url:
        fail(
            f"No stack is running on {data_folder()} and DATABASE_URL is not set: start one with `make run`, "
            "name its folder in LLAMASKETCH_DATA, or give the database's address in DATABASE_URL."
        )
    return url


def settings() -> Settings:
    """The gateway's settings as the stack has them; ends the command with a line for each that is wrong or missing."""
    from gateway.configuration import SETTINGS
    from gateway.settings import Settings

    database_url()
    refuse_unless_sound(*(setting.name for setting in SETTINGS))
    known = {
        name.removeprefix("LLAMASKETCH_").lower() if name.startswith("LLAMASKETCH_") else name: value
        for name, value in environment().items()
    }
    return Settings.model_validate(known)


def refuse_unless_sound(*names: str) -> None:
    """End the command with a line for each of these settings that breaks its rules, as `check-config` says it."""
    from gateway.configuration import SETTINGS, is_production
    from rails.configuration import check

    environ, asked = environment(), [setting for setting in SETTINGS if setting.name in names]
    findings = check(asked, environ, production=is_production(environ))
    if findings:
        lines = "\n".join(f"WRONG: {finding.problem}" for finding in findings)
        fail(f"{lines}\nRun it where the stack runs, or with its environment.")


@contextlib.contextmanager
def answering() -> Iterator[None]:
    """Around what asks the database: ends the command with a sentence if that does not answer."""
    import psycopg
    from sqlalchemy.exc import OperationalError

    try:
        yield
    except (psycopg.OperationalError, OperationalError):
        fail("The database does not answer.")


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
