"""Steps on accounts, as other packages compose them into their own transactions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec
import pytest

from ledger.clock import ManualClock
from ledger.domain import applying
from ledger.domain.account import ACCOUNTS
from ledger.domain.commands import Command, ExpireHold, HoldCredits, PayPeriod, ReleaseHold
from ledger.domain.events import (
    CreditsGranted,
    CreditsHeld,
    HoldExpired,
    HoldReleased,
    LotExpired,
    RevenueEarned,
)
from ledger.domain.refusals import InsufficientCredits
from ledger.identifiers import Identifiers
from ledger.log.model import Event, Transaction, UnitOfWork
from ledger.plans import NO_PLANS, PLANS, Plan
from ledger.testing.memory_log import MemoryLog
from tests.ledger.subscribing import UNLIMITED
from tests.ledger.world import DAY, DEADLINE, HOUR, NOON, grant, hold, paid

OVER = {
    "free": Plan(name="free", label="F", price_usd_minor=0, period="day", credits=2, rank=0, overage_limit=5)
}


class Steps:
    """One account, and transactions that consist of one step each."""

    def __init__(self) -> None:
        self.clock = ManualClock(NOON)
        self.ids = Identifiers(self.clock)
        self.log = MemoryLog([ACCOUNTS], self.clock)
        self.account = self.ids.account()

    async def take(self, step: Callable[[UnitOfWork], Any], *streams: str) -> Any:
        """The result of a step."""
        results: list[Any] = []

        def decide(uow: UnitOfWork) -> None:
            results.append(step(uow))

        await self.log.submit(
            Transaction(
                key=self.ids.command(),
                actor="a",
                body=1,
                streams=streams or (self.account,),
                decide=decide,
            )
        )
        return results[0]

    async def do(self, *commands: Command) -> None:
        """Commands, one after another."""
        for command in commands:
            await self.take(lambda uow, command=command: applying.act_in(uow, self.account, command))

    async def hold(self, command: HoldCredits, plans: Any = NO_PLANS) -> CreditsHeld:
        """A hold with all that goes before it."""
        held: CreditsHeld = await self.take(lambda uow: applying.hold_in(uow, self.account, command, plans))
        return held

    def recorded(self, after: int = 0) -> list[Event]:
        """The events, in the order in which they were recorded."""
        return [entry.event for entry in self.log.log[after:]]

    @property
    def so_far(self) -> int:
        """How many events there are."""
        return len(self.log.log)


def unlimited() -> PayPeriod:
    return PayPeriod(
        subscription_id="sub_1",
        plan=UNLIMITED,
        period_start=NOON,
        period_end=NOON + 30 * DAY,
        lot_id="lot_sub",
        consideration=paid(4_000),
    )


async def test_a_hold_first_books_what_has_lapsed_and_been_earned_and_then_grants_the_allowance() -> None:
    steps = Steps()
    await steps.do(unlimited(), grant(5, "lot_old", expires_at=NOON + HOUR))
    before = steps.so_far
    steps.clock.advance(2 * DAY)
    held = await steps.hold(hold(3, deadline=NOON + 3 * DAY), PLANS)
    assert [type(event) for event in steps.recorded(before)] == [
        LotExpired,
        RevenueEarned,
        RevenueEarned,
        CreditsGranted,
        CreditsHeld,
    ]
    assert held == steps.recorded()[-1]
    assert held.allowance_credits == 3


async def test_a_hold_carries_along_no_more_than_a_bounded_amount_of_overdue_bookkeeping() -> None:
    steps = Steps()
    await steps.do(*(grant(1, f"lot_{n}", expires_at=NOON + HOUR) for n in range(40)), grant(9, "lot_last"))
    before = steps.so_far
    steps.clock.advance(DAY)
    await steps.hold(hold(3, deadline=NOON + 2 * DAY))
    kinds = [type(event) for event in steps.recorded(before)]
    assert kinds == [LotExpired] * applying.HOUSEKEEPING_LIMIT + [CreditsHeld]


async def test_earned_days_are_bounded_too() -> None:
    steps = Steps()
    await steps.do(
        PayPeriod(
            subscription_id="sub_1",
            plan=UNLIMITED,
            period_start=NOON,
            period_end=NOON + 90 * DAY,
            lot_id="lot_sub",
            consideration=paid(4_000),
        ),
        grant(9),
    )
    before = steps.so_far
    steps.clock.advance(60 * DAY)
    await steps.hold(msgspec.structs.replace(hold(3, deadline=NOON + 61 * DAY), allowance=False))
    kinds = [type(event) for event in steps.recorded(before)]
    assert kinds == [RevenueEarned] * applying.HOUSEKEEPING_LIMIT + [CreditsHeld]


async def test_a_hold_that_may_not_use_the_allowance_does_not_bring_it() -> None:
    steps = Steps()
    await steps.do(grant(5))
    command = HoldCredits(hold_id="h1", job_id="j1", credits=5, deadline=DEADLINE, allowance=False)
    assert (await steps.hold(command, PLANS)).allowance_credits == 0
    assert [type(event) for event in steps.recorded()] == [CreditsGranted, CreditsHeld]


async def test_what_a_plan_lets_one_use_beyond_its_credits_is_a_lot_named_after_the_hold() -> None:
    steps = Steps()
    held = await steps.hold(hold(6, "hold_1"), OVER)
    assert [(portion.lot_id, portion.credits) for portion in held.slices][1:] == [("lot_1", 4)]


async def test_a_lot_that_the_caller_has_named_is_used_for_it() -> None:
    steps = Steps()
    command = HoldCredits(hold_id="h1", job_id="j1", credits=6, deadline=DEADLINE, overage_lot="lot_mine")
    held = await steps.hold(command, OVER)
    assert [portion.lot_id for portion in held.slices][1:] == ["lot_mine"]


async def test_a_limit_that_the_caller_has_set_is_not_replaced_by_the_plans() -> None:
    steps = Steps()
    command = HoldCredits(
        hold_id="h1", job_id="j1", credits=6, deadline=DEADLINE, overage_lot="lot_mine", overage_limit=3
    )
    with pytest.raises(InsufficientCredits):
        await steps.hold(command, OVER)


async def test_a_plan_without_overage_lets_nobody_use_more_than_there_is() -> None:
    steps = Steps()
    with pytest.raises(InsufficientCredits):
        await steps.hold(hold(21), PLANS)


async def test_each_step_returns_the_event_that_matters() -> None:
    steps = Steps()
    granted = await steps.take(lambda uow: applying.grant_in(uow, steps.account, grant(9)))
    assert isinstance(granted, CreditsGranted)
    await steps.do(hold(2, "h1"), hold(3, "h2"))
    released = await steps.take(
        lambda uow: applying.release_in(uow, steps.account, ReleaseHold(hold_id="h1"))
    )
    assert isinstance(released, HoldReleased)
    assert released.hold_id == "h1"
    steps.clock.set(DEADLINE)
    expired = await steps.take(lambda uow: applying.expire_in(uow, steps.account, ExpireHold(hold_id="h2")))
    assert isinstance(expired, HoldExpired)
    assert (expired.hold_id, expired.credits) == ("h2", 3)


def overdue(steps: Steps) -> list[Command]:
    """Two holds, two lots and two earned days that nobody has booked."""
    steps.clock.set(NOON)
    return [
        unlimited(),
        grant(5, "lot_a"),
        hold(1, "h1"),
        hold(1, "h2"),
        grant(5, "lot_b", expires_at=NOON + HOUR),
        grant(5, "lot_c", expires_at=NOON + HOUR),
    ]


async def swept(steps: Steps, now: datetime, **options: Any) -> tuple[int, list[type[Event]]]:
    await steps.do(*overdue(steps))
    steps.clock.set(now)
    before = steps.so_far
    booked = await steps.take(lambda uow: applying.sweep_in(uow, steps.account, **options))
    return booked, [type(event) for event in steps.recorded(before)]


async def test_a_sweep_books_late_holds_then_lapsed_lots_then_earned_days_and_counts_them() -> None:
    booked, kinds = await swept(Steps(), NOON + 2 * DAY)
    assert kinds == [HoldExpired] * 2 + [LotExpired] * 2 + [RevenueEarned] * 2
    assert booked == 6


async def test_a_sweep_books_at_most_its_limit_of_each() -> None:
    booked, kinds = await swept(Steps(), NOON + 2 * DAY, limit=1)
    assert kinds == [HoldExpired, LotExpired, RevenueEarned]
    assert booked == 3


async def test_a_sweep_leaves_holds_to_those_who_expire_them_with_their_jobs() -> None:
    booked, kinds = await swept(Steps(), NOON + 2 * DAY, holds=False)
    assert kinds == [LotExpired] * 2 + [RevenueEarned] * 2
    assert booked == 4


async def test_a_merge_returns_the_credits_that_moved() -> None:
    steps = Steps()
    person = steps.ids.account()
    await steps.do(grant(7, money=paid(70)), grant(2, "lot_free"))

    def merge(uow: UnitOfWork) -> int:
        return applying.merge_in(uow, steps.account, person)

    assert await steps.take(merge, steps.account, person) == 7
    assert await steps.take(merge, steps.account, person) == 0
    assert (await steps.log.state(person)).state.posted(NOON) == 7


async def test_a_merge_leaves_behind_what_has_lapsed() -> None:
    steps = Steps()
    person = steps.ids.account()
    await steps.do(grant(7, money=paid(70), expires_at=NOON + HOUR))
    steps.clock.set(NOON + HOUR)
    assert (
        await steps.take(lambda uow: applying.merge_in(uow, steps.account, person), steps.account, person)
        == 0
    )
