"""Who does what would hold up the event loop: reading and writing files, decoding and encoding pictures.

`ThreadExecutor` does it in this process. `ProcessExecutor` does it in a process of its own, which is better in a busy
gateway: every system call of a thread has to win the interpreter back from the event loop, and bytes
from strangers are decoded where a decoder that crashes takes nobody with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import pickle
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import msgspec
import structlog

from generation.domain.errors import ObjectMissing, ObjectTaken, ResultBlank, ResultRejected, SketchRejected
from generation.domain.sketches import Sketch
from generation.images.checking import Result
from ledger.cancelling import end_tasks

T = TypeVar("T")

THREADS = 16
CALL_SECONDS_MAX = 60.0
CLOSE_SECONDS_MAX = 5.0
SOLO_MAX = 2
"""Suspects that are tried alone at the same time."""
_FRAME_MAX = 256 * 1024 * 1024
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH")
FRAME = struct.Struct("!QQ")
"""Length of what follows, and which call it belongs to."""
VALUES: dict[str, Any] = {"": Any, "Result": Result, "Sketch": Sketch}
FAULTS: dict[str, Callable[..., Exception]] = {
    fault.__name__: fault
    for fault in (
        ObjectMissing,
        ObjectTaken,
        ResultBlank,
        ResultRejected,
        SketchRejected,
        ValueError,
        OSError,
    )
}
"""All that an answer may be. It is data and no pickle: a process that decodes strangers' bytes is not trusted."""


class Executor(Protocol):
    """Runs blocking work off the event loop."""

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """What `work(*arguments)` returns or raises."""

    async def close(self) -> None:
        """Let go of threads and processes."""


class ThreadExecutor:
    """An executor in this process. Its own threads, since they mostly wait for the disk."""

    def __init__(self, count: int = THREADS) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="executor")

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """See `Executor.run`."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(work, *arguments))

    async def close(self) -> None:
        """See `Executor.close`."""
        self._pool.shutdown(wait=False)


class ExecutorLost(RuntimeError):
    """Nobody did the work: it did not end in time, or no process could be had, or the gateway closes."""


class WorkKilled(ExecutorLost):
    """A process that was at nothing but this work died of it."""


@dataclass(slots=True, eq=False)
class Call:
    """Work for a process, and who waits for its answer."""

    body: bytes
    answer: asyncio.Future[Any]
    process: WorkingProcess | None = None
    """Which one is at it."""

    @classmethod
    def of(cls, work: Callable[..., Any], arguments: tuple[Any, ...]) -> Call:
        """A call that nobody is at yet."""
        return cls(pickle.dumps((work, arguments)), asyncio.get_running_loop().create_future())

    def refuse(self, fault: Exception) -> None:
        """Answer that the work is to blame."""
        if not self.answer.done():
            self.answer.set_exception(fault)

    def fail(self, why: str, kind: type[ExecutorLost] = ExecutorLost) -> None:
        """Tell who waits, if that has not been done."""
        if not self.answer.done():
            self.answer.set_exception(kind(why))


class WorkingProcess:
    """One process and the calls that it is at."""

    def __init__(self, on_end: Callable[[WorkingProcess], None], *bounds: int) -> None:
        """`bounds` (seconds of processor time per call, bytes of memory, niceness): one call at a time, within them."""
        self.calls: dict[int, Call] = {}
        self._bounds = bounds
        self._on_end = on_end
        self._numbers = itertools.count(1)
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start it. Raises `OSError` where no process can be had."""
        ours, theirs = socket.socketpair()
        # Nothing of our environment but what Python needs to start: no secret of the gateway's.
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        bounds = map(str, self._bounds)
        command = [sys.executable, "-m", "generation.images.working", str(theirs.fileno()), *bounds]
        with theirs, contextlib.ExitStack() as failed:
            failed.callback(ours.close)
            self.popen = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=environment
            )
            failed.pop_all()
        reader, self._writer = await asyncio.open_unix_connection(sock=ours)
        self._reading = asyncio.create_task(self._read(reader))

    def send(self, call: Call) -> None:
        """Give it a call."""
        number = next(self._numbers)
        self.calls[number], call.process = call, self
        # At once: each write that is sent wakes the process.
        self._writer.writelines((FRAME.pack(len(call.body), number), call.body))

    def kill(self) -> None:
        """End it now; the calls it is at are told by `on_end`."""
        self.popen.kill()

    async def stop(self) -> None:
        """Let it end by itself, for a while."""
        if self._reading is not None:
            await end_tasks([self._reading])
        self._writer.close()
        try:
            await asyncio.to_thread(self.popen.wait, CLOSE_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            await asyncio.to_thread(self.popen.wait)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                size, number = FRAME.unpack(await reader.readexactly(FRAME.size))
                if size > _FRAME_MAX:
                    break
                self._answer(number, await reader.readexactly(size))
        self.popen.kill()
        self._writer.close()
        await asyncio.to_thread(self.popen.wait)
        self._on_end(self)

    def _answer(self, number: int, body: bytes) -> None:
        call = self.calls.pop(number, None)
        if call is None or call.answer.done():
            return
        try:
            good, kind, value = _decode(body)
            found = msgspec.convert(value, VALUES[kind]) if good else FAULTS[kind](*value)
        except Exception as error:  # noqa: BLE001 - whatever an answer is, it concerns its call alone
            call.fail(f"the answer cannot be read: {error!r}")
            return
        if good:
            call.answer.set_result(found)
        else:
            call.answer.set_exception(found)


class ProcessExecutor:
    """An executor with a process of its own. One event loop; started with the first call.

    `work` and its arguments are pickled, so `work` is a function at the top of a module. When the process
    dies, each call that it was at is made once more, alone in a process, so that the one it died of is
    found and the others are done. Work must bear to be done twice.
    """

    def __init__(self, *, call_seconds_max: float = CALL_SECONDS_MAX) -> None:
        self._call_seconds_max = call_seconds_max
        self._process: WorkingProcess | None = None
        self._opening = asyncio.Lock()
        self._places = asyncio.Semaphore(THREADS)
        self._solo = asyncio.Semaphore(SOLO_MAX)
        self._suspects: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger("generation.executor")

    @property
    def pid(self) -> int | None:
        """The process that works now."""
        return None if self._process is None else self._process.popen.pid

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """See `Executor.run`. Raises `ExecutorLost`."""
        call = Call.of(work, arguments)
        async with (
            self._places
        ):  # as many as it does at a time: nobody's time runs out while waiting for others
            answer: T = await self._answered(call)
            return answer

    async def _answered(self, call: Call) -> Any:
        (await self._present()).send(call)
        try:
            async with asyncio.timeout(self._call_seconds_max):
                return await call.answer
        except TimeoutError:
            self._log.error("executor_call_too_long", seconds=self._call_seconds_max)
            if call.process is not None and call in call.process.calls.values():
                call.process.kill()  # whatever it is at, it does not end
            raise ExecutorLost("the work did not end in time") from None

    async def close(self) -> None:
        """See `Executor.close`. Calls under way are lost."""
        process, self._process = self._process, None
        await end_tasks(self._suspects)
        if process is not None:
            await process.stop()
            for call in process.calls.values():
                call.fail("the gateway is closing")

    async def _present(self) -> WorkingProcess:
        process = self._process
        if process is None:
            async with self._opening:
                if self._process is None:
                    process = WorkingProcess(self._ended)
                    await process.start()
                    self._process = process
                process = self._process
        return process

    def _ended(self, process: WorkingProcess) -> None:
        if self._process is process:
            self._process = None
        left = [call for call in process.calls.values() if not call.answer.done()]
        self._log.error("executor_process_lost", status=process.popen.returncode, calls=len(left))
        for call in left:
            call.process = None
            suspect = asyncio.create_task(self._alone(call))
            self._suspects.add(suspect)
            suspect.add_done_callback(self._suspects.discard)

    async def _alone(self, call: Call) -> None:
        try:
            async with self._solo:
                if call.answer.done():
                    return
                process = WorkingProcess(lambda _: call.fail("the process died of it", WorkKilled))
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
