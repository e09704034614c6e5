from __future__ import annotations

import pytest

from ledger.clock import ManualClock
from ledger.domain.account import ACCOUNTS
from ledger.domain.applying import capture_in, grant_in, hold_in, move_in, release_in
from ledger.domain.commands import (
    NAMES,
    AdjustCredits,
    CaptureHold,
    Command,
    GrantCredits,
    HoldCredits,
    MoveHold,
    ReleaseHold,
)
from ledger.domain.lots import Source
from ledger.domain.refusals import HoldNotOpen, InsufficientCredits
from ledger.errors import IdempotencyConflict
from ledger.identifiers import CommandKey, Identifiers
from ledger.log.model import Transaction, UnitOfWork
from ledger.plans import NO_PLANS, PLANS, Plan
from ledger.service import Ledger
from ledger.testing.memory_log import MemoryLog
from tests.ledger.world import DAY, HOUR, MINUTE, NOON, paid


class Harness:
    """A ledger in memory with a clock at hand."""

    def __init__(self, plans=NO_PLANS) -> None:
        self.clock = ManualClock(NOON)
        self.log = MemoryLog([ACCOUNTS], self.clock)
        self.ids = Identifiers(self.clock)
        self.ledger = Ledger(self.log, self.log, clock=self.clock, identifiers=self.ids, plans=plans)
        self.account = self.ledger.open()

    async def hold(self, amount: int, key: CommandKey | None = None):
        return await self.ledger.hold(self.account, amount, job_id="job_1", deadline=NOON + HOUR, key=key)

    async def balance(self, **when) -> tuple[int, int, int]:
        seen = await self.ledger.account(self.account, **when)
        return seen.posted, seen.held, seen.available


async def test_the_ten_lines_of_the_documentation_work():
    harness = Harness()
    await harness.ledger.grant(harness.account, 500, consideration=paid(500))
    held = await harness.hold(3)
    assert await harness.balance() == (500, 3, 497)
    assert await harness.ledger.capture(harness.account, held, 2) == 2
    assert await harness.balance() == (498, 0, 498)


async def test_the_same_key_gives_the_first_answer_again_and_does_nothing():
    harness = Harness()
    key = harness.ids.command()
    lot = await harness.ledger.grant(harness.account, 5, key=key)
    assert await harness.ledger.grant(harness.account, 5, key=key) == lot
    assert await harness.balance() == (5, 0, 5)
    with pytest.raises(IdempotencyConflict):
        await harness.ledger.grant(harness.account, 6, key=key)


async def test_a_refusal_is_remembered_under_its_key():
    harness = Harness()
    key = harness.ids.command()
    for _ in range(2):
        with pytest.raises(InsufficientCredits) as refused:
            await harness.hold(1, key)
        assert refused.value.details == {"wanted": 1, "available": 0}
        await harness.ledger.grant(harness.account, 5)


async def test_a_hold_is_resolved_once():
    harness = Harness()
    await harness.ledger.grant(harness.account, 5)
    held = await harness.hold(1)
    assert await harness.ledger.release(harness.account, held) == 1
    with pytest.raises(HoldNotOpen):
        await harness.ledger.capture(harness.account, held)


async def test_the_past_stays_readable_by_time_and_by_position():
    harness = Harness()
    await harness.ledger.grant(harness.account, 500, expires_at=NOON + DAY)
    before = await harness.log.head()
    harness.clock.advance(MINUTE)
    await harness.hold(3)
    harness.clock.advance(2 * DAY)
    assert await harness.balance() == (3, 3, 0)
    assert await harness.balance(at_time=NOON) == (500, 0, 500)
    assert await harness.balance(at_time=NOON + MINUTE) == (500, 3, 497)
    assert await harness.balance(at_position=before) == (500, 0, 500)
    assert await harness.balance(at_time=NOON - MINUTE) == (0, 0, 0)


async def test_the_statement_explains_every_credit():
    harness = Harness()
    await harness.ledger.grant(harness.account, 10, reference="pay_7")
    held = await harness.hold(3)
    await harness.ledger.capture(harness.account, held, 2)
    lines = await harness.ledger.statement(harness.account)
    assert [
        (line.movement.kind, line.movement.credits, line.posted_after, line.held_after) for line in lines
    ] == [
        ("granted", 10, 10, 0),
        ("held", 3, 10, 3),
        ("captured", 2, 8, 0),
    ]
    assert (lines[0].movement.reference_type, lines[0].movement.reference_id) == ("topup", "pay_7")
    assert (lines[2].movement.reference_type, lines[2].movement.reference_id) == ("generation", "job_1")


async def test_the_first_hold_of_a_day_brings_the_allowance_with_it():
    harness = Harness(PLANS)
    assert await harness.balance() == (20, 0, 20)
    await harness.hold(3)
    assert await harness.balance() == (20, 3, 17)
    harness.clock.advance(DAY)
    assert await harness.balance() == (23, 3, 20)


async def test_a_refused_first_hold_grants_nothing():
    harness = Harness(PLANS)
    with pytest.raises(InsufficientCredits):
        await harness.hold(21)
    assert await harness.log.head() == 0


async def test_a_sweep_books_what_time_has_done():
    harness = Harness()
    await harness.ledger.grant(harness.account, 5, expires_at=NOON + MINUTE)
    await harness.hold(2)
    harness.clock.advance(DAY)
    # The hold and its slice, then the lot.
    assert await harness.ledger.sweep(harness.account) == 3
    assert await harness.ledger.sweep(harness.account) == 0
    assert (await harness.log.state(harness.account)).state.lots == ()


async def test_a_guest_is_merged_with_one_transaction_over_both_accounts():
    harness = Harness()
    guest = harness.ledger.open()
    await harness.ledger.grant(guest, 7, consideration=paid(70))
    assert await harness.ledger.merge(guest, harness.account) == 7
    assert await harness.ledger.merge(guest, harness.account) == 0
    assert await harness.balance() == (7, 0, 7)


async def test_any_other_command_goes_through_act():
    harness = Harness()
    command = AdjustCredits(
        adjustment_id="adj_1", lot_id="lot_1", credits=5, actor="operator:1", reason="goodwill"
    )
    receipt = await harness.ledger.act(harness.account, command, actor="operator:1")
    assert receipt.result == ["ledger.credits_granted.v1"]
    assert await harness.balance() == (5, 0, 5)


def test_every_command_has_a_name_that_no_rename_changes():
    assert set(NAMES) == set(Command.__subclasses__())
    assert sorted(NAMES.values()) == [
        "AdjustCredits",
        "BillOverage",
        "CancelSubscription",
        "CaptureHold",
        "ChangePlan",
        "EarnRevenue",
        "EndSubscription",
        "ExpireHold",
        "ExpireLots",
        "ForgiveDebt",
        "GrantCredits",
        "HoldCredits",
        "LoseDispute",
        "MoveHold",
        "OpenRefund",
        "PayPeriod",
        "ReleaseHold",
        "ResolveRefund",
        "RestorePeriod",
        "RestoreReversal",
        "ResumeSubscription",
        "ReverseCredits",
        "RevokePeriod",
        "StopEarning",
    ]


async def test_paying_for_one_image_is_one_transaction_and_leaves_the_allowance_alone():
    harness = Harness(PLANS)

    def decide(uow: UnitOfWork) -> int:
        account = harness.account
        grant = GrantCredits(lot_id="lot_1", credits=1, consideration=paid(1), source=Source.PAYMENT)
        lot = grant_in(uow, account, grant)
        first = HoldCredits(hold_id="h1", job_id="j1", credits=1, deadline=NOON + HOUR, only_lot=lot.lot_id)
        hold_in(uow, account, first)
        return capture_in(uow, account, CaptureHold(hold_id="h1")).credits

    transaction = Transaction(
        key=harness.ids.command(), actor="rail:lightning", body=1, streams=(harness.account,), decide=decide
    )
    assert (await harness.log.submit(transaction)).result == 1
    assert await harness.balance() == (20, 0, 20)


async def test_a_newer_sketch_takes_over_the_hold_of_an_older_one():
    harness = Harness(PLANS)

    def decide(uow: UnitOfWork) -> int:
        account = harness.account
        held = hold_in(uow, account, HoldCredits(hold_id="h1", job_id="j1", credits=1, deadline=NOON + HOUR))
        move_in(uow, account, MoveHold(hold_id="h1", to_hold_id="h2", job_id="j2", deadline=NOON + HOUR))
        release_in(uow, account, ReleaseHold(hold_id="h2", reason="superseded"))
        return held.allowance_credits

    transaction = Transaction(
        key=harness.ids.command(), actor="a", body=1, streams=(harness.account,), decide=decide
    )
    assert (await harness.log.submit(transaction)).result == 1
    assert await harness.balance() == (20, 0, 20)


async def test_a_plan_with_overage_lets_a_hold_go_beyond_the_allowance():
    plan = Plan(name="free", label="F", price_usd_minor=0, period="day", credits=2, rank=0, overage_limit=5)
    harness = Harness({"free": plan})
    held = await harness.hold(6)
    await harness.ledger.capture(harness.account, held)
    assert (await harness.ledger.account(harness.account)).overage_owed == 4
    with pytest.raises(InsufficientCredits):
        await harness.hold(2)
