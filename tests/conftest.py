"""Fixtures for every test: a real PostgreSQL and a real Valkey, started once per session when first asked for."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import httpx
import psycopg
import pytest
import structlog
from playwright.async_api import Browser
from psycopg import sql
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from rails.liquid.bindings import keep_bindings
from rails.store.tables import METADATA
from sandbox.embedded.ports import free_port
from sandbox.embedded.postgres import FAST_AND_FORGETFUL, EmbeddedPostgres
from sandbox.embedded.running import RunningServer
from sandbox.embedded.valkey import EmbeddedValkey
from tests.chromium import running_chromium
from tests.folders import MEMORY, held_folder, memory_or_disk, remove_abandoned
from tests.tables import create_tables, database_name
from tests.waiting import SECONDS_MAX

# Before anything imports them: pytest explains the assertions of the exported suite, too.
pytest.register_assert_rewrite(
    "rails.testing.contract_suite",
    "rails.testing.recurring_suite",
    "rails.testing.metered_suite",
    "rails.testing.harness",
)

MakeDatabase: TypeAlias = Callable[..., str]
StartPostgres: TypeAlias = Callable[..., RunningServer]


BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
NO_BROWSER = (
    "no Chromium was found: install it (on Debian: apt-get install chromium) or name one in CHROMIUM."
)


def find_browser() -> str | None:
    """The Chromium to drive: the one named in CHROMIUM, or the first on PATH."""
    named = os.environ.get("CHROMIUM")
    return next((found for name in ((named,) if named else BROWSERS) if (found := shutil.which(name))), None)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what cannot run here, and say in a sentence what it wants. CI leaves nothing out."""
    for name in ("real_lnd", "real_elementsd", "real_comfyui"):
        if name not in (config.option.markexpr or ""):
            _skip(items, name, f"wants a real one: run it with -m {name}")
    if "slow_suite" not in (config.option.markexpr or ""):
        _skip(items, "slow_suite", "has a schedule of its own: make test-slow")
    if "thorough" not in (config.option.markexpr or ""):
        _skip(items, "thorough", "one more of many: make test-thorough")
    if find_browser() is None:
        if os.environ.get("LLAMASKETCH_TEST_EVERYTHING") and any(
            item.get_closest_marker("browser") for item in items
        ):
            pytest.exit(f"The browser tests cannot run: {NO_BROWSER}", returncode=2)
        _skip(items, "browser", NO_BROWSER)

    if hasattr(config, "workerinput"):  # this is one of several processes
        items.sort(key=lambda item: (not item.nodeid.startswith(TOGETHER), not item.nodeid.startswith(LONG)))


TOGETHER = ("tests/e2e", "tests/browser")
"""Folders whose tests share one stack of servers for the session, and take longest: they come first, each in one
process."""
LONG = (
    "tests/cli/test_endings.py",
    "tests/configuration/test_rules.py",
    "tests/gateway/test_hostile.py",
    "tests/gateway/test_worker_killed.py",
    "tests/log/test_crash.py",
    "tests/proof",
    "tests/rails/lightning/test_listening.py",
    "tests/supervisor/test_tree.py",
    "tests/worker/test_worker.py",
)
"""Files that take a minute or half of one: they come next, so that the last process does not end long after the
others."""


def group_of(test: str) -> str:
    """What stays in one process when several run the tests (`JOBS`): a file, or a folder."""
    file, _, _ = test.partition("::")
    return next((folder for folder in TOGETHER if file.startswith(f"{folder}/")), file)


class Groups(LoadScopeScheduling):
    """Gives each process a whole group at a time.

    xdist's own marker for groups is not heeded since pytest keeps the name of a test elsewhere (9.2 with 3.8).
    """

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Called by xdist, in the process that shares the tests out."""
    return Groups(config, log)


def _skip(items: list[pytest.Item], marker: str, reason: str) -> None:
    for item in items:
        if item.get_closest_marker(marker):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session", autouse=True)
def plain_tracebacks() -> Iterator[None]:
    """Logged errors are shown plainly: structlog's coloured tracebacks with all locals take a second each."""
    before = structlog.get_config()
    *processors, _ = before["processors"]
    plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*processors, plain])
    yield
    structlog.configure(**before)


@pytest.fixture(scope="session", autouse=True)
def patient_clients() -> None:
    """Who asks without saying how long waits as long as any test: httpx's five seconds pass while a machine stalls."""
    for phase in ("connect", "read", "write", "pool"):
        setattr(httpx._config.DEFAULT_TIMEOUT_CONFIG, phase, SECONDS_MAX)


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """The browser for playwright's `launch(executable_path=…)`."""
    found = find_browser()
    if found is None:
        pytest.skip(NO_BROWSER)
    return found


@pytest.fixture(scope="session")
async def chromium(chromium_path: str) -> AsyncIterator[Browser]:
    """One browser program for all tests of this process: give each person a context."""
    async with running_chromium(chromium_path) as browser:
        yield browser


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """A folder that also the user whom root drops to can enter; `tmp_path` is closed to others."""
    for parent in (MEMORY, Path(tempfile.gettempdir())):
        remove_abandoned(parent)
    with held_folder(memory_or_disk()) as folder:
        yield folder


THROWN_AWAY = {
    **FAST_AND_FORGETFUL,
    # It would visit hundreds of databases in turn, and none lives long enough to need it.
    "autovacuum": "off",
    "max_wal_size": "256MB",
}


@pytest.fixture(scope="session")
def postgres_server(server_folder: Path) -> Iterator[RunningServer]:
    """The session's PostgreSQL.

    It does not fsync: what an ordinary test wants to know does not depend on the plug being
    pulled, and its data is deleted anyway. Crash tests start their own by `start_postgres`.
    """
    command = EmbeddedPostgres(server_folder / "shared", free_port(), THROWN_AWAY).command()
    # Stopped without writing down what is deleted next.
    command = replace(command, stop_signal=signal.SIGQUIT)
    with RunningServer(command, server_folder / "postgres.log") as server:
        yield server


@pytest.fixture(autouse=True)
def logs_stay_configured_as_they_were() -> Iterator[None]:
    """A program that runs within a test configures its logs: for that test alone."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture(scope="session")
def postgres_url(request: pytest.FixtureRequest) -> str:
    """`postgresql://…` of the session's server (its administrative database: create your own).

    `LLAMASKETCH_TEST_POSTGRES` names one that runs already: several processes may share it.
    """
    server: str | RunningServer = os.environ.get("LLAMASKETCH_TEST_POSTGRES") or request.getfixturevalue(
        "postgres_server"
    )
    return server if isinstance(server, str) else server.url


@pytest.fixture(scope="session")
def make_database(postgres_url: str) -> MakeDatabase:
    """`make_database(template="template1")` gives the URL of a fresh copy of `template` (30 ms).

    Migrate one database once per session, close its connections, and pass its name as the
    template to get a migrated copy per test.
    """
    numbers = itertools.count(1)

    def make(template: str = "template1") -> str:
        name = f"test_{os.getpid()}_{next(numbers)}"
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY").format(
                    sql.Identifier(name), sql.Identifier(template)
                )
            )
        return with_database(postgres_url, name)

    return make


@pytest.fixture(scope="session")
def rails_template(make_database: MakeDatabase) -> str:
    """The name of a database with the tables of the log and of the rails, to be copied."""
    url = make_database()
    create_tables(url, METADATA)
    return database_name(url)


@pytest.fixture(scope="module")
def database_url(make_database: MakeDatabase) -> str:
    """A fresh, empty database for this test module."""
    return make_database()


@pytest.fixture
def start_postgres(server_folder: Path) -> Iterator[StartPostgres]:
    """`start_postgres(settings=None)` starts a fully durable server of this test's own.

    `.url`, `.pid`, `.kill()` (as a crash), `.start()` again on the same data, `.stop()`.
    """
    with ExitStack() as stack:

        def start(settings: Mapping[str, str] | None = None) -> RunningServer:
            folder = Path(tempfile.mkdtemp(prefix="durable-", dir=server_folder))
            folder.chmod(0o755)
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            postgres = EmbeddedPostgres(folder, free_port(), settings)
            return stack.enter_context(RunningServer(postgres.command(), folder / "postgres.log"))

        yield start


@pytest.fixture(scope="session")
def valkey_server(server_folder: Path) -> Iterator[RunningServer]:
    """The session's Valkey: `.kill()` and `.start()` to see how code bears its loss."""
    valkey = EmbeddedValkey(server_folder / "shared", free_port())
    with RunningServer(valkey.command(), server_folder / "valkey.log") as server:
        yield server


@pytest.fixture(scope="session")
def valkey_url(valkey_server: RunningServer) -> str:
    """`redis://…` of the session's Valkey. Shared: use your own key prefix or channel."""
    return valkey_server.url


def with_database(url: str, name: str) -> str:
    """The same server, another database."""
    return f"{url.rpartition('/')[0]}/{name}"


def pytest_unconfigure() -> None:
    """End without the crash of wallycore's bindings: it would make a passed run look failed."""
    keep_bindings()
