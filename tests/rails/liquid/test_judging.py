"""A source that knows less than before is an outage: nobody's money is judged by it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from ledger.money import USDT, Money
from rails.contract import RailUnavailable, ReceiptState
from rails.liquid import cursor as cursors
from rails.liquid.chain import Pulse
from rails.liquid.judging import KnownChain
from rails.liquid.networks import LIQUID, LIQUID_REGTEST
from rails.liquid.rail import UNREADABLE
from rails.testing.memory_references import MemoryReferences
from tests.rails.liquid.outside import LiquidWorld, Till
from tests.rails.liquid.quiet import CountingChain, SlowScanChain
from tests.rails.liquid.test_sources import rail_on, source
from tests.waiting import until

PULSE = Pulse(tip="ab" * 32, height=100, mempool=frozenset(), chain="liquidv1")


@pytest.fixture(autouse=True)
def healthy_afterwards(world: LiquidWorld) -> Iterator[None]:
    yield
    world.node.control("catch-up")
    world.node.control("state")
    world.node.control("faults")


async def refused(till: Till, reference: str, why: str) -> None:
    """Nothing is judged, nothing is handed out, and health says the reason."""
    with pytest.raises(RailUnavailable, match=why):
        await till.rail.observe(reference)
    with pytest.raises(RailUnavailable, match=why):
        await till.ask()
    health = await till.rail.health()
    assert not health.ok
    assert why in health.detail
    assert why in till.rail.following().fault


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "started anew"])
async def test_a_node_that_is_behind_takes_nothing_away(till: Till, restarted: bool):
    instructions = await till.ask()
    till.pay(instructions)
    till.mine(3)
    settled = await till.receipts(instructions)
    cursor = await till.notification_about(instructions, None)
    assert cursor is not None
    till.references.keep_cursor("liquid", cursor)
    till.world.node.control("rewind", depth=4)
    if restarted:
        await till.restart()
    await refused(till, instructions.reference, "it is behind")
    till.world.node.control("catch-up")
    assert await till.receipts(instructions) == settled
    assert (await till.rail.health()).ok


async def test_a_node_that_is_syncing_judges_nothing(till: Till):
    instructions = await till.ask()
    till.pay(instructions)
    till.mine(2)
    till.world.node.control("state", syncing=True)
    await refused(till, instructions.reference, "catching up with the network")
    till.world.node.control("state")
    assert (await till.receipt(instructions)).state is ReceiptState.SETTLED


async def test_a_branch_as_long_as_ours_takes_away_what_it_does_not_hold(till: Till):
    instructions = await till.ask()
    till.pay(instructions)
    till.mine(2)
    assert (await till.receipt(instructions)).state is ReceiptState.SETTLED
    till.world.node.control("rewind", depth=2)
    till.mine(2)
    assert (await till.receipt(instructions)).state is ReceiptState.REVERSED


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "started anew"])
async def test_nothing_is_called_gone_while_the_node_reads_its_mempool(till: Till, restarted: bool):
    instructions = await till.ask()
    till.pay(instructions)
    seen = await till.receipts(instructions)
    cursor = await till.notification_about(instructions, None)
    assert cursor is not None
    till.references.keep_cursor("liquid", cursor)
    till.world.node.control("state", mempool_loading=True)
    if restarted:
        await till.restart()
        await refused(till, instructions.reference, "still reading what waited")
    else:
        till.mine(1, empty=True)
        assert await till.receipts(instructions) == seen
    till.world.node.control("state")
    await until(till.rail.health, lambda health: health.ok, "the rail is open again")
    assert [receipt.state for receipt in await till.receipts(instructions)] == [ReceiptState.SEEN]


async def test_what_was_replaced_while_the_mempool_was_read_is_gone_afterwards(till: Till):
    instructions = await till.ask()
    txid = till.pay(instructions)
    assert (await till.receipt(instructions)).state is ReceiptState.SEEN
    till.world.node.control("state", mempool_loading=True)
    till.world.node.control("replace", txid=txid)
    assert (await till.receipt(instructions)).state is ReceiptState.SEEN
    till.world.node.control("state")
    assert (await till.receipt(instructions)).state is ReceiptState.REVERSED


@pytest.mark.parametrize("fault", [{"warming_up": True}, {"busy": 1_000_000}], ids=["starting", "busy"])
async def test_a_node_that_answers_nothing_yet_judges_nothing(till: Till, fault: dict[str, int]):
    instructions = await till.ask()
    till.pay(instructions)
    till.mine(2)
    settled = await till.receipts(instructions)
    till.world.node.control("faults", **fault)
    await refused(till, instructions.reference, "elementsd")
    till.world.node.control("faults")
    assert await till.receipts(instructions) == settled


class ForeignChain(CountingChain):
    """A longer chain of another network answers at the same address."""

    foreign = False

    async def pulse(self) -> Pulse:
        pulse: Pulse = await self._chain.pulse()
        return replace(pulse, tip="cd" * 32, height=pulse.height + 9) if self.foreign else pulse

    async def block_hash(self, height: int) -> str | None:
        return "cd" * 32 if self.foreign else await self._chain.block_hash(height)


async def test_another_chain_at_the_same_address_takes_nothing_away(world: LiquidWorld):
    chain, references = ForeignChain(source("elementsd", world.node)), MemoryReferences()
    till = Till(world, rail_on(chain, world, references), references)
    instructions = await till.ask()
    till.pay(instructions)
    till.mine(2)
    settled = await till.receipts(instructions)
    chain.foreign = True
    await refused(till, instructions.reference, "another chain")
    chain.foreign = False
    assert await till.receipts(instructions) == settled
    await till.rail.close()


async def test_the_first_block_is_remembered_over_a_restart(till: Till):
    await till.ask()
    instructions = await till.ask()
    till.pay(instructions)
    cursor = cursors.read(await till.notification_about(instructions, None) or "")
    assert cursor is not None
    assert cursor.genesis == till.world.node.call("getblockhash", 0)
    known = KnownChain(LIQUID_REGTEST)
    known.expect(cursor.height, "ef" * 32)
    chain = source("elementsd", till.world.node)
    with pytest.raises(RailUnavailable, match="another chain"):
        await known.check_genesis(chain)
    await chain.close()


def test_a_chain_is_known_by_its_name_its_first_block_and_its_height():
    known = KnownChain(LIQUID)
    known.judge(PULSE)
    known.expect(100, "ab" * 32)
    known.judge(PULSE)
    assert known.genesis == LIQUID.genesis, "what a cursor says does not count where the network is known"
    for pulse, why in [
        (replace(PULSE, chain="liquidtestnet"), "not on liquidv1"),
        (replace(PULSE, syncing=True), "catching up"),
        (replace(PULSE, height=99), "99 blocks, and there were 100"),
    ]:
        with pytest.raises(RailUnavailable, match=why):
            known.judge(pulse)


async def test_with_a_cursor_a_start_does_not_wait_for_what_was_paid_long_ago(till: Till):
    world, references = till.world, till.references
    old = [await till.ask() for _ in range(3)]
    for instructions in old:
        till.pay(instructions)
    till.mine(20)
    recent = await till.ask()
    till.pay(recent)
    till.mine(2)
    cursor = await till.notification_about(recent, None)
    assert cursor is not None
    references.keep_cursor("liquid", cursor)

    chain = SlowScanChain(source("elementsd", world.node))
    started = Till(world, rail_on(chain, world, references), references)
    assert (await started.receipt(recent)).state is ReceiptState.SETTLED
    assert [await started.receipts(instructions) for instructions in old] == [[], [], []]
    before = chain.calls["block"]
    chain.found.set()
    for instructions in old:
        found = await until(lambda one=instructions: started.receipts(one), bool, "old money is read, too")
        assert [receipt.state for receipt in found] == [ReceiptState.SETTLED]
    assert chain.calls["block"] == before + 1, "they are in one block, which is read once"
    await started.rail.close()


async def test_a_first_start_reads_all_that_is_unspent_before_it_answers(world: LiquidWorld):
    references = MemoryReferences()
    till = Till(world, rail_on(source("elementsd", world.node), world, references), references)
    instructions = await till.ask()
    till.pay(instructions)
    till.mine(20)
    await till.rail.close()
    assert await references.cursor("liquid") is None
    chain = CountingChain(source("elementsd", world.node))
    started = Till(world, rail_on(chain, world, references), references)
    assert (await started.receipt(instructions)).state is ReceiptState.SETTLED
    assert chain.calls["unspent"] == 1
    await started.rail.close()


async def test_money_in_a_block_that_the_node_does_not_keep_is_for_somebody_to_look_at(till: Till):
    credited, unknown = await till.ask(), await till.ask()
    till.pay(credited)
    till.mine(2)
    assert (await till.receipt(credited)).amount == Money(5_00000000, USDT)
    await till.rail.close()
    till.pay(unknown)
    till.mine(20)
    till.world.node.control("state", pruned_below=till.world.node.call("getblockcount") - 14)
    till.rail = await till.world.start(till.references)
    receipt = await till.receipt(unknown)
    assert (receipt.amount, receipt.state) == (Money(0, UNREADABLE), ReceiptState.SETTLED)
    assert (await till.rail.health()).ok


async def test_a_block_since_the_cursor_that_is_missing_closes_the_rail_and_is_named(till: Till):
    instructions = await till.ask()
    till.pay(instructions)
    till.mine(2)
    cursor = await till.notification_about(instructions, None)
    assert cursor is not None
    till.references.keep_cursor("liquid", cursor)
    height = till.world.node.call("getblockcount")
    till.mine(20)
    till.world.node.control("state", pruned_below=height + 5)
    await till.restart()
    await refused(till, instructions.reference, "cannot be read: the node may have pruned it")
    till.world.node.control("state")
    await until(till.rail.health, lambda health: health.ok, "the rail is open again")
    assert (await till.receipt(instructions)).state is ReceiptState.SETTLED
