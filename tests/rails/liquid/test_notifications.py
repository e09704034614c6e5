"""What the rail tells by itself: the truth after a whole poll, with its time, so that nothing is asked again."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime

import pytest

from ledger.money import LBTC
from rails.contract import Instructions, Notification, Observation, RailUnavailable, ReceiptState
from rails.liquid.rail import LiquidRail
from tests.rails.liquid.outside import Till
from tests.rails.liquid.quiet import CountingChain
from tests.waiting import SECONDS_MAX

PAYMENTS = 40


def counting(till: Till) -> CountingChain:
    """Count what this till's rail asks of its node, from now on."""
    rail = till.rail
    assert isinstance(rail, LiquidRail)
    chain = CountingChain(rail._chain)
    rail._chain = rail._follower._chain = chain
    return chain


async def followed(till: Till, until: ReceiptState, *asked: Instructions) -> list[Notification]:
    """What is told until each of these has got so far."""
    found: list[Notification] = []
    waiting = {instructions.reference for instructions in asked}
    async with asyncio.timeout(SECONDS_MAX), aclosing(till.notifications(None)) as notifications:
        async for notification in notifications:
            found.append(notification)
            seen = notification.observation
            if seen is not None and seen.receipts and all(r.state is until for r in seen.receipts):
                waiting.discard(seen.reference)
            if not waiting:
                return found
    raise AssertionError("the rail stopped listening")


async def test_a_notification_brings_what_would_be_answered_and_says_of_when_it_is(till: Till):
    instructions = await till.ask()
    before = datetime.now(UTC)
    till.pay(instructions)
    till.mine(2)
    brought = (await followed(till, ReceiptState.SETTLED, instructions))[-1].observation
    assert brought is not None
    assert brought.as_of is not None
    answered = await till.rail.observe(instructions.reference)
    assert brought == answered
    assert answered.as_of is not None
    assert before <= brought.as_of <= answered.as_of


async def test_one_block_of_payments_is_told_by_a_handful_of_polls(till: Till):
    asked = [await till.ask(minor=1_000, asset=LBTC) for _ in range(PAYMENTS)]
    chain = counting(till)
    for instructions in asked:
        till.pay(instructions)
    till.mine(2)
    found = await followed(till, ReceiptState.SETTLED, *asked)
    assert {n.reference for n in found} == {instructions.reference for instructions in asked}
    assert all(n.observation is not None for n in found)
    # Each poll that finds news asks twice or three times; one for each payment would be dozens.
    assert chain.calls["pulse"] < PAYMENTS


async def test_half_a_reorganisation_is_told_to_nobody(till: Till):
    """A listener is woken when all has been read: in between, money in a block that was taken away is in none."""
    instructions = await till.ask()
    till.pay(instructions)
    till.mine(3)
    brought: list[Observation] = []
    async with asyncio.timeout(SECONDS_MAX), aclosing(till.notifications(None)) as notifications:
        async for notification in notifications:
            if notification.observation is not None and notification.observation.receipts:
                brought.append(notification.observation)
                break
        till.world.node.control("reorg", depth=2)
        till.mine(2)
        await till.rail.observe(instructions.reference)
        await asyncio.wait_for(anext(notifications), SECONDS_MAX)
    states = {receipt.state for seen in brought for receipt in seen.receipts}
    assert states == {ReceiptState.SETTLED}


async def test_what_a_poll_that_failed_had_found_is_told_by_the_next_whole_one(till: Till):
    instructions = await till.ask()
    rail = till.rail
    assert isinstance(rail, LiquidRail)
    subscription = rail._follower.subscribe()
    till.pay(instructions)
    await rail.observe(instructions.reference)
    first = await subscription.next(SECONDS_MAX)
    assert first is not None
    assert [r.state for r in first.receipts] == [ReceiptState.SEEN]
    whole = rail._follower._read_mempool

    async def torn(_: object) -> bool:
        raise RailUnavailable("the connection was lost")

    rail._follower._read_mempool = torn  # type: ignore[method-assign]
    till.mine(2)
    with pytest.raises(RailUnavailable):
        await rail.observe(instructions.reference)
    assert not len(subscription)
    rail._follower._read_mempool = whole  # type: ignore[method-assign]
    await rail.observe(instructions.reference)
    second = await subscription.next(SECONDS_MAX)
    assert second is not None
    assert [r.state for r in second.receipts] == [ReceiptState.SETTLED]
    subscription.close()
