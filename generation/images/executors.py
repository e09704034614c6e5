"""Who does what would hold up the event loop: reading and writing files, decoding and encoding pictures.

`Threads` does it in this process. `Crew` does it in a process of its own, which is better in a busy
gateway: every system call of a thread has to win the interpreter back from the event loop, and bytes
from strangers are decoded where a decoder that crashes takes nobody with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
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

import msgspec
import structlog

from generation.errors import ObjectMissing, ObjectTaken, ResultRejected, SketchRejected
from generation.images import Result, Sketch

T = TypeVar("T")

THREADS = 16
CALL_SECONDS_MAX = 60.0
CLOSE_SECONDS_MAX = 5.0
SOLO_MAX = 2
"""Suspects that are tried alone at the same time."""
_FRAME_MAX = 256 * 1024 * 1024
_PR_SET_PDEATHSIG = 1
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH")
_frame = struct.Struct("!QQ")
"""Length of what follows, and which call it belongs to."""
_VALUES: dict[str, Any] = {"": Any, "Result": Result, "Sketch": Sketch}
_FAULTS: dict[str, Callable[..., Exception]] = {
    fault.__name__: fault
    for fault in (ObjectMissing, ObjectTaken, ResultRejected, SketchRejected, ValueError, OSError)
}
"""All that an answer may be. It is data and no pickle: a process that decodes strangers' bytes is not trusted."""


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
    """Nobody did the work: it did not end in time, or no process could be had, or the gateway closes."""


class WorkKilled(CrewLost):
    """A process that was at nothing but this work died of it."""


@dataclass(slots=True, eq=False)
class _Call:
    body: bytes
    answer: asyncio.Future[Any]
    process: _Process | None = None
    """Which one is at it."""

    def fail(self, why: str, kind: type[CrewLost] = CrewLost) -> None:
        if not self.answer.done():
            self.answer.set_exception(kind(why))


class _Process:
    """One process and the calls that it is at."""

    def __init__(self, on_end: Callable[[_Process], None]) -> None:
        self.calls: dict[int, _Call] = {}
        self._on_end = on_end
        self._numbers = itertools.count(1)
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start it. Raises `OSError` where no process can be had."""
        ours, theirs = socket.socketpair()
        # Nothing of our environment but what Python needs to start: no secret of the gateway's.
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        command = [sys.executable, "-m", "generation.hands", str(theirs.fileno())]
        with theirs, contextlib.ExitStack() as failed:
            failed.callback(ours.close)
            self.popen = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=environment
            )
            failed.pop_all()
        reader, self._writer = await asyncio.open_unix_connection(sock=ours)
        self._reading = asyncio.create_task(self._read(reader))

    def send(self, call: _Call) -> None:
        """Give it a call."""
        number = next(self._numbers)
        self.calls[number], call.process = call, self
        self._writer.write(_frame.pack(len(call.body), number))
        self._writer.write(call.body)

    def kill(self) -> None:
        """End it now; the calls it is at are told by `on_end`."""
        self.popen.kill()

    async def stop(self) -> None:
        """Let it end by itself, for a while."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])
        self._writer.close()
        try:
            await asyncio.to_thread(self.popen.wait, CLOSE_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            await asyncio.to_thread(self.popen.wait)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                size, number = _frame.unpack(await reader.readexactly(_frame.size))
                if size > _FRAME_MAX:
                    break
                self._tell(number, await reader.readexactly(size))
        self.popen.kill()
        self._writer.close()
        await asyncio.to_thread(self.popen.wait)
        self._on_end(self)

    def _tell(self, number: int, body: bytes) -> None:
        call = self.calls.pop(number, None)
        if call is None or call.answer.done():
            return
        try:
            good, kind, value = _decode(body)
            found = msgspec.convert(value, _VALUES[kind]) if good else _FAULTS[kind](*value)
        except Exception as error:  # noqa: BLE001 - whatever an answer is, it concerns its call alone
            call.fail(f"the answer cannot be read: {error!r}")
            return
        if good:
            call.answer.set_result(found)
        else:
            call.answer.set_exception(found)


class Crew:
    """Hands in a process of their own. One event loop; started with the first call.

    `work` and its arguments are pickled, so `work` is a function at the top of a module. When the process
    dies, each call that it was at is made once more, alone in a process, so that the one it died of is
    found and the others are done. Work must bear to be done twice.
    """

    def __init__(self, *, call_seconds_max: float = CALL_SECONDS_MAX) -> None:
        self._call_seconds_max = call_seconds_max
        self._process: _Process | None = None
        self._opening = asyncio.Lock()
        self._solo = asyncio.Semaphore(SOLO_MAX)
        self._suspects: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger("generation.crew")

    @property
    def pid(self) -> int | None:
        """The process that works now."""
        return None if self._process is None else self._process.popen.pid

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """See `Hands.run`. Raises `CrewLost`."""
        call = _Call(pickle.dumps((work, arguments)), asyncio.get_running_loop().create_future())
        (await self._present()).send(call)
        try:
            async with asyncio.timeout(self._call_seconds_max):
                answer: T = await call.answer
                return answer
        except TimeoutError:
            self._log.error("crew_call_too_long", seconds=self._call_seconds_max)
            if call.process is not None and call in call.process.calls.values():
                call.process.kill()  # whatever it is at, it does not end
            raise CrewLost("the work did not end in time") from None

    async def close(self) -> None:
        """See `Hands.close`. Calls under way are lost."""
        process, self._process = self._process, None
        for suspect in self._suspects:
            suspect.cancel()
        if self._suspects:
            await asyncio.wait(self._suspects)
        if process is not None:
            await process.stop()
            for call in process.calls.values():
                call.fail("the gateway is closing")

    async def _present(self) -> _Process:
        process = self._process
        if process is None:
            async with self._opening:
                if self._process is None:
                    process = _Process(self._ended)
                    await process.start()
                    self._process = process
                process = self._process
        return process

    def _ended(self, process: _Process) -> None:
        if self._process is process:
            self._process = None
        left = [call for call in process.calls.values() if not call.answer.done()]
        self._log.error("crew_lost", status=process.popen.returncode, calls=len(left))
        for call in left:
            call.process = None
            suspect = asyncio.create_task(self._alone(call))
            self._suspects.add(suspect)
            suspect.add_done_callback(self._suspects.discard)

    async def _alone(self, call: _Call) -> None:
        try:
            async with self._solo:
                if call.answer.done():
                    return
                process = _Process(lambda _: call.fail("the process died of it", WorkKilled))
                await process.start()
                try:
                    process.send(call)
                    await asyncio.wait([call.answer])
                finally:
                    await process.stop()
        except OSError as error:
            call.fail(f"no process could be had: {error}")
        finally:
            call.fail("the gateway is closing")


_decode = msgspec.msgpack.Decoder(tuple[bool, str, Any]).decode


# --- the process ---


def _serve(connection: socket.socket) -> None:
    """Do what comes, several at a time, until the other side is gone."""
    writing = Lock()

    def answer(number: int, done: Future[Any]) -> None:
        fault = done.exception()
        try:
            body = _encoded(done.result()) if fault is None else _described(fault)
        except Exception as error:  # noqa: BLE001 - what cannot be said is a fault of the work
            body = _described(error)
        with writing, contextlib.suppress(OSError):
            connection.sendall(_frame.pack(len(body), number) + body)

    with ThreadPoolExecutor(THREADS) as pool, connection.makefile("rb") as stream:
        while header := stream.read(_frame.size):
            size, number = _frame.unpack(header)
            work, arguments = pickle.loads(stream.read(size))  # noqa: S301 - from the process that started us
            pool.submit(work, *arguments).add_done_callback(partial(answer, number))


def _encoded(value: Any) -> bytes:
    kind = type(value).__name__ if type(value) in (Result, Sketch) else ""
    return msgspec.msgpack.encode((True, kind, value))


def _described(fault: BaseException) -> bytes:
    if isinstance(fault, SketchRejected):
        return msgspec.msgpack.encode((False, "SketchRejected", (fault.code, fault.detail)))
    for name, kind in _FAULTS.items():
        if isinstance(kind, type) and isinstance(fault, kind):
            return msgspec.msgpack.encode((False, name, (str(fault),)))
    return msgspec.msgpack.encode((False, "ValueError", (f"{type(fault).__name__}: {fault}",)))


def main() -> None:
    """Serve the socket whose descriptor is given. It ends when its other side does, and by nothing else."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with contextlib.suppress(OSError, AttributeError):  # even work that never ends does not outlive us
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    _serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
