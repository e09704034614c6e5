"""The conformance suite of rails whose subscriptions bill what was used beyond a plan.

Subclass `MeteredContract` beside `RecurringContract` and give it the same `world` fixture, of a world that also `Meters`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Protocol, cast

import pytest

from rails.metered import Metered, NotBillable, UsageReport
from rails.recurring import ChangeRefused, Invoice, InvoiceStatus, Offer, SubscriptionStatus
from rails.testing.recurring_suite import RecurringRail, RenewingWorld, Subscriber, subscriber_for
from rails.testing.worlds import LosesAnswers, Meters


class MeteredWorld(RenewingWorld, Meters, Protocol):
    """The outside of a rail that bills use."""


class MeteredRail(RecurringRail, Metered, Protocol):
    """A rail that bills use."""


def billed(invoice: Invoice) -> tuple[int, int]:
    """Credits beyond the plan on an invoice, and what they cost."""
    lines = [line for line in invoice.lines if line.overage_credits]
    return sum(line.overage_credits for line in lines), sum(line.amount_minor for line in lines)


class MeteredContract:
    """Subclass me, give me a `world` fixture, and pass."""

    @pytest.fixture
    def metering(self, rail: RecurringRail) -> MeteredRail:
        """The rail, which bills use."""
        assert isinstance(rail, Metered)
        return cast("MeteredRail", rail)

    @pytest.fixture
    async def using(self, world: MeteredWorld, rail: RecurringRail) -> Subscriber:
        """Somebody with a plan beyond which use is billed."""
        await world.stock_metered()
        subscriber = await subscriber_for(world, rail, world.metered)
        await subscriber.pay()
        return subscriber

    async def _start(self, using: Subscriber) -> datetime:
        start = (await using.seen()).period_start
        assert start is not None
        return start

    async def test_a_subscription_says_what_it_bills_for_use(
        self, using: Subscriber, world: MeteredWorld
    ) -> None:
        seen = await using.seen()
        assert seen.overage is not None
        assert seen.overage.minor == world.overage_minor
        assert seen.offer == world.metered
        assert billed(seen.invoices[0]) == (0, 0)

    async def test_use_is_billed_with_the_next_invoice_once_for_its_name(
        self, using: Subscriber, world: MeteredWorld, metering: MeteredRail
    ) -> None:
        reference, start = await using.reference(), await self._start(using)
        for name, credits_ in (("use_a", 3), ("use_b", 4), ("use_a", 3), ("use_a", 3)):
            report = UsageReport(
                report_id=f"{name}_{reference}", credits=credits_, used_at=start + timedelta(seconds=1)
            )
            await metering.report_usage(reference, report)
        assert await metering.usage_total(reference, start) == 7
        await world.next_period(reference)
        invoice = (await using.seen()).invoices[-1]
        assert billed(invoice) == (7, 7 * world.overage_minor)
        assert invoice.status is InvoiceStatus.PAID
        assert invoice.due.minor == sum(line.amount_minor for line in invoice.lines)
        assert invoice.due.minor > 7 * world.overage_minor
        await world.next_period(reference)
        assert billed((await using.seen()).invoices[-1]) == (0, 0)

    async def test_use_that_is_told_late_counts_in_the_present_period(
        self, using: Subscriber, world: MeteredWorld, metering: MeteredRail
    ) -> None:
        reference, start = await using.reference(), await self._start(using)
        await world.next_period(reference)
        late = UsageReport(report_id=f"late_{reference}", credits=5, used_at=start + timedelta(hours=1))
        await metering.report_usage(reference, late)
        await world.next_period(reference)
        *_, before, last = (await using.seen()).invoices
        assert (billed(before), billed(last)) == ((0, 0), (5, 5 * world.overage_minor))

    async def test_an_answer_lost_while_telling_counts_once(
        self, using: Subscriber, world: MeteredWorld, metering: MeteredRail
    ) -> None:
        if not isinstance(world, LosesAnswers):
            pytest.skip("no answer gets lost in this world")
        reference, start = await using.reference(), await self._start(using)
        report = UsageReport(report_id=f"lost_{reference}", credits=2, used_at=start + timedelta(seconds=1))
        await world.lose_next_answer()
        with pytest.raises(Exception, match=r".*"):
            await metering.report_usage(reference, report)
        await metering.report_usage(reference, report)
        assert await metering.usage_total(reference, start) == 2

    async def test_what_ends_bills_its_last_use(
        self, using: Subscriber, world: MeteredWorld, metering: MeteredRail
    ) -> None:
        reference, start = await using.reference(), await self._start(using)
        report = UsageReport(report_id=f"last_{reference}", credits=6, used_at=start + timedelta(seconds=1))
        await metering.report_usage(reference, report)
        await using.rail.cancel_subscription(reference)
        await world.next_period(reference)
        seen = await using.seen()
        assert seen.status is SubscriptionStatus.ENDED
        invoice = seen.invoices[-1]
        assert billed(invoice) == (6, 6 * world.overage_minor)
        assert invoice.due.minor == 6 * world.overage_minor
        with pytest.raises(NotBillable):
            await metering.report_usage(reference, UsageReport(report_id="over", credits=1, used_at=start))

    async def test_a_larger_plan_bills_use_from_its_beginning_on(
        self, world: MeteredWorld, rail: RecurringRail, metering: MeteredRail
    ) -> None:
        await world.stock_metered()
        using = await subscriber_for(world, rail, world.offers[0])
        await using.pay()
        reference, start = await using.reference(), await self._start(using)
        early = UsageReport(report_id=f"early_{reference}", credits=1, used_at=start)
        with pytest.raises(NotBillable):
            await metering.report_usage(reference, early)
        shown = await rail.preview_change(reference, world.metered, now=True)
        await rail.change_plan(reference, world.metered, at=shown.at, key="up")
        seen = await using.seen()
        assert seen.overage is not None
        assert billed(seen.invoices[-1]) == (0, 0)
        report = UsageReport(report_id=f"then_{reference}", credits=8, used_at=seen.invoices[-1].created_at)
        await metering.report_usage(reference, report)
        await world.next_period(reference)
        assert billed((await using.seen()).invoices[-1]) == (8, 8 * world.overage_minor)

    async def test_a_smaller_plan_comes_with_a_bill_for_the_use_before_it(
        self, using: Subscriber, world: MeteredWorld, metering: MeteredRail
    ) -> None:
        reference, start = await using.reference(), await self._start(using)
        report = UsageReport(report_id=f"down_{reference}", credits=9, used_at=start + timedelta(seconds=1))
        await metering.report_usage(reference, report)
        await using.rail.change_plan(reference, world.offers[0], at=None, key="down")
        await world.next_period(reference)
        seen = await using.seen()
        assert seen.offer == world.offers[0]
        assert billed(seen.invoices[-1]) == (9, 9 * world.overage_minor)

    async def test_another_length_is_refused_while_use_is_billed(
        self, using: Subscriber, world: MeteredWorld
    ) -> None:
        reference = await using.reference()
        year = Offer(plan=world.offers[0].plan, length="year")
        with pytest.raises(ChangeRefused):
            await using.rail.change_plan(reference, year, at=None, key="year")
        assert (await using.seen()).next_offer is None
