"""How long a rail's listener waits before it connects again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import ClassVar

from ledger.followups.backoff import Backoff
from rails.contract import Notification, RailUnavailable
from rails.testing.fake_rail import FakeRail
from tests.rails.core.platform import RULES, Platform, runner_of
from tests.waiting import SECONDS_MAX, eventually


class CountedWaits(Backoff):
    """No wait at all, but it is known which was asked for."""

    asked: ClassVar[list[int]] = []

    def wait(self, attempts: int, randomness: random.Random) -> timedelta:
        self.asked.append(attempts)
        return timedelta(0)


class FragileRail(FakeRail):
    """A rail whose connection breaks a few times in a row, says something, and breaks again."""

    breaks = 0

    async def listen(self, cursor: str | None) -> AsyncIterator[Notification]:
        self.breaks += 1
        if self.breaks == 4:
            yield Notification(reference=None)
        if self.breaks == 6:
            await asyncio.Event().wait()
        raise RailUnavailable("connection lost")


async def test_the_wait_for_a_new_connection_grows_until_something_is_heard(platform: Platform) -> None:
    CountedWaits.asked.clear()
    rail = platform.rails["fake"] = FragileRail(platform.network)
    listening = asyncio.create_task(runner_of(platform, replace(RULES, backoff=CountedWaits())).listen())
    await eventually(lambda: rail.breaks == 6, "it broke for the last time")
    listening.cancel()
    await asyncio.wait([listening], timeout=SECONDS_MAX)
    assert CountedWaits.asked == [1, 2, 3, 1, 2]
