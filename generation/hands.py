"""Who does what would hold up the event loop: reading and writing files, decoding and encoding pictures.

`Threads` does it in this process. `Crew` does it in a process of its own, which is better in a busy
gateway: every system call of a thread has to win the interpreter back from the event loop, and bytes
from strangers are decoded where a decoder that crashes takes nobody with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any, Protocol, TypeVar

import structlog

T = TypeVar("T")

THREADS = 16
CALL_SECONDS_MAX = 60.0
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH")
_frame = struct.Struct("!QQ")
"""Length of what follows, and which call it belongs to."""
_TRUSTED = frozenset(
    {
        ("generation.images", "Result"),
        ("generation.errors", "ResultRejected"),
        ("generation.errors", "ObjectMissing"),
        ("builtins", "ValueError"),
        ("builtins", "RuntimeError"),
        ("builtins", "OSError"),
        ("builtins", "FileNotFoundError"),
        ("builtins", "PermissionError"),
    }
)
"""All that an answer may be made of: a process that decodes strangers' bytes is not trusted."""


class Hands(Protocol):
    """Runs blocking work off the event loop."""

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """What `work(*arguments)` returns or raises."""

    async def close(self) -> None:
        """Let go of threads and processes."""


class Threads:
    """Hands in this process. Its own threads, since they mostly wait for the disk."""

    def __init__(self, count: int = THREADS) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="hands")

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """See `Hands.run`."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(work, *arguments))

    async def close(self) -> None:
        """See `Hands.close`."""
        self._pool.shutdown(wait=False)


class CrewLost(RuntimeError):
    """The process died of this call, twice, or did not end it in time."""


@dataclass(slots=True)
class _Call:
    """A call on its way; `body` is kept to be sent once more."""

    body: bytes
    answer: asyncio.Future[Any]
    tries: int = 1


class Crew:
    """Hands in a process of their own. One event loop; started with the first call.

    `work` and its arguments are pickled, so `work` is a function at the top of a module. A call whose
    process dies is made once more, on the next one: work must bear to be done twice.
    """

    def __init__(self, *, call_seconds_max: float = CALL_SECONDS_MAX) -> None:
        self._call_seconds_max = call_seconds_max
        self._calls: dict[int, _Call] = {}
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()
        self._log = structlog.get_logger("generation.crew")

    @property
    def pid(self) -> int | None:
        """The process that works now."""
        return None if self._process is None else self._process.pid

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """See `Hands.run`. Raises `CrewLost`."""
        if self._writer is None:
            async with self._opening:
                if self._writer is None:
                    await self._open()
        call = _Call(pickle.dumps((work, arguments)), asyncio.get_running_loop().create_future())
        number = next(self._numbers)
        self._calls[number] = call
        self._send(number, call)
        try:
            async with asyncio.timeout(self._call_seconds_max):
                answer: T = await call.answer
                return answer
        except TimeoutError:
            self._log.error("crew_call_too_long", seconds=self._call_seconds_max)
            self._kill()  # whatever it does, it does not end; the others are made again
            raise CrewLost("the work did not end in time") from None
        finally:
            self._calls.pop(number, None)

    async def close(self) -> None:
        """See `Hands.close`. Calls under way are lost."""
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._process is not None:
            process, self._process = self._process, None
            await asyncio.to_thread(process.wait)

    async def _open(self) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "generation.hands", str(theirs.fileno())]
        # Nothing of our environment but what Python needs to start: no secret of the gateway's.
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        with theirs:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=environment
            )
        reader, self._writer = await asyncio.open_unix_connection(sock=ours)
        self._reading = asyncio.create_task(self._read(reader))

    def _send(self, number: int, call: _Call) -> None:
        if self._writer is not None:
            self._writer.write(_frame.pack(len(call.body), number))
            self._writer.write(call.body)

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                size, number = _frame.unpack(await reader.readexactly(_frame.size))
                self._tell(number, await reader.readexactly(size))
        await self._again()

    def _tell(self, number: int, body: bytes) -> None:
        call = self._calls.get(number)
        if call is None or call.answer.done():
            return
        try:
            good, value = _Answer(io.BytesIO(body)).load()
        except Exception as error:  # noqa: BLE001 - whatever an answer does, it concerns its call alone
            good, value = False, CrewLost(f"the answer cannot be read: {error!r}")
        if good:
            call.answer.set_result(value)
        else:
            call.answer.set_exception(value)

    async def _again(self) -> None:
        """The process is gone: what it was at is done by the next one, once."""
        process, self._process = self._process, None
        waiting = {number: call for number, call in self._calls.items() if not call.answer.done()}
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        status = None if process is None else await asyncio.to_thread(process.wait)
        self._log.error("crew_lost", status=status, calls=len(waiting))
        for number, call in list(waiting.items()):
            call.tries += 1
            if call.tries > 2:
                call.answer.set_exception(CrewLost("the process that did the work died twice"))
                del waiting[number]
        if waiting:
            async with self._opening:
                if self._writer is None:
                    await self._open()
            for number, call in waiting.items():
                self._send(number, call)


class _Answer(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _TRUSTED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in an answer")


# --- the process ---


def _serve(connection: socket.socket) -> None:
    """Do what comes, several at a time, until the other side is gone."""
    writing = Lock()

    def answer(number: int, done: Future[Any]) -> None:
        fault = done.exception()
        try:
            body = pickle.dumps((fault is None, done.result() if fault is None else fault))
            _Answer(io.BytesIO(body)).load()
        except Exception:  # noqa: BLE001 - what cannot be sent as it is is described
            body = pickle.dumps((False, RuntimeError(f"{type(fault).__name__}: {fault}")))
        with writing, contextlib.suppress(OSError):
            connection.sendall(_frame.pack(len(body), number) + body)

    with ThreadPoolExecutor(THREADS) as pool, connection.makefile("rb") as stream:
        while header := stream.read(_frame.size):
            size, number = _frame.unpack(header)
            work, arguments = pickle.loads(stream.read(size))  # noqa: S301 - from the process that started us
            pool.submit(work, *arguments).add_done_callback(partial(answer, number))


def main() -> None:
    """Serve the socket whose descriptor is given. It ends when its other side does, and by nothing else."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
