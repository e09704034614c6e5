"""The conformance suite of rails that charge again by themselves.

Subclass `RecurringContract` beside `RailContract` and give it the same `world` fixture, of a world that also
`Renews`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Protocol, cast

import pytest

from ledger.identifiers import Identifiers
from rails.contract import Instructions, PaymentRequestStatus, Rail, ReceiptState
from rails.recurring import (
    ChangeRefused,
    Invoice,
    InvoiceStatus,
    Offer,
    Recurring,
    SubscriptionObservation,
    SubscriptionOrder,
    SubscriptionStatus,
)
from rails.testing.harness import WAIT_SECONDS_MAX, only_receipt, total
from rails.testing.memory_references import MemoryReferences
from rails.testing.worlds import LosesAnswers, Renews, World


class RenewingWorld(World, Renews, Protocol):
    """The outside of a rail that charges again."""


class RecurringRail(Rail, Recurring, Protocol):
    """A rail that charges again."""


@dataclass
class Subscriber:
    """Somebody with a subscription, and what the core would remember of it."""

    world: RenewingWorld
    rail: RecurringRail
    order: SubscriptionOrder
    page: Instructions

    async def seen(self) -> SubscriptionObservation:
        """The truth, asked by the page."""
        found = await self.rail.observe_subscription(self.page.reference)
        assert found is not None
        assert found.subscription_id == self.order.subscription_id
        return found

    async def reference(self) -> str:
        """The rail's own name of the subscription."""
        found = (await self.seen()).reference
        assert found is not None
        return found

    async def pay(self) -> SubscriptionObservation:
        """Subscribe."""
        await self.world.pay_page(self.page)
        return await self.seen()


class RecurringContract:
    """Subclass me, give me a `world` fixture, and pass."""

    @pytest.fixture
    async def rail(self, world: RenewingWorld) -> AsyncIterator[RecurringRail]:
        """A freshly started rail."""
        rail = await world.start(MemoryReferences())
        assert isinstance(rail, Recurring)
        yield cast("RecurringRail", rail)
        await rail.close()

    @pytest.fixture
    async def subscriber(self, world: RenewingWorld, rail: RecurringRail) -> Subscriber:
        """Somebody whose page for the smaller plan is open."""
        return await subscriber_for(world, rail, world.offers[0])

    # --- subscribing ---------------------------------------------------------------------------

    async def test_an_open_page_is_no_subscription_yet(self, subscriber: Subscriber) -> None:
        assert subscriber.page.url
        assert subscriber.rail.is_subscription(subscriber.page.reference)
        seen = await subscriber.seen()
        assert (seen.status, seen.reference, list(seen.invoices)) == (SubscriptionStatus.OPENING, None, [])

    async def test_asking_for_a_page_again_gives_the_same(self, subscriber: Subscriber) -> None:
        assert await subscriber.rail.subscribe(subscriber.order) == subscriber.page

    async def test_an_answer_lost_while_subscribing_opens_one_page(
        self, rail: RecurringRail, world: RenewingWorld
    ) -> None:
        if not isinstance(world, LosesAnswers):
            pytest.skip("this world loses no answers")
        await world.lose_next_answer()
        one = await subscriber_for(world, rail, world.offers[0])
        await one.pay()
        assert [invoice.status for invoice in (await one.seen()).invoices] == [InvoiceStatus.PAID]

    async def test_a_page_that_is_closed_leaves_nothing(self, subscriber: Subscriber) -> None:
        await subscriber.rail.close_subscribing(subscriber.page.reference)
        seen = await subscriber.seen()
        assert (seen.status, list(seen.invoices)) == (SubscriptionStatus.EXPIRED, [])
        await subscriber.rail.close_subscribing(subscriber.page.reference)

    async def test_a_declined_card_pays_for_nothing_and_another_may_follow(
        self, subscriber: Subscriber, world: RenewingWorld
    ) -> None:
        await world.decline_page(subscriber.page)
        seen = await subscriber.seen()
        assert seen.status in (SubscriptionStatus.OPENING, SubscriptionStatus.INCOMPLETE)
        assert not [invoice for invoice in seen.invoices if invoice.status is InvoiceStatus.PAID]
        assert (await subscriber.pay()).status is SubscriptionStatus.ACTIVE

    async def test_a_plan_that_the_catalogue_lacks_is_refused(
        self, rail: RecurringRail, world: RenewingWorld
    ) -> None:
        with pytest.raises(ChangeRefused):
            await subscriber_for(world, rail, Offer(plan="nowhere", length="month"))

    async def test_the_first_invoice_is_paid_for_the_first_period(
        self, subscriber: Subscriber, world: RenewingWorld
    ) -> None:
        seen = await subscriber.pay()
        assert (seen.status, seen.offer, seen.cancels) == (SubscriptionStatus.ACTIVE, world.offers[0], False)
        assert (seen.next_offer, seen.pending_offer) == (None, None)
        assert seen.period_start is not None
        assert seen.period_end is not None
        assert timedelta(days=27) < seen.period_end - seen.period_start < timedelta(days=370)
        (invoice,) = seen.invoices
        (line,) = invoice.lines
        assert (invoice.status, invoice.due.minor) == (InvoiceStatus.PAID, line.amount_minor)
        assert (line.offer, line.proration) == (world.offers[0], False)
        assert (line.starts_at, line.ends_at) == (seen.period_start, seen.period_end)

    async def test_the_money_of_an_invoice_is_observed_by_its_own_reference(
        self, subscriber: Subscriber, world: RenewingWorld
    ) -> None:
        (invoice,) = (await subscriber.pay()).invoices
        observation = await subscriber.rail.observe(invoice.reference)
        receipt = only_receipt(observation)
        assert (observation.reference, receipt.state) == (invoice.reference, ReceiptState.SETTLED)
        assert receipt.amount == invoice.due
        assert not subscriber.rail.is_subscription(invoice.reference)
        assert await subscriber.rail.observe(invoice.reference) == observation
        await world.reverse_invoice(invoice.reference)
        taken = only_receipt(await subscriber.rail.observe(invoice.reference))
        assert (taken.money_ref, taken.state) == (receipt.money_ref, ReceiptState.REVERSED)

    async def test_asking_twice_changes_nothing(self, subscriber: Subscriber) -> None:
        first = await subscriber.pay()
        assert await subscriber.seen() == first
        assert await subscriber.rail.observe_subscription(await subscriber.reference()) == first

    # --- time ----------------------------------------------------------------------------------

    async def test_each_period_has_its_invoice_and_begins_where_the_last_ended(
        self, subscriber: Subscriber, world: RenewingWorld
    ) -> None:
        await subscriber.pay()
        for _ in range(3):
            await world.next_period(await subscriber.reference())
        seen = await subscriber.seen()
        lines = [line for invoice in seen.invoices for line in invoice.lines]
        assert len(lines) == 4
        assert all(after.starts_at == before.ends_at for before, after in pairwise(lines))
        assert (lines[-1].starts_at, lines[-1].ends_at) == (seen.period_start, seen.period_end)

    async def test_a_renewal_that_fails_is_past_due_and_can_be_paid_by_hand(
        self, subscriber: Subscriber, world: RenewingWorld
    ) -> None:
        await subscriber.pay()
        reference = await subscriber.reference()
        await world.put_card(reference, works=False)
        await world.next_period(reference)
        seen = await subscriber.seen()
        unpaid = seen.invoices[-1]
        assert (seen.status, unpaid.status) == (SubscriptionStatus.PAST_DUE, InvoiceStatus.OPEN)
        assert unpaid.pay_url
        assert unpaid.next_attempt_at is not None
        observation = await subscriber.rail.observe(unpaid.reference)
        assert (observation.status, total(observation)) == (PaymentRequestStatus.OPEN, 0)
        await world.pay_invoice(unpaid.reference)
        seen = await subscriber.seen()
        assert (seen.status, seen.invoices[-1].status) == (SubscriptionStatus.ACTIVE, InvoiceStatus.PAID)
        assert seen.invoices[-1].pay_url is None

    async def test_what_is_ended_or_paused_at_the_provider_is_seen(
        self, subscriber: Subscriber, world: RenewingWorld
    ) -> None:
        await subscriber.pay()
        reference = await subscriber.reference()
        await world.pause(reference)
        assert (await subscriber.seen()).status is SubscriptionStatus.PAUSED
        await subscriber.rail.resume_subscription(reference)
        assert (await subscriber.seen()).status is SubscriptionStatus.ACTIVE
        await world.end_at_once(reference)
        assert (await subscriber.seen()).status is SubscriptionStatus.ENDED
        with pytest.raises(ChangeRefused):
            await subscriber.rail.cancel_subscription(reference)

    # --- changes -------------------------------------------------------------------------------

    async def test_a_larger_plan_at_once_charges_what_was_shown(
        self, subscriber: Subscriber, world: RenewingWorld
    ) -> None:
        await subscriber.pay()
        reference, larger = await subscriber.reference(), world.offers[1]
        shown = await subscriber.rail.preview_change(reference, larger, now=True)
        assert shown.due_now.minor > 0
        for _ in range(2):  # the same key: once
            await subscriber.rail.change_plan(reference, larger, at=shown.at, key="up")
        seen = await subscriber.seen()
        assert (seen.offer, seen.pending_offer) == (larger, None)
        _, second = seen.invoices
        assert second.due == shown.due_now
        assert all(line.proration for line in second.lines)
        assert sum(line.amount_minor for line in second.lines) == shown.due_now.minor
        assert shown.next_at == seen.period_end
        await world.next_period(reference)
        assert (await subscriber.seen()).invoices[-1].due == shown.due_next

    async def test_a_larger_plan_waits_until_it_is_paid(
        self, subscriber: Subscriber, world: RenewingWorld
    ) -> None:
        await subscriber.pay()
        reference, (smaller, larger) = await subscriber.reference(), world.offers
        await world.put_card(reference, works=False)
        shown = await subscriber.rail.preview_change(reference, larger, now=True)
        await subscriber.rail.change_plan(reference, larger, at=shown.at, key="up")
        seen = await subscriber.seen()
        assert (seen.offer, seen.pending_offer) == (smaller, larger)
        unpaid = open_invoice(seen)
        assert unpaid.pay_url
        await world.pay_invoice(unpaid.reference)
        seen = await subscriber.seen()
        assert (seen.offer, seen.pending_offer) == (larger, None)

    async def test_a_smaller_plan_begins_with_the_next_period(
        self, rail: RecurringRail, world: RenewingWorld
    ) -> None:
        smaller, larger = world.offers
        subscriber = await subscriber_for(world, rail, larger)
        await subscriber.pay()
        reference = await subscriber.reference()
        shown = await rail.preview_change(reference, smaller, now=False)
        assert shown.due_now.minor == 0
        await rail.change_plan(reference, smaller, at=None, key="down")
        seen = await subscriber.seen()
        assert (seen.offer, seen.next_offer, len(seen.invoices)) == (larger, smaller, 1)
        await world.next_period(reference)
        seen = await subscriber.seen()
        assert (seen.offer, seen.next_offer) == (smaller, None)
        assert seen.invoices[-1].due == shown.due_next

    async def test_a_month_becomes_a_year_at_once_and_its_rest_is_credited(
        self, subscriber: Subscriber, world: RenewingWorld
    ) -> None:
        await subscriber.pay()
        reference, year = await subscriber.reference(), Offer(plan=world.offers[0].plan, length="year")
        shown = await subscriber.rail.preview_change(reference, year, now=True)
        await subscriber.rail.change_plan(reference, year, at=shown.at, key="longer")
        seen = await subscriber.seen()
        assert (seen.offer, seen.pending_offer, seen.next_offer) == (year, None, None)
        second = seen.invoices[-1]
        (credit,) = [line for line in second.lines if line.proration]
        (whole,) = [line for line in second.lines if not line.proration]
        assert credit.amount_minor < 0 < whole.amount_minor
        assert second.due == shown.due_now
        assert second.due.minor == whole.amount_minor + credit.amount_minor
        assert (whole.offer, whole.starts_at, whole.ends_at) == (year, seen.period_start, seen.period_end)
        assert whole.ends_at - whole.starts_at > timedelta(days=364)
        assert abs(shown.next_at - whole.ends_at) < timedelta(minutes=5)
        assert shown.due_next.minor == whole.amount_minor

    async def test_a_year_becomes_a_month_after_it(self, rail: RecurringRail, world: RenewingWorld) -> None:
        month = world.offers[0]
        subscriber = await subscriber_for(world, rail, Offer(plan=month.plan, length="year"))
        first = await subscriber.pay()
        reference = await subscriber.reference()
        shown = await rail.preview_change(reference, month, now=False)
        assert (shown.due_now.minor, shown.next_at) == (0, first.period_end)
        await rail.change_plan(reference, month, at=None, key="shorter")
        seen = await subscriber.seen()
        assert (seen.offer, seen.next_offer, len(seen.invoices)) == (first.offer, month, 1)
        for _ in range(12):  # a world may only know months
            if seen.offer != month:
                await world.next_period(reference)
                seen = await subscriber.seen()
        assert (seen.offer, seen.next_offer) == (month, None)
        (line,) = seen.invoices[1].lines
        assert (line.offer, line.starts_at, line.amount_minor) == (
            month,
            first.period_end,
            shown.due_next.minor,
        )

    async def test_a_cancelled_subscription_ends_with_its_period_unless_it_is_resumed(
        self, subscriber: Subscriber, world: RenewingWorld
    ) -> None:
        await subscriber.pay()
        reference = await subscriber.reference()
        for cancels in (True, False, True):
            act = subscriber.rail.cancel_subscription if cancels else subscriber.rail.resume_subscription
            await act(reference)
            await act(reference)
            assert (await subscriber.seen()).cancels is cancels
        await world.next_period(reference)
        seen = await subscriber.seen()
        assert (seen.status, len(seen.invoices)) == (SubscriptionStatus.ENDED, 1)

    async def test_the_last_wish_of_a_payer_counts(self, rail: RecurringRail, world: RenewingWorld) -> None:
        smaller, larger = world.offers
        subscriber = await subscriber_for(world, rail, larger)
        await subscriber.pay()
        reference = await subscriber.reference()
        await rail.change_plan(reference, smaller, at=None, key="1")
        await rail.cancel_subscription(reference)
        seen = await subscriber.seen()
        assert (seen.cancels, seen.next_offer) == (True, None)
        await rail.change_plan(reference, smaller, at=None, key="2")
        seen = await subscriber.seen()
        assert (seen.cancels, seen.next_offer) == (False, smaller)
        await rail.resume_subscription(reference)
        seen = await subscriber.seen()
        assert (seen.cancels, seen.next_offer, seen.offer) == (False, None, larger)

    async def test_the_provider_has_a_page_for_the_payer(self, subscriber: Subscriber) -> None:
        await subscriber.pay()
        url = await subscriber.rail.portal(await subscriber.reference(), "https://llamasketch.test/account")
        assert url.startswith("http")

    # --- notifications -------------------------------------------------------------------------

    async def test_whatever_happens_is_notified(self, subscriber: Subscriber, world: RenewingWorld) -> None:
        await subscriber.pay()
        reference = await subscriber.reference()
        cursor = await notified(subscriber.rail, None, reference)
        await world.next_period(reference)
        cursor = await notified(subscriber.rail, cursor, reference)
        await world.end_at_once(reference)
        await notified(subscriber.rail, cursor, reference)

    async def test_money_that_goes_back_is_notified_by_its_invoice(
        self, subscriber: Subscriber, world: RenewingWorld
    ) -> None:
        (invoice,) = (await subscriber.pay()).invoices
        cursor = await notified(subscriber.rail, None, await subscriber.reference())
        await world.reverse_invoice(invoice.reference)
        await notified(subscriber.rail, cursor, invoice.reference)


async def subscriber_for(world: RenewingWorld, rail: RecurringRail, offer: Offer) -> Subscriber:
    """Somebody whose page for a plan is open."""
    ids = Identifiers(world.clock)
    order = SubscriptionOrder(
        subscription_id=ids.new("subscr"),
        account_id=ids.account(),
        offer=offer,
        expires_at=world.clock() + timedelta(hours=1),
        return_url="https://llamasketch.test/account",
    )
    for _ in range(3):
        try:
            return Subscriber(world, rail, order, await rail.subscribe(order))
        except ChangeRefused:
            raise
        except Exception as error:  # noqa: BLE001 - an answer may be lost, as the core would see it
            failure = error
    raise failure


def open_invoice(seen: SubscriptionObservation) -> Invoice:
    """The one that nobody has paid."""
    (invoice,) = [each for each in seen.invoices if each.status is InvoiceStatus.OPEN]
    return invoice


async def notified(rail: RecurringRail, cursor: str | None, reference: str) -> str | None:
    """Wait for a notification about a reference; returns the cursor after it."""
    async with asyncio.timeout(WAIT_SECONDS_MAX), aclosing(rail.listen(cursor)) as notifications:  # type: ignore[type-var]
        async for notification in notifications:
            if notification.reference == reference:
                return notification.cursor
    raise AssertionError("the rail stopped listening")
