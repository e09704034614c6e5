"""The API loads little at its start: not what a current database, an unconfigured rail or the command line would want."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from gateway.database.current import MIGRATIONS, is_current, newest_revision
from gateway.database.schema import migrate
from gateway.imports import UNUSED
from tests.conftest import MakeDatabase

ROOT = Path(__file__).parents[2]
LATE = ("alembic", "mako", "typer", "stripe", "grpc", "numpy", "sandbox", "bench", "tests")
"""Modules that must not be loaded before they are needed; `gateway.imports` says when that is."""
NEVER = (*UNUSED, "pygments", "markdown_it", "attr", "requests", "yaml", "lxml", "pandas", "aiohttp", "boto3")
"""Modules that the API has no use for, though other programs beside it may have."""
MODULES_MAX = 1_500
"""Every module costs about a millisecond. A count is the same on every machine; today it is 1,424."""
RATIO_MAX = 5.5
"""Processor time of loading the API in that of loading the framework alone, which is 0.27 s where all is calm: 1.5 s."""

API = "from gateway.imports import quick_imports\nwith quick_imports(): import gateway.server"
FRAMEWORK = "import fastapi"
SUPERVISOR = "import sandbox.supervisor.__main__"
USED = "import json, sys, time; print(json.dumps([time.process_time(), sorted(sys.modules)]))"


def loaded(program: str) -> tuple[float, set[str]]:
    """The processor seconds of a Python that runs `program`, and the modules it has then."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", f"{program}\n{USED}"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    seconds, modules = json.loads(done.stdout)
    return seconds, set(modules)


def least(*programs: str) -> list[float]:
    """The least of four of each, the first of which may still compile; by turns, so that all have the same company."""
    rounds = [[loaded(program)[0] for program in programs] for _ in range(4)]
    return [min(column) for column in zip(*rounds, strict=True)]


def test_the_api_loads_nothing_that_it_may_never_need() -> None:
    _, modules = loaded(API)
    assert [name for name in LATE + NEVER if name in modules] == []
    assert len(modules) <= MODULES_MAX


def test_what_was_not_there_while_the_api_was_loaded_is_there_afterwards() -> None:
    """The command line, which prints in colours, is the same Python for those who start the API by it."""
    _, modules = loaded(f"{API}\nimport rich.console, httpx._main")
    assert {*UNUSED} <= modules


def test_the_supervisor_loads_nothing_of_the_database_or_of_the_settings() -> None:
    """Everything else waits until it has started it."""
    _, modules = loaded(SUPERVISOR)
    assert [name for name in ("sqlalchemy", "pydantic", "fastapi", "httpx") if name in modules] == []


def test_loading_the_api_costs_a_few_times_what_loading_the_framework_does() -> None:
    """Both in one run: a busy or slow machine is slow at both."""
    api, framework = least(API, FRAMEWORK)
    assert api <= RATIO_MAX * framework


def test_the_newest_revision_is_the_one_that_a_migration_leads_to() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert newest_revision() == ScriptDirectory.from_config(config).get_current_head()


@pytest.mark.parametrize(("revision", "current"), [("head", True), ("0010", False)])
def test_a_database_is_current_at_the_newest_revision_alone(
    make_database: MakeDatabase, revision: str, current: bool
) -> None:
    url = make_database()
    with psycopg.connect(url) as connection:
        assert not is_current(connection)
    migrate(url.replace("postgresql://", "postgresql+psycopg://", 1), revision)
    with psycopg.connect(url) as connection:
        assert is_current(connection) is current
