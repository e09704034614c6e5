"""What a payer can do on Liquid, and what the chain can do to a payment."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import lwk
import pytest

from ledger.money import LBTC, USDT, Asset, Money
from rails.contract import CountsBlocks, PaymentRequestStatus, ReceiptState
from rails.liquid.rail import UNREADABLE
from rails.liquid.sightings import MAX_OTHERS_PER_SCRIPT, Sighting, Sightings
from tests.rails.liquid.outside import Till


async def test_the_uri_names_amount_and_asset_and_another_wallet_can_read_it(till: Till):
    instructions = await till.ask(minor=12_50000000)
    asset_id = till.world.environ["LIQUID_USDT_ASSET"]
    assert instructions.uri == f"liquidtestnet:{instructions.text}?amount=12.5&assetid={asset_id}"
    assert instructions.details == {
        "address": instructions.text,
        "asset_id": asset_id,
        "asset": "USDT",
        "amount": "12.5",
        "confirmations_needed": "2",
    }
    read = lwk.Payment(instructions.uri)
    assert str(read.liquid_address() or instructions.text) == instructions.text


async def test_a_small_amount_of_lbtc_is_written_without_an_exponent(till: Till):
    instructions = await till.ask(minor=1_000, asset=LBTC)
    assert "amount=0.00001&" in str(instructions.uri)
    assert re.search(r"assetid=[0-9a-f]{64}$", str(instructions.uri))


async def test_a_payment_is_seen_at_once_and_settled_at_two_confirmations(till: Till):
    instructions = await till.ask()
    txid = till.pay(instructions)
    assert isinstance(till.rail, CountsBlocks)
    states, blocks = [], []
    for _ in range(3):
        receipt = await till.receipt(instructions)
        states.append(receipt.state)
        blocks.append(till.rail.confirmations(receipt.money_ref))
        till.mine()
    assert blocks == [0, 1, 2]
    assert till.rail.confirmations(f"liquid:{'0' * 64}:0") is None
    assert states == [ReceiptState.SEEN, ReceiptState.SEEN, ReceiptState.SETTLED]
    assert receipt.money_ref.startswith(f"liquid:{txid}:")
    assert receipt.amount == Money(5_00000000, USDT)


async def test_an_explicit_output_to_the_unconfidential_address_is_credited_too(till: Till):
    instructions = await till.ask()
    till.pay(instructions, unconfidential=True)
    till.mine(2)
    assert (await till.receipt(instructions)).amount == Money(5_00000000, USDT)
    assert (await till.receipt(instructions)).state is ReceiptState.SETTLED


async def test_lbtc_sent_where_usdt_was_asked_is_reported_as_lbtc(till: Till):
    instructions = await till.ask()
    till.pay(instructions, assetid=till.world.environ["LIQUID_LBTC_ASSET"], amount="0.0001")
    assert (await till.receipt(instructions)).amount == Money(10_000, LBTC)


async def test_an_unknown_asset_is_reported_under_its_id(till: Till):
    instructions = await till.ask()
    junk = till.world.foreign_asset
    till.pay(instructions, assetid=junk.code)
    assert (await till.receipt(instructions)).amount == Money(5_00000000, Asset(junk.code, 8))


async def test_a_range_proof_that_claims_usdt_over_a_junk_asset_is_worth_nothing(till: Till):
    instructions = await till.ask()
    till.pay(instructions, junk=True)
    till.mine(2)
    assert (await till.receipt(instructions)).amount == Money(0, UNREADABLE)


async def test_the_smallest_rest_of_a_payment_is_noticed(till: Till):
    instructions = await till.ask()
    till.pay(instructions, amount="4.99999901")
    till.pay(instructions, amount="0.00000099")
    till.mine(2)
    amounts = [receipt.amount.minor for receipt in await till.receipts(instructions)]
    assert sorted(amounts) == [99, 4_99999901]


def output(n: int, *, other: bool) -> Sighting:
    return Sighting(
        txid=f"{n:064x}",
        vout=0,
        script=b"s",
        content=None,
        first_seen_at=datetime(2026, 1, 1, tzinfo=UTC),
        other=other,
    )


def test_worthless_outputs_are_kept_up_to_a_bound_and_money_always():
    sightings = Sightings()
    kept = [sightings.add(output(n, other=True)) for n in range(MAX_OTHERS_PER_SCRIPT + 5)]
    assert kept == [True] * MAX_OTHERS_PER_SCRIPT + [False] * 5
    assert sightings.is_full(b"s")
    assert all(sightings.add(output(n, other=False)) for n in range(1_000, 1_300))
    assert not sightings.add(output(1_000, other=False)), "it is known"
    assert len(sightings.of_script(b"s")) == MAX_OTHERS_PER_SCRIPT + 300


async def test_money_that_comes_twice_and_late_is_two_receipts(till: Till):
    instructions = await till.ask()
    till.pay(instructions)
    till.mine(50)
    till.pay(instructions, amount="1")
    till.mine(2)
    receipts = await till.receipts(instructions)
    assert [receipt.amount.minor for receipt in receipts] == [5_00000000, 1_00000000]
    assert {receipt.state for receipt in receipts} == {ReceiptState.SETTLED}
    assert receipts[0].first_seen_at < receipts[1].first_seen_at
    assert (await till.rail.observe(instructions.reference)).status is PaymentRequestStatus.OPEN


async def test_a_replaced_payment_is_reversed(till: Till):
    instructions = await till.ask()
    txid = till.pay(instructions)
    assert (await till.receipt(instructions)).state is ReceiptState.SEEN
    till.world.node.control("replace", txid=txid)
    assert (await till.receipt(instructions)).state is ReceiptState.REVERSED
    till.mine(2)
    assert (await till.receipt(instructions)).state is ReceiptState.REVERSED


async def test_a_payment_replaced_by_a_dearer_one_to_us_counts_once(till: Till):
    instructions = await till.ask()
    first = till.pay(instructions)
    await till.receipts(instructions)
    till.world.node.control("replace", txid=first)
    till.pay(instructions)
    till.mine(2)
    receipts = await till.receipts(instructions)
    assert sorted(receipt.state for receipt in receipts) == [ReceiptState.REVERSED, ReceiptState.SETTLED]


async def test_a_reorganised_payment_waits_again_and_settles_under_the_same_name(till: Till):
    instructions = await till.ask()
    till.pay(instructions)
    till.mine(2)
    settled = await till.receipt(instructions)
    till.world.node.control("reorg", depth=2)
    waiting = await till.receipt(instructions)
    assert (waiting.money_ref, waiting.state) == (settled.money_ref, ReceiptState.SEEN)
    till.mine(2)
    assert await till.receipt(instructions) == settled


async def test_a_shallow_reorganisation_takes_back_depth_only(till: Till):
    instructions = await till.ask()
    till.pay(instructions)
    till.mine(3)
    settled = await till.receipt(instructions)
    till.world.node.control("reorg", depth=2)
    assert await till.receipt(instructions) == settled


async def test_a_double_spend_by_reorganisation_is_reversed(till: Till):
    instructions = await till.ask()
    till.pay(instructions)
    till.mine(2)
    settled = await till.receipt(instructions)
    assert settled.state is ReceiptState.SETTLED
    till.world.node.control("reorg", depth=2, drop=True)
    reversed_ = await till.receipt(instructions)
    assert (reversed_.money_ref, reversed_.state) == (settled.money_ref, ReceiptState.REVERSED)


async def test_a_reorganisation_deeper_than_remembered_is_survived(till: Till):
    instructions = await till.ask()
    till.pay(instructions)
    till.mine(20)
    settled = await till.receipt(instructions)
    await till.restart()
    assert (await till.receipt(instructions)).state is ReceiptState.SETTLED
    till.world.node.control("reorg", depth=25)
    till.mine(2)
    await till.notification_about(instructions, None)
    receipt = await till.receipt(instructions)
    assert (receipt.money_ref, receipt.state) == (settled.money_ref, ReceiptState.SETTLED)


@pytest.mark.parametrize("fault", [{"error_500": 3}, {"drop": 3}])
async def test_a_node_that_fails_for_a_while_loses_no_payment(till: Till, fault: dict[str, int]):
    instructions = await till.ask()
    till.world.node.control("faults", **fault)
    till.pay(instructions)
    await till.notification_about(instructions, None)
    assert (await till.receipt(instructions)).state is ReceiptState.SEEN
