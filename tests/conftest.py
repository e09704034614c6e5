"""Fixtures for every test: a real PostgreSQL and a real Valkey, started once per session when first asked for."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TypeAlias

import psycopg
import pytest
from psycopg import sql

from rails.liquid.bindings import keep_bindings
from sandbox.embedded.postgres import FAST_AND_FORGETFUL, EmbeddedPostgres
from sandbox.embedded.running import RunningServer, free_port
from sandbox.embedded.valkey import EmbeddedValkey

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
    for name in ("real_lnd", "real_elementsd"):
        if name not in (config.option.markexpr or ""):
            _skip(items, name, f"wants a real node: run it with -m {name}")
    if find_browser() is None:
        if os.environ.get("LLAMASKETCH_TEST_EVERYTHING") and any(
            item.get_closest_marker("browser") for item in items
        ):
            pytest.exit(f"The browser tests cannot run: {NO_BROWSER}", returncode=2)
        _skip(items, "browser", NO_BROWSER)


def _skip(items: list[pytest.Item], marker: str, reason: str) -> None:
    for item in items:
        if item.get_closest_marker(marker):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """The browser for playwright's `launch(executable_path=…)`."""
    found = find_browser()
    if found is None:
        pytest.skip(NO_BROWSER)
    return found


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """A folder that also the user whom root drops to can enter; `tmp_path` is closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="llamasketch-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server(server_folder: Path) -> Iterator[RunningServer]:
    """The session's PostgreSQL.

    It does not fsync: what an ordinary test wants to know does not depend on the plug being
    pulled, and its data is deleted anyway. Crash tests start their own by `start_postgres`.
    """
    postgres = EmbeddedPostgres(server_folder / "shared", free_port(), FAST_AND_FORGETFUL)
    with RunningServer(postgres.command(), server_folder / "postgres.log") as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url(postgres_server: RunningServer) -> str:
    """`postgresql://…` of the session's server (its administrative database: create your own)."""
    return postgres_server.url


@pytest.fixture(scope="session")
def make_database(postgres_url: str) -> MakeDatabase:
    """`make_database(template="template1")` gives the URL of a fresh copy of `template` (30 ms).

    Migrate one database once per session, close its connections, and pass its name as the
    template to get a migrated copy per test.
    """
    numbers = itertools.count(1)

    def make(template: str = "template1") -> str:
        name = f"test_{next(numbers)}"
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                    sql.Identifier(name), sql.Identifier(template)
                )
            )
        return with_database(postgres_url, name)

    return make


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
