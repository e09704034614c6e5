"""Tasks are ended whatever they do with a cancellation, and nobody waits for them for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import structlog

import ledger.cancelling
import worker.cancelling

End = Callable[..., Coroutine[Any, Any, bool]]


@pytest.fixture(params=[ledger.cancelling.end_tasks, worker.cancelling.end_tasks], ids=["ledger", "worker"])
def end_tasks(request: pytest.FixtureRequest) -> End:
    """Each of the two: a worker has none of the other packages."""
    found: End = request.param
    return found


class Stubborn:
    """Work that swallows some cancellations, as a client does that is just connecting."""

    def __init__(self, swallows: int) -> None:
        self.swallows = swallows
        self.cancelled = 0
        self.begun = asyncio.Event()

    async def work(self) -> None:
        while True:
            try:
                self.begun.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                if self.cancelled > self.swallows:
                    raise

    async def start(self, name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(self.work(), name=name)
        await self.begun.wait()
        return task


@pytest.mark.parametrize("swallows", [0, 1, 3])
async def test_a_task_that_swallows_cancellations_is_cancelled_until_it_ends(
    end_tasks: End, swallows: int
) -> None:
    stubborn, obedient = Stubborn(swallows), Stubborn(0)
    tasks = [await stubborn.start("stubborn"), await obedient.start("obedient")]
    assert await end_tasks(tasks, again_seconds=0.01)
    assert [task.cancelled() for task in tasks] == [True, True]
    assert (stubborn.cancelled, obedient.cancelled) == (swallows + 1, 1)


async def test_what_never_ends_is_named_in_the_log_and_waited_for_no_longer(end_tasks: End) -> None:
    stubborn = Stubborn(10**6)
    task = await stubborn.start("a client that is connecting")
    with structlog.testing.capture_logs() as lines:
        assert not await end_tasks([task], again_seconds=0.01, seconds_max=0.05)
    assert [(line["event"], line["tasks"]) for line in lines] == [
        ("tasks_not_ended", ["a client that is connecting"])
    ]
    stubborn.swallows = 0
    assert await end_tasks([task])


async def test_what_tasks_raise_is_passed_over_and_what_has_ended_is_left_alone(end_tasks: End) -> None:
    async def fail() -> None:
        raise ValueError("long ago")

    async def succeed() -> str:
        return "done"

    failed, done = asyncio.create_task(fail()), asyncio.create_task(succeed())
    await asyncio.wait({failed, done})
    assert await end_tasks([failed, done])
    assert done.result() == "done"
    assert await end_tasks([])


async def test_who_is_cancelled_while_waiting_leaves_no_task_behind_and_is_cancelled_then(
    end_tasks: End,
) -> None:
    stubborn = Stubborn(3)
    task = await stubborn.start("stubborn")
    ending = asyncio.create_task(end_tasks([task], again_seconds=0.02))
    while not stubborn.cancelled:
        await asyncio.sleep(0)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert task.cancelled()
