"""No payer is given an address that holds somebody's money."""

from __future__ import annotations

import asyncio

import pytest

from ledger.money import LBTC
from rails.contract import ReceiptState
from rails.testing.memory_references import MemoryReferences
from tests.rails.liquid.outside import LiquidWorld, Till
from tests.rails.liquid.quiet import SlowScanChain
from tests.rails.liquid.test_sources import rail_on, source
from tests.waiting import eventually, until


async def backup_restored(till: Till) -> None:
    """The database knows nothing of the payments so far."""
    till.references = MemoryReferences()
    await till.restart()


async def test_a_restored_backup_gives_no_paid_address_to_a_second_payer(till: Till):
    paid, waiting = await till.ask(), await till.ask()
    till.pay(paid)
    till.mine(2)
    await backup_restored(till)
    first = await till.ask()
    assert await till.receipts(first) == []
    till.pay(first)
    assert (await till.receipt(first)).state is ReceiptState.SEEN
    second = await till.ask()
    assert second.reference == waiting.reference, "nobody has paid it: nothing shows that it was given out"
    till.mine(2)
    await till.restart()
    assert (await till.receipt(first)).state is ReceiptState.SETTLED


async def test_money_that_waits_or_was_swept_before_our_eyes_keeps_an_address_too(till: Till):
    swept, waiting = await till.ask(minor=50_000, asset=LBTC), await till.ask()
    txid = till.pay(swept)
    till.mine(2)
    assert (await till.receipt(swept)).state is ReceiptState.SETTLED
    till.world.sweep(txid)
    till.pay(waiting)
    till.references = MemoryReferences()
    asked = [await till.ask(minor=50_000, asset=LBTC), await till.ask()]
    assert {one.reference for one in asked}.isdisjoint({swept.reference, waiting.reference})
    assert [await till.receipts(one) for one in asked] == [[], []]


async def test_the_next_addresses_are_given_out_once_it_is_known_what_they_hold(world: LiquidWorld):
    before = await Till.open(world)
    paid = await before.ask()
    before.pay(paid)
    before.mine(2)
    references = MemoryReferences()
    references.keep_cursor("liquid", await before.notification_about(paid, None) or "")
    await before.rail.close()
    chain = SlowScanChain(source("elementsd", world.node))
    till = Till(world, rail_on(chain, world, references), references)
    try:
        asking = asyncio.create_task(till.ask())
        await eventually(lambda: chain.calls["unspent"] > 0, "the rail looks for money")
        assert not asking.done()
        chain.found.set()
        assert (await asking).reference != paid.reference
    finally:
        await till.rail.close()


@pytest.mark.parametrize("kind", ["elementsd", "esplora"])
async def test_either_source_tells_of_an_address_that_was_paid(kind: str, world: LiquidWorld):
    references = MemoryReferences()
    till = Till(world, rail_on(source(kind, world.node), world, references), references)
    try:
        paid = await till.ask()
        till.pay(paid)
        till.mine(2)
        await till.rail.close()
        till.references = MemoryReferences()
        till.rail = rail_on(source(kind, world.node), world, till.references)
        await until(till.rail.health, lambda health: health.ok, "the chain was read")
        assert (await till.ask()).reference != paid.reference
    finally:
        await till.rail.close()
