"""What happened while our process was down is told by the chain and the cursor."""

from __future__ import annotations

from ledger.money import LBTC
from rails.contract import ReceiptState
from rails.liquid import cursor as cursors
from tests.rails.liquid.outside import Till


async def test_a_payment_made_while_down_is_found_however_long_ago(till: Till):
    instructions = await till.ask()
    await till.rail.close()
    till.pay(instructions)
    till.mine(30)
    till.rail = await till.world.start(till.references)
    assert (await till.receipt(instructions)).state is ReceiptState.SETTLED


async def test_a_payment_to_an_address_that_was_opened_but_not_remembered_is_seen(till: Till):
    instructions = await till.ask()
    till.references = type(till.references)()
    await till.restart()
    till.pay(instructions)
    assert (await till.receipt(instructions)).state is ReceiptState.SEEN


async def test_another_process_sees_payments_for_addresses_it_did_not_open(till: Till):
    other = await Till.open(till.world)
    try:
        await other.ask()
        instructions = await till.ask()
        instructions = await till.ask()
        till.pay(instructions)
        till.mine(2)
        assert (await other.receipt(instructions)).state is ReceiptState.SETTLED
    finally:
        await other.rail.close()


async def test_a_payment_replaced_while_we_were_down_is_reversed_after_the_start(till: Till):
    instructions = await till.ask()
    txid = till.pay(instructions)
    cursor = await till.notification_about(instructions, None)
    seen = await till.receipt(instructions)
    await till.rail.close()
    till.world.node.control("replace", txid=txid)
    till.mine(3)
    till.rail = await till.world.start(till.references)
    await till.notification_about(instructions, cursor)
    receipt = await till.receipt(instructions)
    assert (receipt.money_ref, receipt.amount, receipt.state) == (
        seen.money_ref,
        seen.amount,
        ReceiptState.REVERSED,
    )


async def test_a_settled_payment_reorganised_away_while_we_were_down_is_reversed(till: Till):
    instructions = await till.ask()
    till.pay(instructions)
    till.mine(3)
    settled = await till.receipt(instructions)
    cursor = await till.notification_about(instructions, None)
    await till.rail.close()
    till.world.node.control("reorg", depth=3, drop=True)
    till.rail = await till.world.start(till.references)
    await till.notification_about(instructions, cursor)
    receipt = await till.receipt(instructions)
    assert (receipt.money_ref, receipt.amount, receipt.state) == (
        settled.money_ref,
        settled.amount,
        ReceiptState.REVERSED,
    )


async def test_first_sight_survives_a_restart_with_the_cursor(till: Till):
    instructions = await till.ask()
    till.pay(instructions)
    before = await till.receipt(instructions)
    cursor = await till.notification_about(instructions, None)
    await till.rail.close()
    till.mine(2)
    till.rail = await till.world.start(till.references)
    await till.notification_about(instructions, cursor)
    assert (await till.receipt(instructions)).first_seen_at == before.first_seen_at


async def test_money_received_and_swept_while_we_were_down_is_found_from_the_cursor(till: Till):
    first = await till.ask()
    till.pay(first)
    cursor = await till.notification_about(first, None)
    instructions = await till.ask(minor=100_000, asset=LBTC)
    await till.rail.close()
    txid = till.pay(instructions)
    till.mine(2)
    till.world.sweep(txid)
    till.mine(20)
    till.rail = await till.world.start(till.references)
    assert await till.receipts(instructions) == []  # unspent money alone does not tell
    await till.notification_about(instructions, cursor)
    assert (await till.receipt(instructions)).state is ReceiptState.SETTLED


async def test_money_swept_by_the_treasury_stays_settled(till: Till):
    instructions = await till.ask(minor=100_000, asset=LBTC)
    txid = till.pay(instructions)
    till.mine(2)
    settled = await till.receipt(instructions)
    till.world.sweep(txid)
    till.mine(2)
    assert await till.receipt(instructions) == settled


async def test_a_cursor_whose_block_is_unknown_starts_over(till: Till):
    instructions = await till.ask()
    till.pay(instructions)
    till.mine(2)
    lost = cursors.Cursor(height=5, block_hash="ab" * 32).text()
    await till.notification_about(instructions, lost)
    await till.notification_about(instructions, "not a cursor at all")
    assert (await till.receipt(instructions)).state is ReceiptState.SETTLED


def test_a_cursor_is_read_as_it_was_written():
    cursor = cursors.Cursor(height=7, block_hash="cd" * 32)
    assert cursors.read(cursor.text()) == cursor
    assert cursors.read("{") is None
