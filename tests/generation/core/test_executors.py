"""Blocking work in threads, and in a process that may die without taking anybody along."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from generation.domain.errors import ObjectMissing
from generation.images.checking import Result, verify_result
from generation.images.executors import Executor, ExecutorLost, ProcessExecutor, ThreadExecutor
from generation.images.files import read_file, use_file
from tests.waiting import SECONDS_MAX


def double(data: bytes) -> bytes:
    return data + data


def who(_: int) -> int:
    return os.getpid()


def note_and_wait(folder: str) -> int:
    """Says that it is at work, and ends when it is told to."""
    Path(folder, f"started-{os.getpid()}").touch()
    until = time.monotonic() + 30
    while not Path(folder, "end").exists() and time.monotonic() < until:
        os.sched_yield()
    return os.getpid()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def environment() -> bytes:
    return "\n".join(os.environ).encode()


def a_path() -> Path:
    return Path("/")


def endless() -> None:
    while True:
        os.sched_yield()


@pytest.fixture
async def process_executor() -> AsyncIterator[ProcessExecutor]:
    executor = ProcessExecutor()
    yield executor
    await executor.close()


@pytest.fixture(params=["threads", "processes"])
async def executor(
    request: pytest.FixtureRequest, process_executor: ProcessExecutor
) -> AsyncIterator[Executor]:
    chosen: Executor = process_executor if request.param == "processes" else ThreadExecutor()
    yield chosen
    await chosen.close()


async def test_work_gives_back_what_it_returns(executor: Executor) -> None:
    assert await executor.run(double, b"ab") == b"abab"
    large = os.urandom(3_000_000)
    assert await executor.run(double, large) == large + large


async def test_many_calls_at_once_get_their_own_answers(executor: Executor) -> None:
    answers = await asyncio.gather(*(executor.run(double, str(n).encode()) for n in range(300)))
    assert answers == [str(n).encode() * 2 for n in range(300)]


async def test_what_work_raises_is_raised_here(executor: Executor, tmp_path: Path) -> None:
    with pytest.raises(ObjectMissing):
        await executor.run(read_file, str(tmp_path / "none"), 10)
    (tmp_path / "big").write_bytes(b"x" * 11)
    with pytest.raises(ValueError, match="larger"):
        await executor.run(read_file, str(tmp_path / "big"), 10)


async def test_pictures_are_verified_in_the_other_process(
    process_executor: ProcessExecutor, tmp_path: Path
) -> None:
    from functools import partial

    from tests.generation.core.test_images import digest, png

    data = png()
    (tmp_path / "picture").write_bytes(data)
    verify = partial(verify_result, sha256=digest(data))
    found = await process_executor.run(use_file, str(tmp_path / "picture"), 10**6, verify)
    assert isinstance(found, Result)
    assert found == verify_result(data, sha256=digest(data))
    assert await process_executor.run(who, 0) == process_executor.pid != os.getpid()


async def test_a_killed_process_does_its_work_again(
    process_executor: ProcessExecutor, tmp_path: Path
) -> None:
    calls = [asyncio.create_task(process_executor.run(note_and_wait, str(tmp_path))) for _ in range(5)]
    async with asyncio.timeout(SECONDS_MAX):
        while not list(tmp_path.iterdir()):
            await asyncio.sleep(0)
    first = process_executor.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    (tmp_path / "end").touch()
    answers = await asyncio.gather(*calls)
    assert first not in answers
    assert await process_executor.run(double, b"a") == b"aa"


async def test_work_that_kills_its_process_is_given_up_and_its_neighbours_are_done(
    process_executor: ProcessExecutor, tmp_path: Path
) -> None:
    neighbours = [asyncio.create_task(process_executor.run(note_and_wait, str(tmp_path))) for _ in range(3)]
    async with asyncio.timeout(SECONDS_MAX):
        while len(list(tmp_path.iterdir())) < 1:
            await asyncio.sleep(0)
    first = process_executor.pid
    killer = asyncio.create_task(process_executor.run(die))
    async with asyncio.timeout(SECONDS_MAX):
        while process_executor.pid == first:
            await asyncio.sleep(0)
    (tmp_path / "end").touch()
    await asyncio.wait([killer])
    assert isinstance(killer.exception(), ExecutorLost)
    assert all(await asyncio.gather(*neighbours))
    assert await process_executor.run(double, b"a") == b"aa"


async def test_an_answer_that_makes_no_sense_concerns_its_call_alone(
    process_executor: ProcessExecutor, tmp_path: Path
) -> None:
    call = asyncio.create_task(process_executor.run(note_and_wait, str(tmp_path)))
    async with asyncio.timeout(SECONDS_MAX):
        while not list(tmp_path.iterdir()):
            await asyncio.sleep(0)
    process = process_executor._process
    assert process is not None
    (number,) = process.calls
    process._answer(number, msgspec.msgpack.encode((False, "SystemExit", 5)))
    with pytest.raises(ExecutorLost):
        await call
    (tmp_path / "end").touch()
    assert await process_executor.run(double, b"a") == b"aa"


async def test_without_a_process_the_call_fails_and_the_next_one_tries_again(
    process_executor: ProcessExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise BlockingIOError("no more processes")

    with monkeypatch.context() as patched:
        patched.setattr("subprocess.Popen", refused)
        with pytest.raises(OSError, match="no more"):
            await process_executor.run(double, b"a")
    assert await process_executor.run(double, b"a") == b"aa"


async def test_closing_does_not_wait_for_work_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("generation.images.executors.CLOSE_SECONDS_MAX", 0.2)
    process_executor = ProcessExecutor()
    await process_executor.run(double, b"a")
    call = asyncio.create_task(process_executor.run(endless))
    await asyncio.sleep(0)
    process = process_executor._process
    assert process is not None
    await process_executor.close()
    assert process.popen.poll() is not None
    with pytest.raises(ExecutorLost):
        await call


async def test_work_that_does_not_end_is_given_up() -> None:
    process_executor = ProcessExecutor(call_seconds_max=3)
    with pytest.raises(ExecutorLost):
        await process_executor.run(endless)
    process_executor._call_seconds_max = SECONDS_MAX
    assert await process_executor.run(double, b"a") == b"aa"
    await process_executor.close()


async def test_an_answer_is_made_of_nothing_but_what_is_expected(process_executor: ProcessExecutor) -> None:
    with pytest.raises(ValueError, match="unsupported"):
        await process_executor.run(a_path)
    assert await process_executor.run(double, b"a") == b"aa"


async def test_the_process_does_not_know_our_secrets(
    process_executor: ProcessExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRIPE_SECRET_KEY", "sk_test_secret")
    assert b"STRIPE" not in await process_executor.run(environment)


async def test_the_process_ends_with_us_and_not_before(process_executor: ProcessExecutor) -> None:
    await process_executor.run(double, b"a")
    process = process_executor._process
    assert process is not None
    process.popen.send_signal(signal.SIGTERM)
    process.popen.send_signal(signal.SIGINT)
    assert await process_executor.run(double, b"a") == b"aa"
    await process_executor.close()
    assert process.popen.poll() == 0
