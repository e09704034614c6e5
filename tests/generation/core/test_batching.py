"""Questions that are asked together, and what becomes of one that nobody waits for any more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence

from generation.store.batching import Batcher, answered


class Slow:
    """Answers when it is let."""

    def __init__(self) -> None:
        self.asked: list[Sequence[str]] = []
        self.let = asyncio.Event()
        self.done = 0

    async def load(self, keys: Sequence[str]) -> Mapping[str, int]:
        self.asked.append(list(keys))
        await self.let.wait()
        self.done += 1
        return {key: len(key) for key in keys}


async def test_who_asks_while_an_answer_is_on_its_way_shares_the_next() -> None:
    slow = Slow()
    batcher = Batcher(slow.load)
    first = asyncio.create_task(batcher.get("a"))
    while not slow.asked:
        await asyncio.sleep(0)
    others = [asyncio.create_task(batcher.get(key)) for key in ("bb", "ccc", "bb")]
    await asyncio.sleep(0)
    slow.let.set()
    assert [await first, *[await other for other in others]] == [1, 2, 3, 2]
    assert slow.asked == [["a"], ["bb", "ccc"]]


async def test_a_question_that_all_have_given_up_is_waited_for_before_what_it_asks_is_closed() -> None:
    slow = Slow()
    batcher = Batcher(slow.load)
    asker = asyncio.create_task(batcher.get("a"))
    while not slow.asked:
        await asyncio.sleep(0)
    asker.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asker
    closing = asyncio.create_task(answered())
    for _ in range(3):
        await asyncio.sleep(0)
    assert not closing.done()
    slow.let.set()
    await closing
    assert slow.done == 1


async def test_with_nothing_asked_there_is_nothing_to_wait_for() -> None:
    await answered()
