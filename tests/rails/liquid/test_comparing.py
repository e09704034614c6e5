"""Two sources of the chain: money is final only where both agree."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from rails.contract import RailUnavailable, ReceiptState
from rails.liquid.chain import Block, ChainSource
from rails.liquid.comparing import ComparedChain
from rails.testing.memory_references import MemoryReferences
from tests.rails.liquid.outside import LiquidWorld, Till
from tests.rails.liquid.quiet import CountingChain
from tests.rails.liquid.test_sources import rail_on, source


class SecondChain(CountingChain):
    """The other source, as it might be."""

    def __init__(self, chain: ChainSource) -> None:
        super().__init__(chain)
        self.foreign = False
        """It has other blocks."""
        self.behind = 0
        self.without: str | None = None
        """It has not heard of this transaction."""
        self.down = False

    async def block_hash(self, height: int) -> str | None:
        self.calls["block_hash"] += 1
        if self.down:
            raise RailUnavailable("the second source cannot be reached")
        tip = (await self._chain.pulse()).height
        if height > tip - self.behind:
            return None
        return "ab" * 32 if self.foreign else await self._chain.block_hash(height)

    async def block(self, block_hash: str) -> Block | None:
        self.calls["block"] += 1
        found = await self._chain.block(block_hash)
        if found is None or self.without not in found.txids:
            return found
        return replace(found, txids=[txid for txid in found.txids if txid != self.without])


class Two:
    """A till on two sources."""

    def __init__(self, world: LiquidWorld, references: MemoryReferences | None = None) -> None:
        self.second = SecondChain(source("elementsd", world.node))
        chain = ComparedChain(source("elementsd", world.node), self.second, confirmations=2)
        references = references or MemoryReferences()
        self.till = Till(world, rail_on(chain, world, references), references)


@pytest.fixture
async def two(world: LiquidWorld) -> AsyncIterator[Two]:
    two = Two(world)
    yield two
    await two.till.rail.close()


async def test_where_both_agree_money_is_credited_and_reorganised_as_with_one(two: Two):
    till = two.till
    instructions = await till.ask()
    till.pay(instructions)
    assert (await till.receipt(instructions)).state is ReceiptState.SEEN
    till.mine(2)
    assert (await till.receipt(instructions)).state is ReceiptState.SETTLED
    till.world.node.control("reorg", depth=2)
    assert (await till.receipt(instructions)).state is ReceiptState.SEEN
    till.mine(2)
    assert (await till.receipt(instructions)).state is ReceiptState.SETTLED


async def test_a_payment_that_only_the_first_has_in_its_block_is_never_final(two: Two):
    """The first invents it: each block is whole by its own word."""
    till = two.till
    instructions = await till.ask()
    two.second.without = till.pay(instructions)
    till.mine()
    assert (await till.receipt(instructions)).state is ReceiptState.SEEN
    till.mine()
    for _ in range(2):  # and it stays so, however often it is asked
        with pytest.raises(RailUnavailable, match="what is in block"):
            await till.receipts(instructions)
    assert not (await till.rail.health()).ok
    with pytest.raises(RailUnavailable):
        await till.ask()


async def test_an_invented_payment_in_an_old_block_is_not_believed_after_a_restart(
    two: Two, world: LiquidWorld
):
    till = two.till
    instructions = await till.ask()
    two.second.without = till.pay(instructions)
    till.mine(5)
    again = Two(world, till.references)
    again.second.without = two.second.without
    with pytest.raises(RailUnavailable, match="what is in block"):
        await again.till.receipts(instructions)
    await again.till.rail.close()


@pytest.mark.parametrize(
    ("change", "word"),
    [({"foreign": True}, "disagree"), ({"behind": 2}, "does not have block"), ({"down": True}, "reached")],
)
async def test_without_the_seconds_word_nothing_is_judged(two: Two, change: dict[str, int | bool], word: str):
    till = two.till
    instructions = await till.ask()
    till.pay(instructions)
    vars(two.second).update(change)
    till.mine(2)
    with pytest.raises(RailUnavailable, match=word):
        await till.receipts(instructions)
    vars(two.second).update({"foreign": False, "behind": 0, "down": False})
    assert (await till.receipt(instructions)).state is ReceiptState.SETTLED


async def test_one_block_behind_is_early_enough_and_is_asked_once(two: Two):
    till = two.till
    two.second.behind = 1
    instructions = await till.ask()
    till.pay(instructions)
    till.mine(2)
    assert (await till.receipt(instructions)).state is ReceiptState.SETTLED
    before = two.second.calls.total()
    for _ in range(5):
        await till.receipts(instructions)
    assert two.second.calls.total() == before


async def test_nobody_tells_the_second_which_addresses_are_ours(two: Two):
    till = two.till
    instructions = await till.ask()
    till.pay(instructions)
    till.mine(2)
    await till.receipt(instructions)
    assert set(two.second.calls) <= {"block_hash", "block"}


async def test_elementsd_and_esplora_together_are_two_sources(world: LiquidWorld):
    references = MemoryReferences()
    chain = ComparedChain(source("elementsd", world.node), source("esplora", world.node), confirmations=2)
    till = Till(world, rail_on(chain, world, references), references)
    instructions = await till.ask()
    till.pay(instructions)
    till.mine(2)
    assert (await till.receipt(instructions)).state is ReceiptState.SETTLED
    await till.rail.close()
