"""What happened while our process was down is told by the chain and the cursor."""

from __future__ import annotations

from ledger.money import LBTC
from rails.contract import PieceState
from rails.liquid import cursor as cursors
from tests.rails.liquid.outside import Till


async def test_a_payment_made_while_down_is_found_however_long_ago(till: Till):
    instructions = await till.ask()
    await till.rail.close()
    till.pay(instructions)
    till.mine(30)
    till.rail = await till.world.start(till.references)
    assert (await till.piece(instructions)).state is PieceState.SETTLED


async def test_a_payment_to_an_address_that_was_opened_but_not_remembered_is_seen(till: Till):
    instructions = await till.ask()
    till.references = type(till.references)()
    await till.restart()
    till.pay(instructions)
    assert (await till.piece(instructions)).state is PieceState.SEEN


async def test_another_process_sees_payments_for_addresses_it_did_not_open(till: Till):
    other = await Till.open(till.world)
    try:
        await other.ask()
        instructions = await till.ask()
        instructions = await till.ask()
        till.pay(instructions)
        till.mine(2)
        assert (await other.piece(instructions)).state is PieceState.SETTLED
    finally:
        await other.rail.close()


async def test_a_payment_replaced_while_we_were_down_is_reversed_after_the_start(till: Till):
    instructions = await till.ask()
    txid = till.pay(instructions)
    cursor = await till.hint_about(instructions, None)
    seen = await till.piece(instructions)
    await till.rail.close()
    till.world.node.control("replace", txid=txid)
    till.mine(3)
    till.rail = await till.world.start(till.references)
    await till.hint_about(instructions, cursor)
    piece = await till.piece(instructions)
    assert (piece.money_ref, piece.amount, piece.state) == (seen.money_ref, seen.amount, PieceState.REVERSED)


async def test_a_settled_payment_reorganised_away_while_we_were_down_is_reversed(till: Till):
    instructions = await till.ask()
    till.pay(instructions)
    till.mine(3)
    settled = await till.piece(instructions)
    cursor = await till.hint_about(instructions, None)
    await till.rail.close()
    till.world.node.control("reorg", depth=3, drop=True)
    till.rail = await till.world.start(till.references)
    await till.hint_about(instructions, cursor)
    piece = await till.piece(instructions)
    assert (piece.money_ref, piece.amount, piece.state) == (
        settled.money_ref,
        settled.amount,
        PieceState.REVERSED,
    )


async def test_first_sight_survives_a_restart_with_the_cursor(till: Till):
    instructions = await till.ask()
    till.pay(instructions)
    before = await till.piece(instructions)
    cursor = await till.hint_about(instructions, None)
    await till.rail.close()
    till.mine(2)
    till.rail = await till.world.start(till.references)
    await till.hint_about(instructions, cursor)
    assert (await till.piece(instructions)).first_seen_at == before.first_seen_at


async def test_money_received_and_swept_while_we_were_down_is_found_from_the_cursor(till: Till):
    first = await till.ask()
    till.pay(first)
    cursor = await till.hint_about(first, None)
    instructions = await till.ask(minor=100_000, asset=LBTC)
    await till.rail.close()
    txid = till.pay(instructions)
    till.mine(2)
    till.world.sweep(txid)
    till.mine(20)
    till.rail = await till.world.start(till.references)
    assert await till.pieces(instructions) == []  # unspent money alone does not tell
    await till.hint_about(instructions, cursor)
    assert (await till.piece(instructions)).state is PieceState.SETTLED


async def test_money_swept_by_the_treasury_stays_settled(till: Till):
    instructions = await till.ask(minor=100_000, asset=LBTC)
    txid = till.pay(instructions)
    till.mine(2)
    settled = await till.piece(instructions)
    till.world.sweep(txid)
    till.mine(2)
    assert await till.piece(instructions) == settled


async def test_a_cursor_of_another_chain_starts_over(till: Till):
    instructions = await till.ask()
    till.pay(instructions)
    till.mine(2)
    lost = cursors.Cursor(height=10**6, block_hash="ab" * 32).text()
    await till.hint_about(instructions, lost)
    await till.hint_about(instructions, "not a cursor at all")
    assert (await till.piece(instructions)).state is PieceState.SETTLED


def test_a_cursor_is_read_as_it_was_written():
    cursor = cursors.Cursor(height=7, block_hash="cd" * 32)
    assert cursors.read(cursor.text()) == cursor
    assert cursors.read("{") is None
