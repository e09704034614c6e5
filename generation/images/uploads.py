"""Strangers' uploads are read here: one at a time per process, within bounds that the kernel holds, in turn.

Each network has its turn, however many uploads another one has waiting, so that whoever sends the most costly files
waits for himself. Large ones leave a place to small ones, so that a drawing does not wait behind photographs, even those
of a neighbour at the same address. Time spent waiting is nobody's: only the work itself is bounded in time.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol, TypeAlias, TypeVar

import structlog

from generation.domain.errors import TooManyUploads, UploadsBusy
from generation.images.checking import too_complex
from generation.images.executors import CALL_SECONDS_MAX, Call, ExecutorLost, WorkingProcess, WorkKilled

T = TypeVar("T")

PROCESSES = 2
AT_ONCE_PER_NETWORK = 1
WAITING_PER_NETWORK = 16
WAITING_MAX = 256
CPU_SECONDS_MAX = 3
"""Of one upload. The largest honest ones take half a second."""
MEMORY_BYTES_MAX = 1 << 30
SMALL_BYTES_MAX = 131_072
"""What a drawing in the browser has, and some room."""
PAUSE_SECONDS_MAX = 5.0
"""Between two large uploads of one network."""
NICENESS_SMALL, NICENESS_LARGE = 0, 15
"""Answering, and the drawings of people who wait, come before photographs."""


class Uploads(Protocol):
    """Reads what strangers sent."""

    async def run(self, network: str, work: Callable[..., T], *arguments: Any) -> T:
        """What `work(*arguments)` returns or raises, in this network's turn.

        Raises `TooManyUploads`, `UploadsBusy`; `SketchRejected` for work that takes too much; `ExecutorLost`.
        """


Queue: TypeAlias = tuple[str, bool]
"""A network, and whether what it sent is large."""


class Turns:
    """A few places, given to those who wait by turns: one network after the other, small and large apart."""

    def __init__(self, places: int, *, at_once: int, waiting_each: int, waiting_max: int) -> None:
        self._free = places
        self._free_large = max(1, places - 1)
        self._at_once = at_once
        self._waiting_each = waiting_each
        self._waiting_max = waiting_max
        self._busy: Counter[Queue] = Counter()
        self._waiting: OrderedDict[Queue, deque[asyncio.Future[None]]] = OrderedDict()

    @contextlib.asynccontextmanager
    async def place(self, network: str, *, large: bool = False) -> AsyncIterator[None]:
        """Have a place. Raises `TooManyUploads`, `UploadsBusy` at once where too many wait already."""
        queue, loop = (network, large), asyncio.get_running_loop()
        await self._take(queue)
        began = loop.time()
        try:
            yield
        finally:
            self._leave(queue)
            if large:  # its network's next one waits as long again: half of a processor is left to everybody
                loop.call_later(min(loop.time() - began, PAUSE_SECONDS_MAX), self._end_turn, queue)
            else:
                self._end_turn(queue)

    async def _take(self, queue: Queue) -> None:
        if self._may_begin(queue):
            self._grant(queue)
            return
        waiting = self._waiting.get(queue, deque())
        if len(waiting) >= self._waiting_each:
            raise TooManyUploads
        if sum(map(len, self._waiting.values())) >= self._waiting_max:
            raise UploadsBusy
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(queue, waiting).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave(queue)
                self._end_turn(queue)
            else:
                self._forget(queue, turn)
            raise

    def _may_begin(self, queue: Queue) -> bool:
        free = min(self._free, self._free_large) if queue[1] else self._free
        return free > 0 and self._busy[queue] < self._at_once

    def _grant(self, queue: Queue) -> None:
        self._free -= 1
        self._free_large -= queue[1]
        self._busy[queue] += 1

    def _leave(self, queue: Queue) -> None:
        self._free += 1
        self._free_large += queue[1]
        self._go_on()

    def _end_turn(self, queue: Queue) -> None:
        self._busy[queue] -= 1
        self._busy += Counter()  # forget those that have nothing under way
        self._go_on()

    def _go_on(self) -> None:
        for waiting in list(self._waiting):
            if self._may_begin(waiting):
                turn = self._waiting[waiting].popleft()
                self._waiting.move_to_end(waiting)
                self._drop_empty(waiting)
                self._grant(waiting)
                turn.set_result(None)

    def _forget(self, queue: Queue, turn: asyncio.Future[None]) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._waiting[queue].remove(turn)
            self._drop_empty(queue)

    def _drop_empty(self, queue: Queue) -> None:
        if not self._waiting[queue]:
            del self._waiting[queue]


class UploadProcesses:
    """Uploads read in a few processes, each of which is at one of them and may be ended by it."""

    def __init__(
        self,
        processes: int = PROCESSES,
        *,
        at_once: int = AT_ONCE_PER_NETWORK,
        waiting_each: int = WAITING_PER_NETWORK,
        waiting_max: int = WAITING_MAX,
        cpu_seconds_max: int = CPU_SECONDS_MAX,
        call_seconds_max: float = CALL_SECONDS_MAX,
        small_bytes_max: int = SMALL_BYTES_MAX,
    ) -> None:
        self._small_bytes_max = small_bytes_max
        self._turns = Turns(processes, at_once=at_once, waiting_each=waiting_each, waiting_max=waiting_max)
        self._bounds = (cpu_seconds_max, MEMORY_BYTES_MAX)
        self._call_seconds_max = call_seconds_max
        self._idle: dict[bool, list[WorkingProcess]] = {False: [], True: []}
        """Of small ones and of large ones: a process that was made nicer stays so."""
        self._all: set[WorkingProcess] = set()
        self._log = structlog.get_logger("generation.images.uploads")

    async def warm(self) -> None:
        """Have a process ready for the first upload. Raises `OSError` where none can be had."""
        self._rest(await self._started(large=False), large=False)

    async def run(self, network: str, work: Callable[..., T], *arguments: Any) -> T:
        """See `Uploads.run`."""
        large = sum(len(part) for part in arguments if isinstance(part, bytes)) > self._small_bytes_max
        async with self._turns.place(network, large=large):
            try:
                return await self._once(work, arguments, large=large)
            except WorkKilled:
                # Somebody else may have ended the process; work that did it will do it again.
                try:
                    return await self._once(work, arguments, large=large)
                except WorkKilled as error:
                    raise too_complex() from error

    async def _once(self, work: Callable[..., T], arguments: tuple[Any, ...], *, large: bool) -> T:
        call = Call.of(work, arguments)
        idle = self._idle[large]
        process = idle.pop() if idle else await self._started(large=large)
        process.send(call)
        try:
            async with asyncio.timeout(self._call_seconds_max):
                answer: T = await call.answer
        except BaseException as error:
            if call in process.calls.values():  # it is still at it, and nobody waits any more
                process.kill()
            else:
                self._rest(process, large=large)
            if isinstance(error, TimeoutError):
                self._log.error("upload_too_long", seconds=self._call_seconds_max)
                raise ExecutorLost("the work did not end in time") from None
            raise
        self._rest(process, large=large)
        return answer

    async def _started(self, *, large: bool) -> WorkingProcess:
        niceness = NICENESS_LARGE if large else NICENESS_SMALL
        process = WorkingProcess(self._ended, *self._bounds, niceness)
        await process.start()
        self._all.add(process)
        return process

    def _rest(self, process: WorkingProcess, *, large: bool) -> None:
        if process in self._all:
            self._idle[large].append(process)

    def _ended(self, process: WorkingProcess) -> None:
        self._all.discard(process)
        for idle in self._idle.values():
            if process in idle:
                idle.remove(process)
        status = process.popen.returncode
        self._log.warning("upload_process_lost", status=status)
        for call in process.calls.values():
            if status == -signal.SIGXCPU:
                call.refuse(too_complex())
            else:
                call.fail("the process died of it", WorkKilled)

    async def close(self) -> None:
        """Let go of the processes. Calls under way are lost."""
        for process in tuple(self._all):
            await process.stop()
            for call in process.calls.values():
                call.fail("the gateway is closing")
        self._all.clear()
        for idle in self._idle.values():
            idle.clear()
