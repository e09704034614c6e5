"""Frames of one session that come at the same time: one is taken in, and of the others only the newest waits."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generation.domain.errors import OutOfOrder
from generation.jobs.frames import FrameTurns


class Taking:
    """Frames that are taken in when a test says so."""

    def __init__(self) -> None:
        self.turns = FrameTurns()
        self.begun: list[int] = []
        self._done: dict[int, asyncio.Event] = {}

    async def frame(self, seq: int, session: str = "s") -> None:
        async with self.turns.turn(session, seq):
            self.begun.append(seq)
            await self._done.setdefault(seq, asyncio.Event()).wait()

    def send(self, seq: int, session: str = "s") -> asyncio.Task[None]:
        return asyncio.create_task(self.frame(seq, session))

    async def end(self, seq: int) -> None:
        self._done.setdefault(seq, asyncio.Event()).set()
        await settled()


async def settled() -> None:
    """Everything that could go on has."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
async def taking() -> Taking:
    return Taking()


async def test_only_the_newest_of_those_that_wait_is_taken_in(taking: Taking) -> None:
    first, second, third = taking.send(1), taking.send(2), taking.send(3)
    await settled()
    assert taking.begun == [1]
    with pytest.raises(OutOfOrder) as refused:
        await second
    assert refused.value.details == {"newest": 3}
    await taking.end(1)
    assert taking.begun == [1, 3]
    await taking.end(3)
    await asyncio.gather(first, third)


async def test_one_that_comes_behind_a_newer_one_that_waits_is_refused_at_once(taking: Taking) -> None:
    first, third = taking.send(1), taking.send(3)
    await settled()
    with pytest.raises(OutOfOrder):
        await taking.frame(2)
    await taking.end(1)
    await taking.end(3)
    await asyncio.gather(first, third)


async def test_sessions_do_not_wait_for_each_other(taking: Taking) -> None:
    one, other = taking.send(1), taking.send(2, "another")
    await settled()
    assert taking.begun == [1, 2]
    await taking.end(1)
    await taking.end(2)
    await asyncio.gather(one, other)


@pytest.mark.parametrize("at", ["while it waits", "at its turn"])
async def test_one_that_is_given_up_holds_up_nobody(taking: Taking, at: str) -> None:
    first, second = taking.send(1), taking.send(2)
    await settled()
    if at == "at its turn":
        taking._done[1].set()
        await asyncio.sleep(0)
    second.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await second
    await taking.end(1)
    await first
    third = taking.send(3)
    await settled()
    assert taking.begun[-1] == 3
    await taking.end(3)
    await third


async def test_one_that_fails_makes_room_and_nothing_is_kept(taking: Taking) -> None:
    with pytest.raises(RuntimeError):
        async with taking.turns.turn("s", 1):
            raise RuntimeError
    await taking.end(2)
    await taking.frame(2)
    assert taking.turns._sessions == {}


@given(
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["send", "end", "cancel", "go on"])), max_size=40)
)
def test_whatever_comes_and_goes_one_is_taken_in_at_a_time_and_the_newest_is_never_lost(
    steps: list[tuple[int, str]],
) -> None:
    asyncio.run(_lives(steps))


async def _lives(steps: list[tuple[int, str]]) -> None:
    turns, inside, sent = FrameTurns(), set[int](), dict[int, asyncio.Task[str]]()
    leave: dict[int, asyncio.Event] = {}

    async def frame(number: int, seq: int) -> str:
        try:
            async with turns.turn("s", seq):
                assert not inside
                inside.add(number)
                try:
                    await leave[number].wait()
                finally:
                    inside.discard(number)
        except OutOfOrder:
            return "refused"
        return "taken"

    for seq, step in steps:
        if step == "send":
            number = len(sent)
            leave[number] = asyncio.Event()
            sent[number] = asyncio.create_task(frame(number, seq))
        elif step == "end":
            for number in inside:
                leave[number].set()
        elif step == "cancel" and sent:
            sent[seq % len(sent)].cancel()
        elif step == "go on":
            await settled()
    for event in leave.values():
        event.set()
    ended = await asyncio.gather(*sent.values(), return_exceptions=True)
    assert not inside
    assert all(end in ("refused", "taken") or isinstance(end, asyncio.CancelledError) for end in ended)
    assert turns._sessions == {}
