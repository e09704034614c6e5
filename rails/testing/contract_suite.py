"""The conformance suite that every rail must pass.

Subclass `RailContract` in `tests/rails/<rail>/test_contract.py` and give it one fixture:

    class TestLightningContract(RailContract):
        @pytest.fixture
        async def world(self) -> AsyncIterator[World]:
            ...

A `World` is the outside as a test can move it: it starts rails (each call is a fresh process,
as after a crash) and plays the payer and the network. What a world cannot do at all it refuses
with `Impossible` (no one can underpay a Lightning invoice); then the test checks that nothing
changed. Powers that only some worlds have are the small protocols below; without them the test
is skipped and says so.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta

import pytest

from ledger.money import Money
from rails.contract import (
    Expiry,
    Holds,
    NotificationRejected,
    PaymentRequestStatus,
    RailUnavailable,
    ReceiptState,
    Webhooks,
)
from rails.domain.refusals import AmountTooSmall
from rails.domain.topup import TopupState
from rails.testing.harness import Core, RailHarness, only_receipt, total
from rails.testing.memory_references import MemoryReferences
from rails.testing.purchase_suite import PurchaseContract
from rails.testing.worlds import (
    Declines,
    Disputes,
    Impossible,
    LosesAnswers,
    Outages,
    PaysForeignAssets,
    Reverses,
    SendsWebhooks,
    World,
)


class RailContract(PurchaseContract):
    """Subclass me, give me a `world` fixture, and pass."""

    @pytest.fixture
    async def harness(self, world: World) -> AsyncIterator[RailHarness]:
        """The core's part, with a freshly started rail."""
        references = MemoryReferences()
        harness = RailHarness(world=world, rail=await world.start(references), references=references)
        yield harness
        await harness.rail.close()

    # --- opening -------------------------------------------------------------------------------

    async def test_a_healthy_rail_says_so(self, harness: RailHarness) -> None:
        assert (await harness.rail.health()).ok

    async def test_capabilities_are_coherent(self, harness: RailHarness) -> None:
        capabilities = harness.rail.capabilities
        assert capabilities.assets
        assert capabilities.quote_seconds > 0
        for asset in capabilities.assets:
            assert 0 < capabilities.minimum[asset.code] <= capabilities.maximum[asset.code]
            assert capabilities.maximum[asset.code] % capabilities.asked_in.get(asset.code, 1) == 0

    async def test_below_the_least_is_refused_with_the_least_which_is_accepted(self, world: World) -> None:
        async with Core.on(world) as core:
            for asset in core.rail.capabilities.assets:
                with pytest.raises(AmountTooSmall) as refused:
                    await core.open(amount=Money(0, asset))
                least = Money(refused.value.details["minimum_minor"], asset)
                assert refused.value.details["asset"] == asset.code
                with pytest.raises(AmountTooSmall):
                    await core.open(amount=Money(least.minor - 1, asset))
                topup = await core.open(amount=least)
                assert topup.amount_due == least
                assert topup.credits >= 1
                assert least.minor % core.rail.capabilities.asked_in.get(asset.code, 1) == 0

    async def test_opening_gives_instructions_and_an_open_status(self, harness: RailHarness) -> None:
        instructions = await harness.open()
        assert instructions.kind in {"redirect", "invoice", "address"}
        assert (
            instructions.url if instructions.kind == "redirect" else (instructions.uri and instructions.text)
        )
        observation = await harness.rail.observe(instructions.reference)
        assert observation.reference == instructions.reference
        assert observation.status is PaymentRequestStatus.OPEN
        assert list(observation.receipts) == []

    async def test_opening_twice_gives_the_same_payment_request(self, harness: RailHarness) -> None:
        order = harness.order()
        assert await harness.open(order) == await harness.open(order)

    async def test_opening_again_after_a_restart_gives_the_same_payment_request(
        self, harness: RailHarness
    ) -> None:
        order = harness.order()
        first = await harness.rail.open(order)  # … and we die before it is remembered
        await harness.restart()
        assert (await harness.open(order)).reference == first.reference

    async def test_two_payments_never_share_a_payment_request(self, harness: RailHarness) -> None:
        first, second = await harness.open(), await harness.open()
        assert first.reference != second.reference
        assert (first.text, first.url) != (second.text, second.url)

    async def test_an_answer_lost_while_opening_opens_nothing_twice(
        self, harness: RailHarness, world: World
    ) -> None:
        if not isinstance(world, LosesAnswers):
            pytest.skip("this world loses no answers")
        order = harness.order()
        await world.lose_next_answer()
        try:
            first = await harness.rail.open(order)
        except RailUnavailable:
            first = await harness.rail.open(order)
        assert await harness.open(order) == first
        await world.pay(first)
        assert total(await harness.settled(first)) == order.amount_due.minor

    # --- money ---------------------------------------------------------------------------------

    async def test_what_was_asked_arrives_and_settles(self, harness: RailHarness, world: World) -> None:
        order = harness.order()
        instructions = await harness.open(order)
        before = world.clock()
        await world.pay(instructions)
        receipt = only_receipt(await harness.settled(instructions))
        assert receipt.amount == order.amount_due
        assert receipt.money_ref
        assert receipt.first_seen_at.utcoffset() == timedelta(0)
        assert abs(receipt.first_seen_at - before) < timedelta(hours=3)
        assert receipt.fee is None or 0 <= receipt.fee.minor < receipt.amount.minor

    async def test_asking_twice_changes_nothing(self, harness: RailHarness, world: World) -> None:
        instructions = await harness.open()
        await world.pay(instructions)
        first = await harness.settled(instructions)
        asked_at = world.clock()
        second = await harness.rail.observe(instructions.reference)
        assert second == first
        assert second.as_of is None or second.as_of >= asked_at

    async def test_money_keeps_its_name_from_sight_to_settlement(
        self, harness: RailHarness, world: World
    ) -> None:
        instructions = await harness.open()
        await world.pay(instructions)
        seen = await harness.observe_until(instructions, lambda observation: bool(observation.receipts))
        settled = await harness.settled(instructions)
        assert only_receipt(seen).money_ref == only_receipt(settled).money_ref
        assert only_receipt(seen).first_seen_at == only_receipt(settled).first_seen_at

    async def test_a_fresh_process_sees_the_same_money(self, harness: RailHarness, world: World) -> None:
        instructions = await harness.open()
        await world.pay(instructions)
        before = await harness.settled(instructions)
        await harness.restart()
        after = await harness.observe_until(instructions, lambda observation: bool(observation.receipts))
        assert after == before

    async def test_every_default_and_extra_asset_can_be_asked_for(
        self, harness: RailHarness, world: World
    ) -> None:
        for asset in harness.rail.capabilities.assets:
            order = harness.order(asset=asset)
            instructions = await harness.open(order)
            await world.pay(instructions)
            assert only_receipt(await harness.settled(instructions)).amount == order.amount_due

    async def test_an_underpayment_is_what_arrived_or_impossible(
        self, harness: RailHarness, world: World
    ) -> None:
        await self._pays_other_than_asked(harness, world, numerator=1, denominator=2)

    async def test_an_overpayment_is_what_arrived_or_impossible(
        self, harness: RailHarness, world: World
    ) -> None:
        await self._pays_other_than_asked(harness, world, numerator=3, denominator=2)

    async def test_a_second_payment_is_a_second_receipt_or_impossible(
        self, harness: RailHarness, world: World
    ) -> None:
        order = harness.order()
        instructions = await harness.open(order)
        await world.pay(instructions)
        first = only_receipt(await harness.settled(instructions))
        try:
            await world.pay(instructions)
        except Impossible:
            assert only_receipt(await harness.rail.observe(instructions.reference)) == first
            return
        await world.settle_world()
        both = await harness.observe_until(
            instructions, lambda seen: total(seen) == 2 * order.amount_due.minor
        )
        assert len({receipt.money_ref for receipt in both.receipts}) == 2
        assert first.money_ref in {receipt.money_ref for receipt in both.receipts}

    async def test_late_money_is_seen_or_impossible(self, harness: RailHarness, world: World) -> None:
        order = harness.order()
        instructions = await harness.open(order)
        await world.expire(instructions)
        try:
            await world.pay(instructions)
        except Impossible:
            assert not (await harness.rail.observe(instructions.reference)).receipts
            return
        assert total(await harness.settled(instructions)) == order.amount_due.minor

    async def test_a_wrong_asset_is_reported_as_what_it_is(self, harness: RailHarness, world: World) -> None:
        if not isinstance(world, PaysForeignAssets):
            pytest.skip("in this world there are no other assets")
        instructions = await harness.open()
        await world.pay(instructions, amount=12_345_678, asset=world.foreign_asset)
        receipt = only_receipt(await harness.settled(instructions))
        assert receipt.amount.asset == world.foreign_asset
        assert receipt.amount.minor == 12_345_678

    async def test_money_for_one_payment_is_never_shown_for_another(
        self, harness: RailHarness, world: World
    ) -> None:
        paid, unpaid = await harness.open(), await harness.open()
        await world.pay(paid)
        await harness.settled(paid)
        assert not (await harness.rail.observe(unpaid.reference)).receipts

    # --- the payment request ------------------------------------------------------------------------

    async def test_an_expired_payment_request_says_so_or_stays_open(
        self, harness: RailHarness, world: World
    ) -> None:
        instructions = await harness.open()
        await world.expire(instructions)
        observation = await harness.rail.observe(instructions.reference)
        assert observation.status in {
            PaymentRequestStatus.EXPIRED,
            PaymentRequestStatus.CLOSED,
            PaymentRequestStatus.OPEN,
        }
        assert not observation.receipts

    async def test_a_declined_try_is_said_with_a_reason_and_costs_nothing(
        self, harness: RailHarness, world: World
    ) -> None:
        if not isinstance(world, Declines):
            pytest.skip("nothing is declined in this world")
        instructions = await harness.open()
        await world.decline(instructions)
        observation = await harness.observe_until(
            instructions, lambda seen: seen.status is PaymentRequestStatus.DECLINED
        )
        assert observation.decline_code
        assert not observation.receipts

    async def test_cancelling_closes_an_unpaid_payment_request(
        self, harness: RailHarness, world: World
    ) -> None:
        rail = harness.rail
        if not isinstance(rail, Expiry):
            pytest.skip("this rail cannot close a payment request")
        instructions = await harness.open()
        first = await rail.cancel(instructions.reference)
        assert first.status in {PaymentRequestStatus.CLOSED, PaymentRequestStatus.EXPIRED}
        assert await rail.cancel(instructions.reference) == first

    async def test_money_already_there_wins_over_cancelling(self, harness: RailHarness, world: World) -> None:
        rail = harness.rail
        if not isinstance(rail, Expiry):
            pytest.skip("this rail cannot close a payment request")
        instructions = await harness.open()
        await world.pay(instructions)
        settled = await harness.settled(instructions)
        assert list((await rail.cancel(instructions.reference)).receipts) == list(settled.receipts)

    # --- notifications ---------------------------------------------------------------------------------

    async def test_a_payment_raises_a_notification(self, harness: RailHarness, world: World) -> None:
        instructions = await harness.open()
        waiting = asyncio.create_task(harness.notification_about(instructions, None))
        await world.pay(instructions)
        await world.settle_world()
        await waiting

    async def test_what_was_paid_while_we_were_down_is_notified_after_the_start(
        self, harness: RailHarness, world: World
    ) -> None:
        early = await harness.open()
        await world.pay(early)
        await harness.settled(early)
        cursor = await harness.notification_about(early, None)
        late = await harness.open()
        await harness.rail.close()
        await world.pay(late)
        await world.settle_world()
        harness.rail = await world.start(harness.references)
        await harness.notification_about(late, cursor)
        assert only_receipt(await harness.settled(late)).state is ReceiptState.SETTLED

    async def test_a_crash_between_fact_and_cursor_repeats_the_notification(
        self, harness: RailHarness, world: World
    ) -> None:
        instructions = await harness.open()
        await world.pay(instructions)
        before = await harness.settled(instructions)
        await harness.notification_about(instructions, None)  # … and we die before its cursor is kept
        await harness.restart()
        await harness.notification_about(instructions, None)
        assert await harness.settled(instructions) == before

    async def test_notifications_in_any_order_and_number_lead_to_one_truth(
        self, harness: RailHarness, world: World
    ) -> None:
        paid = [await harness.open() for _ in range(3)]
        for instructions in paid:
            await world.pay(instructions)
        truth = [await harness.settled(instructions) for instructions in paid]
        for order in itertools.permutations(range(3)):
            for index in (*order, *order):
                assert await harness.rail.observe(paid[index].reference) == truth[index]

    async def test_a_genuine_webhook_is_a_notification_and_has_no_side_effect(
        self, harness: RailHarness, world: World
    ) -> None:
        rail = harness.rail
        if not isinstance(rail, Webhooks) or not isinstance(world, SendsWebhooks):
            pytest.skip("this rail is not told by HTTP")
        instructions = await harness.open()
        await world.pay(instructions)
        headers, body = await world.webhook(instructions)
        notifications = rail.verify_notification(headers, body)
        assert notifications == rail.verify_notification(headers, body)
        assert {notification.reference for notification in notifications} & {instructions.reference, None}
        assert all(notification.notification_id for notification in notifications)

    async def test_a_forged_webhook_is_rejected(self, harness: RailHarness, world: World) -> None:
        rail = harness.rail
        if not isinstance(rail, Webhooks) or not isinstance(world, SendsWebhooks):
            pytest.skip("this rail is not told by HTTP")
        instructions = await harness.open()
        await world.pay(instructions)
        headers, body = await world.webhook(instructions)
        foreign = dict.fromkeys(headers, "\xe9\x00t=1,v1=\xff")
        forgeries: Sequence[tuple[Mapping[str, str], bytes]] = (
            (headers, body + b" "),
            ({}, body),
            (headers, b""),
            ({}, b"{"),
            (foreign, body),
        )
        for forged_headers, forged_body in forgeries:
            with pytest.raises(NotificationRejected):
                rail.verify_notification(forged_headers, forged_body)

    # --- what goes wrong -----------------------------------------------------------------------

    async def test_an_outage_is_said_and_nothing_is_lost(self, harness: RailHarness, world: World) -> None:
        if not isinstance(world, Outages):
            pytest.skip("this world never breaks down")
        instructions = await harness.open()
        await world.break_down()
        assert not (await harness.rail.health()).ok
        with pytest.raises(RailUnavailable):
            await harness.rail.observe(instructions.reference)
        with pytest.raises(RailUnavailable):
            await harness.rail.open(harness.order())
        await world.restore()
        await world.pay(instructions)
        assert only_receipt(await harness.settled(instructions)).state is ReceiptState.SETTLED

    async def test_reversed_money_is_said_and_keeps_its_name(
        self, harness: RailHarness, world: World
    ) -> None:
        if not isinstance(world, Reverses):
            pytest.skip("money is never taken back in this world")
        instructions = await harness.open()
        await world.pay(instructions)
        before = only_receipt(await harness.settled(instructions))
        await world.reverse(instructions)
        after = await harness.observe_until(
            instructions,
            lambda seen: any(receipt.state is ReceiptState.REVERSED for receipt in seen.receipts),
        )
        assert before.money_ref in {receipt.money_ref for receipt in after.receipts}

    async def test_a_dispute_is_won_or_lost(self, harness: RailHarness, world: World) -> None:
        if not isinstance(world, Disputes):
            pytest.skip("nothing is disputed in this world")
        for won, end in ((True, ReceiptState.SETTLED), (False, ReceiptState.REVERSED)):
            instructions = await harness.open()
            await world.pay(instructions)
            await harness.settled(instructions)
            await world.dispute(instructions)
            await harness.observe_until(
                instructions, lambda seen: only_receipt(seen).state is ReceiptState.DISPUTED
            )
            await world.end_dispute(instructions, won=won)
            await harness.observe_until(instructions, lambda seen, end=end: only_receipt(seen).state is end)  # type: ignore[misc]

    # --- holds ---------------------------------------------------------------------------------

    async def test_held_money_is_captured_once(self, harness: RailHarness, world: World) -> None:
        rail = harness.rail
        if not isinstance(rail, Holds):
            pytest.skip("this rail cannot hold")
        order = harness.order(hold=True)
        instructions = await harness.open(order)
        await world.pay(instructions)
        await harness.observe_until(
            instructions, lambda seen: [p.state for p in seen.receipts] == [ReceiptState.HELD]
        )
        first = await rail.capture(instructions.reference)
        again = await rail.capture(instructions.reference)
        assert only_receipt(first).state is ReceiptState.SETTLED
        assert again == first
        assert total(again) == order.amount_due.minor

    async def test_held_money_that_is_released_was_never_ours(
        self, harness: RailHarness, world: World
    ) -> None:
        rail = harness.rail
        if not isinstance(rail, Holds):
            pytest.skip("this rail cannot hold")
        instructions = await harness.open(harness.order(hold=True))
        await world.pay(instructions)
        await harness.observe_until(
            instructions, lambda seen: [p.state for p in seen.receipts] == [ReceiptState.HELD]
        )
        first = await rail.release(instructions.reference)
        again = await rail.release(instructions.reference)
        assert {receipt.state for receipt in first.receipts} <= {ReceiptState.RETURNED}
        assert first.status in {PaymentRequestStatus.CLOSED, PaymentRequestStatus.EXPIRED}
        assert again == first

    async def test_what_is_released_before_money_has_come_is_closed(self, harness: RailHarness) -> None:
        rail = harness.rail
        if not isinstance(rail, Holds):
            pytest.skip("this rail cannot hold")
        instructions = await harness.open(harness.order(hold=True))
        first = await rail.release(instructions.reference)
        assert first.status in {PaymentRequestStatus.CLOSED, PaymentRequestStatus.EXPIRED}
        assert first.receipts == ()
        assert await rail.release(instructions.reference) == first

    # --- in the core ---------------------------------------------------------------------------

    async def test_the_core_credits_a_payment_once_and_at_once(self, world: World) -> None:
        async with Core.on(world) as core, core.running():
            topup = await core.open()
            await world.pay(core.instructions(topup))
            await world.settle_world()
            paid = await core.until(topup, TopupState.PAID)
            assert paid.credited == topup.credits
            assert await core.posted(topup) == topup.credits

    async def test_the_core_credits_what_was_paid_while_it_was_down(self, world: World) -> None:
        async with Core.on(world) as core:
            topup = await core.open()
            async with core.running():
                await core.until(topup, TopupState.WAITING)
        async with Core.on(world, core) as again:
            await world.pay(again.instructions(topup))
            await world.settle_world()
            async with again.running():
                assert (await again.until(topup, TopupState.PAID)).credited == topup.credits
            async with Core.on(world, again) as third, third.running():
                await third.caught_up()
                assert await third.posted(topup) == topup.credits

    # -------------------------------------------------------------------------------------------

    async def _pays_other_than_asked(
        self, harness: RailHarness, world: World, *, numerator: int, denominator: int
    ) -> None:
        order = harness.order()
        instructions = await harness.open(order)
        amount = order.amount_due.minor * numerator // denominator
        try:
            await world.pay(instructions, amount=amount)
        except Impossible:
            assert not (await harness.rail.observe(instructions.reference)).receipts
            return
        assert total(await harness.settled(instructions)) == amount
