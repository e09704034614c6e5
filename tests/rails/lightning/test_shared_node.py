"""A node that others use too: their invoices are nothing to us, and our cursor goes on past them."""

from __future__ import annotations

import secrets

from rails.contract import Order
from rails.lightning.client import LndClient, NewInvoice
from tests.rails.lightning.node import SandboxNode
from tests.rails.lightning.test_listening import cursor_after_a_payment, listening


async def foreign(client: LndClient, memo: str, *, hold: bool = False) -> str:
    """An invoice of somebody else."""
    preimage = secrets.token_bytes(32)
    return await client.add_invoice(
        NewInvoice(
            memo=memo,
            value_msat=1_000,
            expiry_seconds=900,
            cltv_delta=80,
            private_hints=False,
            preimage=None if hold else preimage,
            payment_hash=secrets.token_bytes(32) if hold else None,
        )
    )


async def test_invoices_of_others_are_skipped_and_move_the_cursor(own_node: SandboxNode) -> None:
    rail, client = own_node.rail(), own_node.client()
    cursor = await cursor_after_a_payment(own_node, rail)
    for memo in ("coffee", "", "pay_me", "a donation", "order 7"):
        await own_node.pay(await foreign(client, memo))
    held = await foreign(client, "somebody's hold", hold=True)
    await own_node.pay(held)
    async with listening(rail, cursor) as ear:
        ours = await rail.open(own_node.order())
        await own_node.pay(ours.text or "")
        await ear.about(ours.reference)
        looked = [one.reference for one in ear.reported_by if one.look and one.reference is not None]
        assert looked == [ours.reference]
        while ear.cursor != "8:7":
            await ear.notification()
        assert any(not one.look for one in ear.reported_by)
    async with listening(rail, ear.cursor) as ear:
        await ear.connected()
        assert [one.reference for one in ear.reported_by if one.look] == [None]
    await rail.close()
    await client.close()


async def test_the_first_boot_on_a_node_with_a_past_looks_at_ours_alone(own_node: SandboxNode) -> None:
    rail, client = own_node.rail(), own_node.client()
    order: Order = own_node.order()
    for bolt11 in (await foreign(client, "coffee"), (await rail.open(order)).text or ""):
        await own_node.pay(bolt11)
    async with listening(rail) as ear:
        await ear.connected()
        references = {one.reference for one in ear.reported_by if one.look}
        assert references == {(await rail.open(order)).reference, None}
    await rail.close()
    await client.close()
