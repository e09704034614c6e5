"""Strangers' uploads: one at a time per process, within processor time and memory, by turns, and in a pool of their own."""

from __future__ import annotations

import asyncio
import fcntl
import os
import resource
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from generation.domain.errors import SketchRejected, TooManyUploads, UploadsBusy
from generation.images.checking import read_sketch
from generation.images.executors import ProcessExecutor
from generation.images.uploads import Turns, UploadProcesses
from tests.generation.core.test_executors import double, endless, who
from tests.hostile.pictures import PNG, drawing
from tests.waiting import SECONDS_MAX, eventually


def niceness(_sketch: bytes) -> int:
    return os.nice(0)


def greedy() -> int:
    return len(bytearray(4 << 30))


def write(path: str) -> None:
    Path(path).write_bytes(b"x" * 100_000)


def die_once(path: str) -> str:
    if not Path(path).exists():
        Path(path).mkdir()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def wait_for(path: str) -> str:
    """Returns as soon as nobody has locked the file."""
    with Path(path).open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
    return path


class Lock:
    """A locked file, for which work waits."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._file = path.open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def open(self) -> None:
        self._file.close()


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[Lock]:
    made = Lock(tmp_path / "lock")
    yield made
    made.open()


@pytest.fixture
async def uploads() -> AsyncIterator[UploadProcesses]:
    processes = UploadProcesses(2, cpu_seconds_max=1, waiting_each=3, waiting_max=5)
    yield processes
    await processes.close()


async def test_work_that_takes_too_much_processor_time_is_ended_by_the_kernel_and_refused(
    uploads: UploadProcesses,
) -> None:
    assert await uploads.run("net", double, b"ab") == b"abab"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with pytest.raises(SketchRejected) as refused:
        await uploads.run("net", endless)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert refused.value.code == "sketch_too_complex"
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert spent < 5, "one second, rounded up, once, and what starting a process takes"
    assert await uploads.run("net", double, b"ab") == b"abab"


async def test_each_call_has_its_own_processor_time(uploads: UploadProcesses) -> None:
    for _ in range(20):
        assert (await uploads.run("net", read_sketch, drawing("PNG", 64), PNG)).width == 1024


async def test_work_may_take_little_memory_and_write_nothing(
    uploads: UploadProcesses, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="MemoryError"):
        await uploads.run("net", greedy)
    with pytest.raises(OSError, match="large"):
        await uploads.run("net", write, str(tmp_path / "file"))


async def test_a_process_that_somebody_else_ended_does_not_cost_the_upload(
    uploads: UploadProcesses, tmp_path: Path
) -> None:
    assert await uploads.run("net", die_once, str(tmp_path / "died")) == "done"


async def test_work_that_ends_its_process_every_time_is_refused(uploads: UploadProcesses) -> None:
    from tests.generation.core.test_executors import die

    with pytest.raises(SketchRejected):
        await uploads.run("net", die)


async def test_one_network_has_one_place_and_the_next_one_does_not_wait_for_it(
    uploads: UploadProcesses, lock: Lock
) -> None:
    mine = [asyncio.create_task(uploads.run("mine", wait_for, lock.name)) for _ in range(4)]
    await asyncio.sleep(0)
    with pytest.raises(TooManyUploads):
        await uploads.run("mine", double, b"a")
    assert await uploads.run("other", double, b"ab") == b"abab"
    lock.open()
    assert await asyncio.gather(*mine) == [lock.name] * 4


async def test_waiting_is_bounded_for_all_together_and_is_not_counted_as_work(lock: Lock) -> None:
    uploads = UploadProcesses(1, waiting_max=2, call_seconds_max=SECONDS_MAX)
    first = [asyncio.create_task(uploads.run(name, wait_for, lock.name)) for name in "abc"]
    await asyncio.sleep(0)
    with pytest.raises(UploadsBusy):
        await uploads.run("d", double, b"a")
    lock.open()
    assert await asyncio.gather(*first) == [lock.name] * 3
    await uploads.close()


async def test_networks_take_turns_however_many_of_one_wait() -> None:
    turns = Turns(1, at_once=1, waiting_each=50, waiting_max=100)
    order: list[str] = []

    async def upload(network: str) -> None:
        async with turns.place(network):
            order.append(network)
            await asyncio.sleep(0)

    greedy_ones = [asyncio.create_task(upload("greedy")) for _ in range(20)]
    await asyncio.sleep(0)
    others = [asyncio.create_task(upload(name)) for name in ("a", "b", "c")]
    await asyncio.gather(*greedy_ones, *others)
    assert {"a", "b", "c"} <= set(order[:6])


async def test_large_uploads_leave_a_place_to_small_ones_also_of_their_own_network() -> None:
    turns = Turns(2, at_once=1, waiting_each=5, waiting_max=10)
    async with turns.place("photographs", large=True):
        waiting = [asyncio.create_task(turns.place(name, large=True).__aenter__()) for name in "ab"]
        await asyncio.sleep(0)
        for network in ("photographs", "c"):
            async with turns.place(network):
                assert not any(task.done() for task in waiting)
    await eventually(lambda: any(task.done() for task in waiting), "the next large one begins")
    for task in waiting:
        task.cancel()


async def test_after_a_large_upload_others_come_first_for_as_long_as_it_took() -> None:
    turns, loop = Turns(1, at_once=1, waiting_each=5, waiting_max=10), asyncio.get_running_loop()
    order: list[str] = []

    async def upload(network: str, *, large: bool) -> None:
        async with turns.place(network, large=large):
            order.append(network)
            await asyncio.wait([loop.create_future()], timeout=0.2)

    greedy_ones = [asyncio.create_task(upload("greedy", large=True)) for _ in range(2)]
    await eventually(lambda: order == ["greedy"], "the first one has begun")
    other = asyncio.create_task(upload("other", large=True))
    await asyncio.gather(*greedy_ones, other)
    assert order == ["greedy", "other", "greedy"]


async def test_who_reads_large_uploads_gives_way_to_who_answers_and_to_drawings(
    uploads: UploadProcesses,
) -> None:
    own = os.nice(0)
    small, large = [
        await uploads.run("net", niceness, sketch) for sketch in (b"drawing", b"photograph" * 20_000)
    ]
    assert own == small < large


async def test_who_stops_waiting_leaves_no_place_taken() -> None:
    turns = Turns(1, at_once=1, waiting_each=5, waiting_max=5)
    async with turns.place("a"):
        waiting = asyncio.create_task(turns.place("b").__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
    async with asyncio.timeout(SECONDS_MAX), turns.place("b"), asyncio.timeout(SECONDS_MAX):
        pass


async def test_results_are_read_while_uploads_take_all_they_may(uploads: UploadProcesses, lock: Lock) -> None:
    busy = [asyncio.create_task(uploads.run(name, wait_for, lock.name)) for name in "ab"]
    await eventually(lambda: len(uploads._all) == 2, "both processes are at work")
    results = ProcessExecutor()
    assert await results.run(who, 0) == results.pid
    lock.open()
    await asyncio.gather(*busy)
    await results.close()


async def test_time_spent_waiting_for_a_place_is_not_counted_against_a_call(
    monkeypatch: pytest.MonkeyPatch, lock: Lock
) -> None:
    monkeypatch.setattr("generation.images.executors.THREADS", 1)
    executor = ProcessExecutor(call_seconds_max=SECONDS_MAX)
    first = asyncio.create_task(executor.run(wait_for, lock.name))
    second = asyncio.create_task(executor.run(double, b"a"))
    await eventually(lambda: executor.pid is not None, "the process was started")
    process = executor._process
    assert process is not None
    await eventually(lambda: len(process.calls) == 1, "the first call was sent")
    assert not second.done()
    lock.open()
    assert (await first, await second) == (lock.name, b"aa")
    await executor.close()
