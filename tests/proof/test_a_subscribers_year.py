"""A year with plans, told in order: each grant, each warning and each cut-off, through the public face."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import pytest

from ledger.clock import ManualClock
from ledger.domain import commands as c
from ledger.domain.account import ACCOUNTS
from ledger.domain.events import CreditsGranted, RevenueEarned, UsageWarned
from ledger.domain.periods import months_after
from ledger.domain.refusals import InsufficientCredits, PeriodAlreadyGranted
from ledger.identifiers import Identifiers
from ledger.plans import PLANS
from ledger.service import Ledger
from ledger.testing.memory_log import MemoryLog
from tests.ledger.world import DAY, paid

FREE, STARTER, PRO, UNLIMITED = (PLANS[name] for name in ("free", "starter", "pro", "unlimited"))
SUBSCRIPTION = "sub_1"


def on(day: str, time: str = "00:00") -> datetime:
    return datetime.fromisoformat(f"{day}T{time}").replace(tzinfo=UTC)


class Subscriber:
    """A person, the clock on the wall, and what the provider reports."""

    def __init__(self, today: datetime) -> None:
        self.clock = ManualClock(today)
        self.log = MemoryLog([ACCOUNTS], self.clock)
        self.ledger = Ledger(self.log, self.log, clock=self.clock, identifiers=Identifiers(self.clock))
        self.me = self.ledger.open()
        self._sent = self._made = 0

    async def pays(self, plan: str, start: datetime, end: datetime) -> None:
        self._made += 1
        price = paid(PLANS[plan].price_usd_minor, payment_id=f"pay_{self._made}")
        await self.ledger.act(
            self.me,
            c.PayPeriod(
                subscription_id=SUBSCRIPTION,
                plan=PLANS[plan],
                period_start=start,
                period_end=end,
                lot_id=f"lot_{self._made}",
                consideration=price,
            ),
        )

    async def changes(self, current: str, target: str) -> None:
        self._made += 1
        command = c.ChangePlan(
            subscription_id=SUBSCRIPTION,
            current=PLANS[current],
            target=PLANS[target],
            lot_id=f"lot_{self._made}",
        )
        await self.ledger.act(self.me, command)

    async def makes(self, images: int) -> None:
        deadline = self.clock() + 3 * DAY
        hold = await self.ledger.hold(self.me, images, job_id="job_1", deadline=deadline)
        await self.ledger.capture(self.me, hold)

    async def has(self) -> tuple[str, int]:
        seen = await self.ledger.account(self.me)
        return seen.plan, seen.available

    def news(self) -> list[str]:
        """What was granted, and what was warned of, since the last time somebody looked."""
        returned, self._sent = self._sent, len(self.log.log)
        lines = []
        for entry in self.log.log[returned:]:
            match entry.event:
                case CreditsGranted(credits=credits_, plan=plan):
                    lines.append(f"+{credits_} {plan}")
                case UsageWarned(percent=percent, used=used, granted=granted):
                    lines.append(f"{percent}% {used}/{granted}")
        return lines


async def test_from_free_to_starter_to_pro_and_back_from_the_31st_through_a_leap_february() -> None:
    someone = Subscriber(on("2027-12-30", "12:00"))

    # Free: twenty a day and not one more; unused ones end with their day.
    await someone.makes(16)
    await someone.makes(4)
    assert someone.news() == ["+20 free", "80% 16/20", "100% 20/20"]
    with pytest.raises(InsufficientCredits) as refused:
        await someone.makes(1)
    assert refused.value.details == {"wanted": 1, "available": 0}
    someone.clock.set(on("2027-12-31"))
    assert await someone.has() == ("free", 20)

    # Starter on the 31st: no daily allowance beside it, and the credits are granted once.
    await someone.pays("starter", on("2027-12-31"), on("2028-01-31"))
    with pytest.raises(PeriodAlreadyGranted):
        await someone.pays("starter", on("2027-12-31"), on("2028-01-31"))
    assert await someone.has() == ("starter", 2_000)
    await someone.makes(1_600)
    assert someone.news() == ["+2000 starter", "80% 1600/2000"]

    # Pro half-way through the period: half of the difference, now. The marks are those of the sum.
    someone.clock.set(on("2028-01-15", "12:00"))
    await someone.changes("starter", "pro")
    assert await someone.has() == ("pro", 400 + 3_000)
    await someone.makes(2_400)
    assert someone.news() == ["+3000 pro", "80% 4000/5000"]

    # Back to Starter: only when the period ends, which is on the 29th in this February.
    await someone.changes("pro", "starter")
    await someone.makes(1_000)
    assert (await someone.has(), someone.news()) == (("pro", 0), ["100% 5000/5000"])
    with pytest.raises(InsufficientCredits):
        await someone.makes(1)
    someone.clock.set(on("2028-01-31", "01:00"))
    await someone.pays("starter", on("2028-01-31"), on("2028-02-29"))
    assert (await someone.has(), someone.news()) == (("starter", 2_000), ["+2000 starter"])

    # The 29th, then the 31st again: no gap, no overlap, and the old credits last a day longer.
    someone.clock.set(on("2028-02-28", "23:59"))
    await someone.makes(1_900)
    assert someone.news() == ["80% 1900/2000"]
    someone.clock.set(on("2028-02-29", "02:00"))
    await someone.pays("starter", on("2028-02-29"), on("2028-03-31"))
    assert (await someone.has(), someone.news()) == (("starter", 2_100), ["+2000 starter"])
    await someone.makes(100)
    assert someone.news() == [], "what was left over; of the new period nothing is used"
    someone.clock.set(on("2028-03-01"))
    assert await someone.has() == ("starter", 2_000)

    # Cancelled and taken back; cancelled for good: over with the period, without grace, and Free again.
    cancel = c.CancelSubscription(subscription_id=SUBSCRIPTION)
    await someone.ledger.act(someone.me, cancel)
    await someone.ledger.act(someone.me, c.ResumeSubscription(subscription_id=SUBSCRIPTION))
    someone.clock.set(on("2028-03-31", "03:00"))
    assert (await someone.has())[0] == "starter"
    await someone.pays("starter", on("2028-03-31"), on("2028-04-30"))
    await someone.ledger.act(someone.me, cancel)
    someone.clock.set(on("2028-04-29", "23:59"))
    assert await someone.has() == ("starter", 2_000)
    someone.clock.set(on("2028-04-30"))
    assert (await someone.has())[0] == "free"
    someone.clock.set(on("2028-05-01"))
    assert await someone.has() == ("free", 20), "what was paid for outlived its period by a day and no more"


async def test_a_renewal_that_was_not_paid_has_a_day_of_grace_and_then_free_begins() -> None:
    someone = Subscriber(on("2026-11-01"))
    await someone.pays("starter", on("2026-11-01"), on("2026-12-01"))
    await someone.makes(1_000)
    someone.clock.set(on("2026-12-01", "23:59"))
    assert await someone.has() == ("starter", 1_000)
    await someone.makes(100)
    someone.clock.set(on("2026-12-02"))
    assert await someone.has() == ("free", 20)
    assert await someone.ledger.sweep(someone.me) == 1, "the breakage of 900 credits"
    # Paid after all, days late: the whole period's credits, and as many days from now as it would have had.
    someone.clock.set(on("2026-12-05"))
    await someone.makes(5)
    await someone.pays("starter", on("2026-12-01"), on("2027-01-01"))
    assert await someone.has() == ("starter", 2_015)
    assert someone.news() == ["+2000 starter", "+20 free", "+2000 starter"]
    # The provider gives up: over at once for the plan; what was paid for stays until its time is over.
    await someone.ledger.act(
        someone.me, c.EndSubscription(subscription_id=SUBSCRIPTION, reason="payment_failed")
    )
    assert await someone.has() == ("free", 2_015)
    someone.clock.set(on("2027-01-06"))
    assert await someone.has() == ("free", 20)


async def test_a_clock_that_steps_back_over_the_end_of_a_period_grants_nothing_twice() -> None:
    someone = Subscriber(on("2026-12-01", "00:00"))
    await someone.pays("starter", on("2026-11-01"), on("2026-12-01"))
    await someone.pays("starter", on("2026-12-01"), on("2027-01-01"))
    someone.clock.set(on("2026-11-30", "23:59"))
    for start, end in ((on("2026-11-01"), on("2026-12-01")), (on("2026-12-01"), on("2027-01-01"))):
        with pytest.raises(PeriodAlreadyGranted):
            await someone.pays("starter", start, end)
    await someone.makes(1)
    assert someone.news() == ["+2000 starter", "+2000 starter"]

    visitor = Subscriber(on("2026-12-01", "00:00"))
    await visitor.makes(20)
    for wrong in (on("2026-11-30", "23:59"), on("2026-11-29"), on("2026-12-01", "00:01")):
        visitor.clock.set(wrong)
        with pytest.raises(InsufficientCredits):
            await visitor.makes(1)
    assert visitor.news() == ["+20 free", "80% 20/20", "100% 20/20"]


async def test_a_year_of_unlimited_grants_every_day_and_earns_every_cent_of_twelve_payments() -> None:
    someone = Subscriber(on("2027-03-31"))
    ends = [months_after(on("2027-03-31"), months) for months in range(13)]
    assert [f"{end:%m-%d}" for end in (ends[1], ends[2], ends[10], ends[11], ends[12])] == [
        "04-30",
        "05-31",
        "01-31",
        "02-29",
        "03-31",
    ]
    for start, end in pairwise(ends):
        someone.clock.set(start)
        await someone.pays("unlimited", start, end)
        while someone.clock() < end:
            assert await someone.has() == ("unlimited", 1_000)
            await someone.makes(1)
            someone.clock.advance(DAY)
    await someone.ledger.sweep(someone.me)
    days = (ends[-1] - ends[0]).days
    assert days == 366
    assert someone.news() == ["+1000 unlimited"] * days
    earned = [entry.event for entry in someone.log.log if isinstance(entry.event, RevenueEarned)]
    assert len(earned) == days
    assert len({event.day for event in earned}) == days
    assert sum(event.worth.net_minor for event in earned) == 12 * 4_000
    someone.clock.advance(DAY)
    assert await someone.has() == ("free", 20)
