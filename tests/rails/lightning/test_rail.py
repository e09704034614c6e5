"""The rail against the stand-in node's process, over real gRPC."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from datetime import timedelta

import bolt11
import pytest
from structlog.testing import capture_logs

from ledger.money import BTC, USD, Money
from rails.contract import (
    Expiry,
    Holds,
    PaymentRequestStatus,
    Rail,
    RailProtocolError,
    RailUnavailable,
    ReceiptState,
    Refunds,
)
from rails.lightning.credentials import Preimages, read_preimage_key
from rails.lightning.rail import LightningRail
from tests.rails.lightning.node import Refused, SandboxNode


def state(observation: object) -> list[ReceiptState]:
    return [receipt.state for receipt in observation.receipts]  # type: ignore[attr-defined]


def test_the_rail_has_the_powers_it_says(node: SandboxNode, rail: LightningRail) -> None:
    as_rail: Rail = rail
    assert isinstance(as_rail, Expiry)
    assert isinstance(as_rail, Holds)
    assert not isinstance(as_rail, Refunds)
    assert isinstance(node.refunding_rail(), Refunds)


async def test_the_invoice_says_what_was_ordered(node: SandboxNode, rail: LightningRail) -> None:
    order = node.order(msat=1_234_567)
    instructions = await rail.open(order)
    invoice = bolt11.decode(instructions.text or "")
    assert invoice.amount_msat == 1_234_567
    assert invoice.payment_hash == instructions.reference
    assert invoice.description == f"500 images ({order.payment_id})"
    assert 898 <= invoice.expiry <= 900
    assert invoice.is_regtest()
    assert not invoice.route_hints
    assert instructions.kind == "invoice"
    assert instructions.uri == f"LIGHTNING:{(instructions.text or '').upper()}"
    assert instructions.details == {
        "bolt11": instructions.text,
        "payment_hash": instructions.reference,
        "lightning_uri": f"lightning:{instructions.text}",
    }


async def test_private_channels_are_told_when_wanted(node: SandboxNode) -> None:
    await node.faults(private_channel=True)
    rail = node.rail(private_hints=True)
    invoice = bolt11.decode((await rail.open(node.order())).text or "")
    assert len(invoice.route_hints or []) == 1
    await rail.close()


async def test_a_very_long_description_still_fits(node: SandboxNode, rail: LightningRail) -> None:
    order = replace(node.order(), description="🦙" * 400)
    invoice = bolt11.decode((await rail.open(order)).text or "")
    assert (invoice.description or "").endswith(f"({order.payment_id})")


async def test_an_order_in_dollars_is_a_mistake(node: SandboxNode, rail: LightningRail) -> None:
    with pytest.raises(ValueError, match="USD"):
        await rail.open(replace(node.order(), amount_due=Money(500, USD)))


async def test_a_payment_settles_at_once_to_the_millisatoshi(node: SandboxNode, rail: LightningRail) -> None:
    instructions = await rail.open(node.order(msat=21_000_001))
    answer = await node.pay(instructions.text or "")
    assert answer["state"] == "paid"
    assert answer["payment_hash"] == instructions.reference
    observation = await rail.observe(instructions.reference)
    assert observation.status is PaymentRequestStatus.CLOSED
    (receipt,) = observation.receipts
    assert receipt.money_ref == f"ln:{instructions.reference}"
    assert receipt.amount == Money(21_000_001, BTC)
    assert receipt.state is ReceiptState.SETTLED
    assert receipt.external_ref == instructions.reference


async def test_the_payers_receipt_is_the_preimage(node: SandboxNode, rail: LightningRail) -> None:
    instructions = await rail.open(node.order())
    answer = await node.pay(instructions.text or "")
    assert hashlib.sha256(bytes.fromhex(answer["preimage"])).hexdigest() == instructions.reference


async def test_an_overpayment_counts_in_full(node: SandboxNode, rail: LightningRail) -> None:
    instructions = await rail.open(node.order(msat=10_000))
    await node.pay(instructions.text or "", amount_msat=25_000)
    assert (await rail.observe(instructions.reference)).receipts[0].amount.minor == 25_000


async def test_an_underpayment_is_refused_by_the_node(node: SandboxNode, rail: LightningRail) -> None:
    instructions = await rail.open(node.order(msat=10_000))
    with pytest.raises(Refused, match="incorrect_or_unknown_payment_details"):
        await node.pay(instructions.text or "", amount_msat=9_999)
    observation = await rail.observe(instructions.reference)
    assert (observation.status, list(observation.receipts)) == (PaymentRequestStatus.OPEN, [])


async def test_an_invoice_without_amount_takes_what_comes(node: SandboxNode, rail: LightningRail) -> None:
    instructions = await rail.open(node.order(msat=0))
    await node.pay(instructions.text or "", amount_msat=777)
    assert (await rail.observe(instructions.reference)).receipts[0].amount.minor == 777


async def test_a_payment_in_parts_is_one_receipt(node: SandboxNode, rail: LightningRail) -> None:
    instructions = await rail.open(node.order(msat=100_001))
    await node.pay(instructions.text or "", parts=7)
    (receipt,) = (await rail.observe(instructions.reference)).receipts
    assert (receipt.amount.minor, receipt.state) == (100_001, ReceiptState.SETTLED)


async def test_parts_that_never_make_the_whole_go_back(node: SandboxNode, rail: LightningRail) -> None:
    instructions = await rail.open(node.order(msat=100_000))
    answer = await node.pay(instructions.text or "", parts=4, send_parts=3)
    assert answer["state"] == "in_flight"
    assert not (await rail.observe(instructions.reference)).receipts
    await node.advance(timedelta(seconds=121))
    assert not (await rail.observe(instructions.reference)).receipts
    await node.pay(instructions.text or "", parts=2)
    (receipt,) = (await rail.observe(instructions.reference)).receipts
    assert (receipt.amount.minor, receipt.state) == (100_000, ReceiptState.SETTLED)


async def test_an_expired_invoice_cannot_be_paid(node: SandboxNode, rail: LightningRail) -> None:
    instructions = await rail.open(node.order(seconds=60))
    await node.advance(timedelta(seconds=61))
    observation = await rail.observe(instructions.reference)
    assert (observation.status, list(observation.receipts)) == (PaymentRequestStatus.EXPIRED, [])
    with pytest.raises(Refused, match="expired"):
        await node.pay(instructions.text or "")
    with pytest.raises(Refused, match="refused"):
        await node.pay(instructions.text or "", even_if_expired=True)
    assert not (await rail.observe(instructions.reference)).receipts


async def test_an_invoice_is_paid_once(node: SandboxNode, rail: LightningRail) -> None:
    instructions = await rail.open(node.order())
    await node.pay(instructions.text or "")
    with pytest.raises(Refused):
        await node.pay(instructions.text or "")


async def test_opening_again_gives_the_same_invoice_also_after_it_is_paid(
    node: SandboxNode, rail: LightningRail
) -> None:
    order = node.order()
    first = await rail.open(order)
    await node.pay(first.text or "")
    assert await rail.open(order) == first


async def test_the_same_payment_with_another_amount_is_refused(
    node: SandboxNode, rail: LightningRail
) -> None:
    order = node.order(msat=5_000)
    await rail.open(order)
    with pytest.raises(RailProtocolError, match="another order"):
        await rail.open(replace(order, amount_due=Money(6_000, BTC)))


async def test_an_answer_lost_after_commit_does_not_make_a_second_invoice(node: SandboxNode) -> None:
    rail, order = node.rail(), node.order()
    await node.lose_next_answer("AddInvoice")
    with pytest.raises(RailUnavailable):
        await rail.open(order)
    instructions = await rail.open(order)
    await node.pay(instructions.text or "")
    assert state(await rail.observe(instructions.reference)) == [ReceiptState.SETTLED]
    await rail.close()


async def test_an_unknown_reference_is_said(rail: LightningRail) -> None:
    with pytest.raises(RailProtocolError, match="unable to locate invoice"):
        await rail.observe("00" * 32)
    with pytest.raises(RailProtocolError, match="64 hex digits"):
        await rail.observe("no hash")


# --- holds -------------------------------------------------------------------------------------


async def test_a_hold_is_held_then_captured(node: SandboxNode, rail: LightningRail) -> None:
    instructions = await rail.open(node.order(hold=True))
    assert (await node.pay(instructions.text or "", parts=3))["state"] == "held"
    held = await rail.observe(instructions.reference)
    assert state(held) == [ReceiptState.HELD]
    assert held.receipts[0].amount.minor == 1_000_000
    captured = await rail.capture(instructions.reference)
    assert state(captured) == [ReceiptState.SETTLED]
    assert captured.receipts[0].first_seen_at == held.receipts[0].first_seen_at


async def test_a_hold_is_captured_by_a_process_that_did_not_open_it(
    node: SandboxNode, rail: LightningRail
) -> None:
    instructions = await rail.open(node.order(hold=True))
    await node.pay(instructions.text or "")
    other = node.rail()
    assert state(await other.capture(instructions.reference)) == [ReceiptState.SETTLED]
    await other.close()


async def test_a_released_hold_goes_back(node: SandboxNode, rail: LightningRail) -> None:
    instructions = await rail.open(node.order(hold=True))
    await node.pay(instructions.text or "")
    released = await rail.release(instructions.reference)
    assert state(released) == [ReceiptState.RETURNED]
    assert released.status is PaymentRequestStatus.EXPIRED
    assert await rail.capture(instructions.reference) == released


async def test_a_captured_hold_cannot_be_released(node: SandboxNode, rail: LightningRail) -> None:
    instructions = await rail.open(node.order(hold=True))
    await node.pay(instructions.text or "")
    captured = await rail.capture(instructions.reference)
    assert await rail.release(instructions.reference) == captured


async def test_cancelling_leaves_held_money_held(node: SandboxNode, rail: LightningRail) -> None:
    instructions = await rail.open(node.order(hold=True))
    await node.pay(instructions.text or "")
    assert state(await rail.cancel(instructions.reference)) == [ReceiptState.HELD]


async def test_an_unpaid_hold_is_not_captured(node: SandboxNode, rail: LightningRail) -> None:
    instructions = await rail.open(node.order(hold=True))
    observation = await rail.capture(instructions.reference)
    assert (observation.status, list(observation.receipts)) == (PaymentRequestStatus.OPEN, [])


async def test_a_hold_outlives_the_expiry_of_its_invoice(node: SandboxNode, rail: LightningRail) -> None:
    instructions = await rail.open(node.order(hold=True, seconds=60))
    await node.pay(instructions.text or "")
    await node.advance(timedelta(seconds=3600))
    assert state(await rail.observe(instructions.reference)) == [ReceiptState.HELD]
    assert state(await rail.capture(instructions.reference)) == [ReceiptState.SETTLED]


async def test_the_node_gives_a_hold_back_eighteen_blocks_before_its_end(
    node: SandboxNode, rail: LightningRail
) -> None:
    instructions = await rail.open(node.order(hold=True))
    await node.pay(instructions.text or "")
    await node.post("/sandbox/blocks", count=61)
    assert state(await rail.observe(instructions.reference)) == [ReceiptState.HELD]
    await node.post("/sandbox/blocks", count=1)
    assert state(await rail.observe(instructions.reference)) == [ReceiptState.RETURNED]
    assert state(await rail.capture(instructions.reference)) == [ReceiptState.RETURNED]


async def test_a_settlement_without_money_is_not_settled(node: SandboxNode, rail: LightningRail) -> None:
    instructions = await rail.open(node.order(hold=True))
    await node.pay(instructions.text or "")
    await node.faults(settle_without_money=1)
    assert state(await rail.capture(instructions.reference)) == [ReceiptState.RETURNED]


async def test_an_answer_lost_while_capturing_is_resolved_by_asking_again(node: SandboxNode) -> None:
    rail = node.rail()
    instructions = await rail.open(node.order(hold=True))
    await node.pay(instructions.text or "")
    await node.lose_next_answer("SettleInvoice")
    with pytest.raises(RailUnavailable):
        await rail.capture(instructions.reference)
    assert state(await rail.observe(instructions.reference)) == [ReceiptState.SETTLED]
    assert state(await rail.capture(instructions.reference)) == [ReceiptState.SETTLED]
    await rail.close()


async def test_a_hold_of_another_key_is_not_ours_to_capture(node: SandboxNode, rail: LightningRail) -> None:
    instructions = await rail.open(node.order(hold=True))
    await node.pay(instructions.text or "")
    stranger = node.rail()
    stranger._preimages = Preimages(b"x" * 32)
    with pytest.raises(RailProtocolError, match="LIGHTNING_PREIMAGE_KEY"):
        await stranger.capture(instructions.reference)
    assert state(await rail.capture(instructions.reference)) == [ReceiptState.SETTLED]
    await stranger.close()


# --- the node's health -------------------------------------------------------------------------


@pytest.mark.parametrize("wallet_state", ["LOCKED", "UNLOCKED", "WAITING_TO_START", "NON_EXISTING"])
async def test_a_node_that_is_not_ready_says_so(
    node: SandboxNode, rail: LightningRail, wallet_state: str
) -> None:
    instructions = await rail.open(node.order())
    await node.faults(wallet_state=wallet_state)
    health = await rail.health()
    assert not health.ok
    assert wallet_state in health.detail
    with pytest.raises(RailUnavailable):
        await rail.observe(instructions.reference)
    with pytest.raises(RailUnavailable):
        await rail.open(node.order())


async def test_a_node_that_is_starting_takes_no_new_payments_and_says_what_it_knows(
    node: SandboxNode, rail: LightningRail
) -> None:
    instructions = await rail.open(node.order())
    await node.faults(wallet_state="RPC_ACTIVE")
    health = await rail.health()
    assert not health.ok
    assert "RPC_ACTIVE" in health.detail
    assert (await rail.observe(instructions.reference)).status is PaymentRequestStatus.OPEN


async def test_a_node_behind_the_chain_takes_no_new_payments(node: SandboxNode, rail: LightningRail) -> None:
    await node.faults(synced=False)
    health = await rail.health()
    assert (health.ok, health.detail) == (False, "the Lightning node is catching up with the chain")


async def test_production_refuses_a_regtest_node(node: SandboxNode) -> None:
    rail = node.rail(production=True)
    health = await rail.health()
    assert not health.ok
    assert "regtest" in health.detail
    with pytest.raises(RailUnavailable, match="regtest"):
        await rail.open(node.order())
    await rail.close()


async def test_production_takes_a_mainnet_node(node: SandboxNode) -> None:
    await node.faults(network="mainnet")
    rail = node.rail(production=True)
    assert (await rail.health()).ok
    await rail.close()


async def test_a_node_replaced_by_another_network_closes_the_rail(node: SandboxNode) -> None:
    await node.faults(network="mainnet")
    rail = node.rail(production=True)
    await rail.open(node.order())
    await node.faults(network="testnet")
    assert not (await rail.health()).ok
    with pytest.raises(RailUnavailable, match="testnet"):
        await rail.open(node.order())
    await rail.close()


async def test_nothing_secret_is_logged(node: SandboxNode) -> None:
    with capture_logs() as logs:
        rail = node.rail()
        order = node.order(hold=True)
        instructions = await rail.open(order)
        preimage = Preimages(read_preimage_key(node.folder / "preimage.key", create=False)).of(
            order.payment_id
        )
        notifications = rail.listen(None)
        await anext(notifications)
        await node.faults(wallet_state="LOCKED")
        assert not (await rail.health()).ok
        await node.faults(wallet_state="SERVER_ACTIVE")
        await node.pay(instructions.text or "")
        await rail.capture(instructions.reference)
        await rail.release(instructions.reference)
        await notifications.aclose()  # type: ignore[attr-defined]
        await rail.close()
    macaroon = (node.folder / "invoices.macaroon").read_bytes().hex()
    assert logs
    for secret in (preimage.hex(), repr(preimage), macaroon, "lnbcrt"):
        assert secret not in repr(logs)


async def test_many_invoices_at_once_are_all_different(node: SandboxNode, rail: LightningRail) -> None:
    opened = await asyncio.gather(*(rail.open(node.order()) for _ in range(50)))
    assert len({instructions.reference for instructions in opened}) == 50
