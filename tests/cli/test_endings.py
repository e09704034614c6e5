"""However a command that starts something is ended, and however early: no process and no temporary file is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.cli import bench_app
from sandbox.containment import LOCK, PREFIX
from sandbox.embedded.ports import free_port
from tests.e2e.stack import ROOT
from tests.waiting import SECONDS_MAX, eventually

KEPT = ("PATH", "HOME", "LANG")

LLAMASKETCH = (sys.executable, "-m", "gateway.cli")
BENCHES = {
    f"bench {command.name}": ((*LLAMASKETCH, "bench", str(command.name)), server)
    for command in bench_app.registered_commands
    for server in ("/postgres " if command.name not in ("journey", "hostile") else "sandbox.supervisor",)
}
COMMANDS: dict[str, tuple[Sequence[str], str]] = {
    "run": ((*LLAMASKETCH, "run"), "sandbox.lnd"),
    "demo": ((*LLAMASKETCH, "demo"), "sandbox.lnd"),
    "make mutation": ((sys.executable, "-m", "bench", "mutation", "--", "rails.payments"), "/postgres "),
    **BENCHES,
}
"""How each is started, and what is on the command line of the first process that it starts."""
MAKING = "/initdb "
SMALL = """
import subprocess, sys, tempfile
from pathlib import Path
from sandbox.containment import contain
contain()
Path(tempfile.mkdtemp(), "file").write_text("something")
for seconds in ("600", "601"):
    subprocess.Popen(["sleep", seconds], start_new_session=True, env={})
if sys.stdin.readline():
    raise SystemExit(7)
"""
"""A command whose children know nothing of it: no signal, no pipe and no environment connects them."""


@dataclass(frozen=True, slots=True)
class Started:
    """A command that was started, and its terminal."""

    process: subprocess.Popen[bytes]
    terminal: int

    def tree(self) -> dict[int, tuple[int, str]]:
        """Its processes: when each was born, in ticks since the machine was, and its command line."""
        every = dict(_everybody())
        found, waiting = dict[int, tuple[int, str]](), [self.process.pid]
        while waiting:
            pid = waiting.pop()
            if pid in every:
                _, born, argv = every[pid]
                found[pid] = (born, argv)
            waiting += [child for child, (parent, _, _) in every.items() if parent == pid]
        return found


def _everybody() -> Iterator[tuple[int, tuple[int, int, str]]]:
    """Every process that is not a zombie: its parent, its birth, its command line."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                argv = (folder / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
                if fields[0] != "Z":
                    yield int(folder.name), (int(fields[1]), int(fields[19]), argv)


def by(number: signal.Signals) -> Callable[[Started], None]:
    def end(started: Started) -> None:
        started.process.send_signal(number)

    return end


def the_keeper_is_killed(started: Started) -> None:
    """The one process that `sandbox.containment` adds."""
    children = [pid for pid, (parent, _, _) in _everybody() if parent == started.process.pid]
    os.kill(children[0], signal.SIGKILL)


def the_terminal_closes(started: Started) -> None:
    os.close(started.terminal)


def making_the_database_fails(started: Started) -> None:
    for pid, (_, argv) in started.tree().items():
        if MAKING in argv:
            os.kill(pid, signal.SIGKILL)


ENDINGS: dict[str, Callable[[Started], None]] = {
    "SIGTERM": by(signal.SIGTERM),
    "SIGKILL": by(signal.SIGKILL),
    "the terminal closes": the_terminal_closes,
    "SIGINT": by(signal.SIGINT),
    "SIGHUP": by(signal.SIGHUP),
    "making the database fails": making_the_database_fails,
}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    """`start(argv)` on a terminal of its own, with this test's folder for temporary files."""
    with ExitStack() as stack:

        def begin(argv: Sequence[str]) -> Started:
            terminal, side = os.openpty()
            printed = (tmp_path / "printed").open("wb")
            process = subprocess.Popen(
                # Whoever runs the tests may ignore some of these signals (nohup does), and children inherit that.
                ["setsid", "--ctty", "env", "--default-signal=HUP,INT,TERM", *argv],
                env={name: os.environ[name] for name in KEPT if name in os.environ}
                | {"LLAMASKETCH_DATA": str(tmp_path / "data"), "TMPDIR": str(tmp_path / "temporary")},
                cwd=ROOT,
                stdin=side,
                stdout=printed,
                stderr=subprocess.STDOUT,
            )
            printed.close()
            os.close(side)
            stack.callback(process.wait)
            stack.callback(process.kill)
            return Started(process, terminal)

        tmp_path.chmod(0o755)
        for parent in tmp_path.parents[:3]:
            with suppress(PermissionError):
                parent.chmod(0o755)
        (tmp_path / "temporary").mkdir(mode=0o755)
        yield begin


async def _leaves_nothing(
    started: Started, server: str, end: Callable[[Started], None], tmp_path: Path
) -> None:
    def runs() -> bool:
        assert started.process.poll() is None, (tmp_path / "printed").read_text()
        return any(server in argv for _, argv in started.tree().values())

    await eventually(runs, "something was started", SECONDS_MAX)
    tree = started.tree()
    end(started)

    def left() -> dict[int, tuple[int, int, str]]:
        return {pid: one for pid, one in _everybody() if pid in tree and tree[pid][0] == one[1]}

    await eventually(lambda: not left(), "every process ended", SECONDS_MAX)
    started.process.wait(SECONDS_MAX)
    mine = str(tmp_path)
    await eventually(
        lambda: not [argv for _, (_, _, argv) in _everybody() if mine in argv], "no later one", SECONDS_MAX
    )
    assert [*(tmp_path / "temporary").iterdir()] == []


SOON = (
    ("run", "SIGTERM"),
    ("demo", "SIGKILL"),
    ("demo", "the terminal closes"),
    ("make mutation", "the terminal closes"),
    ("bench journey", "SIGTERM"),
    ("bench sketchers", "making the database fails"),
    ("bench ledger", "SIGINT"),
)
"""What `make test` tries: every ending, and every program that starts servers in a way of its own."""
CHOSEN = [
    *SOON,
    *(
        one
        for one in (
            *((name, list(ENDINGS)[number % len(ENDINGS)]) for number, name in enumerate(COMMANDS)),
            *(("demo", ending) for ending in ENDINGS),
        )
        if one not in SOON
    ),
]
"""Besides, each command in one way, and one command in all ways: in most commands it is the same code that ends them."""
MATRIX = [(name, ending) for name in COMMANDS for ending in ENDINGS if (name, ending) not in CHOSEN]


@pytest.mark.parametrize(
    ("name", "ending"),
    [one if one in SOON else pytest.param(*one, marks=pytest.mark.thorough) for one in CHOSEN],
)
async def test_a_command_that_is_ended_leaves_nothing(
    name: str, ending: str, start: Callable[..., Started], tmp_path: Path
) -> None:
    await _ended(name, ending, start, tmp_path)


@pytest.mark.slow_suite
@pytest.mark.parametrize(("name", "ending"), MATRIX)
async def test_every_command_ended_in_every_way_leaves_nothing(
    name: str, ending: str, start: Callable[..., Started], tmp_path: Path
) -> None:
    await _ended(name, ending, start, tmp_path)


async def _ended(name: str, ending: str, start: Callable[..., Started], tmp_path: Path) -> None:
    argv, server = COMMANDS[name]
    server = MAKING if ENDINGS[ending] is making_the_database_fails else server
    more = ("--port", str(free_port())) if name == "run" else ()
    await _leaves_nothing(start((*argv, *more)), server, ENDINGS[ending], tmp_path)


@pytest.mark.parametrize("ending", [*list(ENDINGS)[:-1], "the keeper is killed"])
async def test_what_knows_nothing_of_its_command_ends_with_it(
    ending: str, start: Callable[..., Started], tmp_path: Path
) -> None:
    started = start((sys.executable, "-c", SMALL))
    end = ENDINGS.get(ending, the_keeper_is_killed)
    await _leaves_nothing(started, "sleep 601", end, tmp_path)


async def test_a_command_ends_with_its_own_code_once_everything_is_gone(
    start: Callable[..., Started], tmp_path: Path
) -> None:
    started = start((sys.executable, "-c", SMALL))
    await _leaves_nothing(started, "sleep 601", lambda it: _type(it, b"on\n"), tmp_path)
    assert started.process.returncode == 7


def _type(started: Started, text: bytes) -> None:
    os.write(started.terminal, text)


async def test_the_next_start_deletes_what_was_left_when_all_were_killed_at_once(
    start: Callable[..., Started], tmp_path: Path
) -> None:
    place = tmp_path / "temporary"
    somebodys = place / f"{PREFIX}data"
    somebodys.mkdir()
    (somebodys / "lock").touch()
    first = start((sys.executable, "-c", SMALL))
    await eventually(lambda: len(first.tree()) == 5, "it runs")
    everyone = first.tree()
    for pid in everyone:
        os.kill(pid, signal.SIGSTOP)
    for pid in everyone:
        os.kill(pid, signal.SIGKILL)
    first.process.wait()
    (left,) = (path for path in place.iterdir() if path != somebodys)
    assert (left / LOCK).exists()
    second = start((sys.executable, "-c", SMALL))
    await eventually(lambda: len(second.tree()) == 5, "it runs")
    assert not left.exists()
    assert len([*place.iterdir()]) == 2, "its own, and what has no such lock"
    _type(second, b"on\n")
    second.process.wait(SECONDS_MAX)
    assert [*place.iterdir()] == [somebodys]
