"""Notifications survive everything that a node can do to a listener."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from rails.contract import Notification, RailProtocolError, ReceiptState
from rails.lightning.rail import LightningRail
from tests.rails.lightning.node import SandboxNode
from tests.waiting import SECONDS_MAX


class Ear:
    """Listens and remembers."""

    def __init__(self, notifications: AsyncGenerator[Notification, None]) -> None:
        self._notifications = notifications
        self.reported_by: list[Notification] = []
        self.cursor: str | None = None

    async def notification(self) -> Notification:
        """The next notification."""
        async with asyncio.timeout(SECONDS_MAX):
            notification = await anext(self._notifications)
        self.reported_by.append(notification)
        self.cursor = notification.cursor or self.cursor
        return notification

    async def about(self, reference: str) -> Notification:
        """Listen until there is a notification about just this reference."""
        while (notification := await self.notification()).reference != reference:
            pass
        return notification

    async def connected(self) -> None:
        """Listen until the rail says "look at everything": it does when it has (re)connected."""
        while (await self.notification()).reference is not None:
            pass


@asynccontextmanager
async def listening(rail: LightningRail, cursor: str | None = None) -> AsyncIterator[Ear]:
    notifications = rail.listen(cursor)
    assert isinstance(notifications, AsyncGenerator)
    try:
        yield Ear(notifications)
    finally:
        await notifications.aclose()


async def cursor_after_a_payment(node: SandboxNode, rail: LightningRail) -> str:
    """A cursor with a backlog on both sides."""
    paid = await rail.open(node.order())
    await node.pay(paid.text or "")
    async with listening(rail) as ear:
        await ear.about(paid.reference)
        while ear.cursor is None or ear.cursor.endswith(":0"):
            await ear.notification()
        return ear.cursor


async def test_a_payment_is_notified_with_a_cursor(node: SandboxNode, rail: LightningRail) -> None:
    async with listening(rail, await cursor_after_a_payment(node, rail)) as ear:
        await ear.connected()
        instructions = await rail.open(node.order())
        await node.pay(instructions.text or "")
        notification = await ear.about(instructions.reference)
        assert notification.cursor is not None
        add_index, settle_index = notification.cursor.split(":")
        assert int(add_index) > 0
        assert int(settle_index) > 0


async def test_the_first_boot_finds_what_was_paid_before(own_node: SandboxNode) -> None:
    rail = own_node.rail()
    paid = [await rail.open(own_node.order()) for _ in range(3)]
    for instructions in paid:
        await own_node.pay(instructions.text or "")
    wanted = {instructions.reference for instructions in paid}
    async with listening(rail) as ear:
        while not wanted <= {notification.reference for notification in ear.reported_by}:
            await ear.notification()
        await ear.connected()
        assert ear.cursor == "3:3"
    await rail.close()


async def test_the_very_first_payment_of_a_node_is_notified(own_node: SandboxNode) -> None:
    rail = own_node.rail()
    async with listening(rail) as ear:
        await ear.connected()
        instructions = await rail.open(own_node.order())
        await own_node.pay(instructions.text or "")
        await ear.about(instructions.reference)
    await rail.close()


async def test_what_was_paid_while_we_were_down_is_found(node: SandboxNode, rail: LightningRail) -> None:
    cursor = await cursor_after_a_payment(node, rail)
    late = [await rail.open(node.order()) for _ in range(3)]
    for instructions in late:
        await node.pay(instructions.text or "")
    async with listening(rail, cursor) as ear:
        for instructions in late:
            if instructions.reference not in {notification.reference for notification in ear.reported_by}:
                await ear.about(instructions.reference)


async def test_what_was_paid_in_another_order_while_we_were_down_is_found(
    node: SandboxNode, rail: LightningRail
) -> None:
    known = await rail.open(node.order())
    cursor = await cursor_after_a_payment(node, rail)
    fresh = await rail.open(node.order())
    await node.pay(fresh.text or "")
    await node.pay(known.text or "")
    async with listening(rail, cursor) as ear:
        first = await ear.about(fresh.reference)
    async with listening(rail, first.cursor) as ear:  # we died right after the first notification
        await ear.about(known.reference)


async def test_a_node_killed_and_started_again_is_heard_within_a_second(
    own_node: SandboxNode,
) -> None:
    rail = own_node.rail()
    cursor = await cursor_after_a_payment(own_node, rail)
    async with listening(rail, cursor) as ear:
        await ear.connected()
        loop = asyncio.get_running_loop()
        taken: list[float] = []
        while not taken or (
            min(taken) >= 1.5 and len(taken) < 5
        ):  # the machine may stall, but not every time
            instructions = await rail.open(own_node.order())
            await own_node.restart()
            back_at = loop.time()
            await own_node.pay(instructions.text or "")
            await ear.about(instructions.reference)
            taken.append(loop.time() - back_at)
        assert min(taken) < 1.5
    await rail.close()


async def test_a_payment_made_the_moment_before_the_node_died_is_notified(own_node: SandboxNode) -> None:
    rail = own_node.rail()
    cursor = await cursor_after_a_payment(own_node, rail)
    instructions = await rail.open(own_node.order())
    async with listening(rail, cursor) as ear:
        await ear.connected()
        await own_node.faults(delay_ms=5_000)
        await own_node.pay(instructions.text or "")
        await own_node.restart()
        await ear.about(instructions.reference)
    assert [p.state for p in (await rail.observe(instructions.reference)).receipts] == [ReceiptState.SETTLED]
    await rail.close()


async def test_a_dropped_message_is_made_good_by_the_sweep(node: SandboxNode, rail: LightningRail) -> None:
    cursor = await cursor_after_a_payment(node, rail)
    instructions = await rail.open(node.order())
    async with listening(rail, cursor) as ear:
        await ear.connected()
        await node.faults(drop=1)
        await node.pay(instructions.text or "")
        await ear.about(instructions.reference)


async def test_a_duplicated_message_is_the_same_notification_twice(
    node: SandboxNode, rail: LightningRail
) -> None:
    cursor = await cursor_after_a_payment(node, rail)
    instructions = await rail.open(node.order())
    async with listening(rail, cursor) as ear:
        await ear.connected()
        await node.faults(duplicate=1)
        await node.pay(instructions.text or "")
        first = await ear.about(instructions.reference)
        again = await ear.about(instructions.reference)
        assert again.reference == first.reference


async def test_a_gap_in_the_settle_indexes_is_no_alarm(node: SandboxNode, rail: LightningRail) -> None:
    cursor = await cursor_after_a_payment(node, rail)
    before, after = await rail.open(node.order()), await rail.open(node.order())
    await node.faults(settle_index_gap=5)
    await node.pay(before.text or "")
    await node.pay(after.text or "")
    async with listening(rail, cursor) as ear:
        await ear.about(before.reference)
        await ear.about(after.reference)


async def test_held_money_is_notified_although_the_main_stream_is_silent(
    node: SandboxNode, rail: LightningRail
) -> None:
    cursor = await cursor_after_a_payment(node, rail)
    async with listening(rail, cursor) as ear:
        await ear.connected()
        instructions = await rail.open(node.order(hold=True))
        await node.pay(instructions.text or "")
        await ear.about(instructions.reference)
        await rail.release(instructions.reference)
        await ear.about(instructions.reference)


async def test_money_held_while_we_were_down_is_notified(node: SandboxNode, rail: LightningRail) -> None:
    cursor = await cursor_after_a_payment(node, rail)
    instructions = await rail.open(node.order(hold=True))
    await node.pay(instructions.text or "")
    async with listening(rail, cursor) as ear:
        await ear.about(instructions.reference)


async def test_no_payment_is_lost_over_several_kills(own_node: SandboxNode) -> None:
    rail = own_node.rail()
    cursor = await cursor_after_a_payment(own_node, rail)
    wanted: set[str | None] = set()
    async with listening(rail, cursor) as ear:
        for kill in range(3):
            opened = [await rail.open(own_node.order(hold=kill == 1)) for _ in range(5)]
            await asyncio.gather(*(own_node.pay(instructions.text or "") for instructions in opened))
            wanted |= {instructions.reference for instructions in opened}
            await own_node.restart()
        while not wanted <= {notification.reference for notification in ear.reported_by}:
            await ear.notification()
    await rail.close()


async def test_held_money_survives_a_killed_node(own_node: SandboxNode) -> None:
    rail = own_node.rail()
    instructions = await rail.open(own_node.order(hold=True))
    await own_node.pay(instructions.text or "")
    await own_node.restart()
    async with listening(rail) as ear:
        await ear.about(instructions.reference)
    assert [p.state for p in (await rail.capture(instructions.reference)).receipts] == [ReceiptState.SETTLED]
    await rail.close()


async def test_an_expiry_is_notified_by_the_sweep(node: SandboxNode, rail: LightningRail) -> None:
    cursor = await cursor_after_a_payment(node, rail)
    async with listening(rail, cursor) as ear:
        await ear.connected()
        instructions = await rail.open(node.order(seconds=60))
        # The sweep must have seen it pending before it can miss it.
        other = await rail.open(node.order())
        await node.pay(other.text or "")
        await ear.about(other.reference)
        await node.advance(timedelta(seconds=61))
        await ear.about(instructions.reference)


async def test_a_locked_node_is_waited_for(node: SandboxNode, rail: LightningRail) -> None:
    cursor = await cursor_after_a_payment(node, rail)
    instructions = await rail.open(node.order())
    await node.faults(wallet_state="LOCKED")
    async with listening(rail, cursor) as ear:
        waiting = asyncio.create_task(ear.about(instructions.reference))
        await node.faults(wallet_state="SERVER_ACTIVE")
        await node.pay(instructions.text or "")
        await waiting


async def test_a_foreign_cursor_is_refused(rail: LightningRail) -> None:
    with pytest.raises(RailProtocolError, match="cursor"):
        async with listening(rail, "yesterday") as ear:
            await ear.notification()


async def test_more_invoices_than_a_page_are_all_found(
    own_node: SandboxNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rails.lightning.client.PAGE_SIZE", 3)
    rail = own_node.rail()
    opened = [await rail.open(own_node.order()) for _ in range(10)]
    for instructions in opened:
        await own_node.pay(instructions.text or "")
    wanted = {instructions.reference for instructions in opened}
    async with listening(rail) as ear:
        while not wanted <= {notification.reference for notification in ear.reported_by}:
            await ear.notification()
    await rail.close()
