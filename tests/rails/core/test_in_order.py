"""Notifications are dealt with side by side, and the cursor passes none that is not done."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest

from rails.contract import Notification
from rails.payments.in_order import InOrder
from tests.waiting import SECONDS_MAX, eventually


class Desk:
    """Deals with a notification once its gate is open."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.cursors: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.faults: list[Exception] = []
        self.order = InOrder(self.deal, self.keep, at_once=3)

    async def deal(self, notification: Notification) -> None:
        assert notification.reference is not None
        self.begun.append(notification.reference)
        await self.gates.setdefault(notification.reference, asyncio.Event()).wait()

    async def keep(self, cursor: str) -> None:
        if self.faults:
            raise self.faults.pop()
        self.cursors.append(cursor)

    async def take(self, name: str, cursor: str | None = None) -> None:
        await self.order.take(Notification(reference=name, cursor=cursor))

    def open(self, *names: str) -> None:
        for name in names:
            self.gates.setdefault(name, asyncio.Event()).set()


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk()
    yield desk
    await desk.order.end()


async def test_one_that_takes_long_holds_up_none_of_the_others(desk: Desk) -> None:
    for name in "abc":
        await desk.take(name, name)
    await eventually(lambda: len(desk.begun) == 3, "what was waited for")
    desk.open("b", "c")
    fourth = asyncio.create_task(desk.take("d", "d"))
    await eventually(lambda: "d" in desk.begun, "what was waited for")
    await fourth
    assert desk.cursors == []


async def test_the_cursor_passes_none_that_is_not_done(desk: Desk) -> None:
    for name in "abc":
        await desk.take(name, name)
    desk.open("b")
    await asyncio.wait_for(desk.take("d"), SECONDS_MAX)
    assert desk.cursors == []
    desk.open("a")
    await eventually(lambda: desk.cursors == ["b"], "what was waited for")
    desk.open("c", "d")
    await eventually(lambda: desk.cursors == ["b", "c"], "what was waited for")


async def test_in_whatever_order_they_end_the_cursor_goes_only_forward() -> None:
    for ends in itertools.permutations("abc"):
        desk = Desk()
        for name in "abc":
            await desk.take(name, name)
        for count, name in enumerate(ends, 1):
            desk.open(name)
            done = set(ends[:count])
            prefix = list(itertools.takewhile(lambda one, done=done: one in done, "abc"))
            await eventually(
                lambda desk=desk, prefix=prefix: desk.cursors[-1:] == prefix[-1:], "what was waited for"
            )
        assert desk.cursors == sorted(desk.cursors)
        await desk.order.end()


async def test_no_more_are_dealt_with_at_once_than_may(desk: Desk) -> None:
    for name in "abc":
        await desk.take(name)
    waiting = asyncio.create_task(desk.take("d"))
    await eventually(lambda: len(desk.begun) == 3, "what was waited for")
    assert not waiting.done()
    desk.open("a")
    await asyncio.wait_for(waiting, SECONDS_MAX)


async def test_a_cursor_that_cannot_be_kept_is_told_with_the_next(desk: Desk) -> None:
    desk.faults.append(OSError("the database is away"))
    desk.open("a")
    await desk.take("a", "1")
    await eventually(lambda: not desk.faults, "what was waited for")
    with pytest.raises(OSError, match="away"):
        await desk.take("b", "2")
    desk.open("b")
    await desk.take("b", "2")
    await eventually(lambda: desk.cursors == ["2"], "what was waited for")


async def test_what_is_under_way_at_the_end_is_given_up(desk: Desk) -> None:
    await desk.take("a", "1")
    await eventually(lambda: desk.begun == ["a"], "what was waited for")
    await desk.order.end()
    desk.open("a")
    assert desk.cursors == []
