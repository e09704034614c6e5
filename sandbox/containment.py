"""Nothing of a command outlives it: no process and no temporary file, whatever ends it.

`contain()` makes three processes of a program:

- The one that was started is what a shell sees. It passes on what it is told, and ends as the command does.
- The keeper has a session of its own, so that no terminal and no signal to the group reaches it. It adopts what the
  command leaves running (`PR_SET_CHILD_SUBREAPER`) and ends it; then it deletes the folder for temporary files.
- The command goes on behind the call of `contain()`. It dies with the keeper.

Each of the first two does the keeper's work where the other was killed. If both are, at the same moment, the command
dies with them, and the folder is deleted by the next start: its lock is then held by nobody.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

PREFIX = "llamasketch-temporary-"
LOCK = "temporary.lock"
"""Not the name of a data folder's lock: nobody's data is ever taken for something temporary."""
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STOP_SECONDS_MAX = 15.0
"""How long a command may take to stop after it was told to."""
ALONE_SECONDS_MAX = 1.0
"""How long what the command started may take to end by itself: most of it dies with its parent, the servers in order."""
END_SECONDS_MAX = 10.0
"""After this long what has not ended is killed."""
GONE_SECONDS_MAX = 20.0
"""After this long it is left to the kernel."""
POLL_SECONDS = 0.03
CTRL_C = (signal.SIGINT, 0x80)
"""From the kernel (`SI_KERNEL`): it tells all processes of the terminal, the command among them. (Of a terminal that
closes it tells the first one alone.)"""
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def contain(place: Path | None = None) -> None:
    """Run what follows in a process whose descendants and temporary files (`tempfile`) end with it.

    Returns in that process alone. `place` is the folder for temporary files, if not the usual one. Call it before
    there are threads. Raises `OSError` if the folder or the processes cannot be made.
    """
    # A hang-up under nohup, or an interrupt of what runs in the background, is to be ignored.
    heeded = {number for number in PASSED_ON if signal.getsignal(number) != signal.SIG_IGN}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*heeded, signal.SIGCHLD})
    _delete_left_over(place)
    folder, lock = _make_folder(place)
    signals, sender = os.pipe()
    results, result = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    _set(_PR_SET_CHILD_SUBREAPER, 1)
    keeper = os.fork()
    if keeper:
        os.close(signals)
        os.close(result)
        _pass_on(keeper, heeded, sender)
        _end_as(os.read(results, 16), folder)
    os.close(sender)
    os.close(results)
    _set(_PR_SET_CHILD_SUBREAPER, 1)
    own = os.getpid()
    command = os.fork()
    if command:
        _keep(command, signals, result, folder)
    _set(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != own:
        os._exit(1)
    for descriptor in (signals, result, lock):
        os.close(descriptor)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None


def _pass_on(keeper: int, heeded: set[signal.Signals], sender: int) -> None:
    """Tell the keeper which signals came, until it ends."""
    while True:
        info = signal.sigwaitinfo({*heeded, signal.SIGCHLD})
        if info.si_signo == signal.SIGCHLD:
            # Another child is what the keeper left behind when it was killed.
            if os.waitpid(keeper, os.WNOHANG)[0]:
                return
        elif (info.si_signo, info.si_code) != CTRL_C:
            with suppress(BrokenPipeError):
                os.write(sender, bytes([info.si_signo]))


def _end_as(result: bytes, folder: Path) -> NoReturn:
    """End as the command did: with its exit code, or by the same signal."""
    if not result:
        # The keeper was killed, and the command with it.
        _end_descendants()
        shutil.rmtree(folder, ignore_errors=True)
    status = int(result) if result else int(signal.SIGKILL)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status))


def _keep(command: int, signals: int, result: int, folder: Path) -> NoReturn:
    """The keeper: pass signals on, wait for the command, end what it left, delete its folder."""
    os.setsid()
    for number in PASSED_ON:
        signal.signal(number, signal.SIG_IGN)
    status = _until_it_ends(command, signals)
    _end_descendants()
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(BrokenPipeError):
        os.write(result, str(status).encode())
    os._exit(0)


def _until_it_ends(command: int, signals: int) -> int:
    """Its status. It is told what the first process is told, or to stop where that one is gone."""
    ended = os.pidfd_open(command)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(signals, select.POLLIN)
    deadline: float | None = None
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        ready = dict(poll.poll(left))
        if ended in ready:
            return os.waitpid(command, 0)[1]
        if not ready:
            os.kill(command, signal.SIGKILL)
            deadline = None
            continue
        numbers = os.read(signals, 64)
        if not numbers:
            poll.unregister(signals)
        for number in numbers or bytes([signal.SIGTERM]):
            os.kill(command, number)
        deadline = deadline or time.monotonic() + STOP_SECONDS_MAX


def _end_descendants() -> None:
    """Return when there are none: those that do not end by themselves are asked to, and killed if they do not."""
    began, asked = time.monotonic(), set[int]()
    while (now := time.monotonic() - began) < GONE_SECONDS_MAX:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        descendants = set(_descendants(os.getpid()))
        if not descendants:
            return
        for pid in descendants:
            with suppress(ProcessLookupError):
                if now >= END_SECONDS_MAX:
                    os.kill(pid, signal.SIGKILL)
                elif now >= ALONE_SECONDS_MAX and pid not in asked:
                    os.kill(pid, signal.SIGTERM)
                    asked.add(pid)
        time.sleep(POLL_SECONDS)


def _descendants(ancestor: int) -> Iterator[int]:
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(folder.name))
    waiting = [ancestor]
    while waiting:
        for pid in children.get(waiting.pop(), ()):
            yield pid
            waiting.append(pid)


def _make_folder(place: Path | None) -> tuple[Path, int]:
    """A folder for temporary files, and its lock: held as long as one of the first two processes lives."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
    # As root, the embedded servers run as a user of their own, who must be able to pass.
    folder.chmod(0o711)
    # It has its name only once it is locked: who finds it may take it for abandoned otherwise.
    unfinished = folder / f"{LOCK}.unfinished"
    lock = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    unfinished.rename(folder / LOCK)
    return folder, lock


def _delete_left_over(place: Path | None) -> None:
    """Delete the folders whose processes were all killed at once."""
    for folder in Path(place or tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
                continue
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def _set(option: int, value: int) -> None:
    """`prctl`, which Python does not offer. Raises `OSError`."""
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
