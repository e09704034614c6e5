from __future__ import annotations

import pytest

from ledger.clock import ManualClock
from ledger.domain.account import ACCOUNTS
from ledger.domain.commands import (
    AdjustCredits,
    CaptureHold,
    GrantCredits,
    HoldCredits,
    MoveHold,
    ReleaseHold,
)
from ledger.domain.drafts import capture_in, grant_in, hold_in, move_in, release_in
from ledger.domain.lots import Source
from ledger.domain.refusals import HoldNotOpen, InsufficientCredits
from ledger.errors import IdempotencyConflict
from ledger.identifiers import CommandKey, Identifiers
from ledger.log.memory import MemoryLog
from ledger.log.model import Draft, Transaction
from ledger.plans import NO_PLANS, PLANS, Plan
from ledger.service import Ledger
from tests.ledger.world import DAY, HOUR, MINUTE, NOON, paid


class Desk:
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
    desk = Desk()
    await desk.ledger.grant(desk.account, 500, consideration=paid(500))
    held = await desk.hold(3)
    assert await desk.balance() == (500, 3, 497)
    assert await desk.ledger.capture(desk.account, held, 2) == 2
    assert await desk.balance() == (498, 0, 498)


async def test_the_same_key_gives_the_first_answer_again_and_does_nothing():
    desk = Desk()
    key = desk.ids.command()
    lot = await desk.ledger.grant(desk.account, 5, key=key)
    assert await desk.ledger.grant(desk.account, 5, key=key) == lot
    assert await desk.balance() == (5, 0, 5)
    with pytest.raises(IdempotencyConflict):
        await desk.ledger.grant(desk.account, 6, key=key)


async def test_a_refusal_is_remembered_under_its_key():
    desk = Desk()
    key = desk.ids.command()
    for _ in range(2):
        with pytest.raises(InsufficientCredits) as refused:
            await desk.hold(1, key)
        assert refused.value.details == {"wanted": 1, "available": 0}
        await desk.ledger.grant(desk.account, 5)


async def test_a_hold_is_resolved_once():
    desk = Desk()
    await desk.ledger.grant(desk.account, 5)
    held = await desk.hold(1)
    assert await desk.ledger.release(desk.account, held) == 1
    with pytest.raises(HoldNotOpen):
        await desk.ledger.capture(desk.account, held)


async def test_the_past_stays_readable_by_time_and_by_position():
    desk = Desk()
    await desk.ledger.grant(desk.account, 500, expires_at=NOON + DAY)
    before = await desk.log.head()
    desk.clock.advance(MINUTE)
    await desk.hold(3)
    desk.clock.advance(2 * DAY)
    assert await desk.balance() == (3, 3, 0)
    assert await desk.balance(at_time=NOON) == (500, 0, 500)
    assert await desk.balance(at_time=NOON + MINUTE) == (500, 3, 497)
    assert await desk.balance(at_position=before) == (500, 0, 500)
    assert await desk.balance(at_time=NOON - MINUTE) == (0, 0, 0)


async def test_the_statement_explains_every_credit():
    desk = Desk()
    await desk.ledger.grant(desk.account, 10, reference="pay_7")
    held = await desk.hold(3)
    await desk.ledger.capture(desk.account, held, 2)
    lines = await desk.ledger.statement(desk.account)
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
    desk = Desk(PLANS)
    assert await desk.balance() == (20, 0, 20)
    await desk.hold(3)
    assert await desk.balance() == (20, 3, 17)
    desk.clock.advance(DAY)
    assert await desk.balance() == (23, 3, 20)


async def test_a_refused_first_hold_grants_nothing():
    desk = Desk(PLANS)
    with pytest.raises(InsufficientCredits):
        await desk.hold(21)
    assert await desk.log.head() == 0


async def test_a_sweep_books_what_time_has_done():
    desk = Desk()
    await desk.ledger.grant(desk.account, 5, expires_at=NOON + MINUTE)
    await desk.hold(2)
    desk.clock.advance(DAY)
    # The hold and its slice, then the lot.
    assert await desk.ledger.sweep(desk.account) == 3
    assert await desk.ledger.sweep(desk.account) == 0
    assert (await desk.log.state(desk.account)).state.lots == ()


async def test_a_guest_is_merged_with_one_transaction_over_both_accounts():
    desk = Desk()
    guest = desk.ledger.open()
    await desk.ledger.grant(guest, 7, consideration=paid(70))
    assert await desk.ledger.merge(guest, desk.account) == 7
    assert await desk.ledger.merge(guest, desk.account) == 0
    assert await desk.balance() == (7, 0, 7)


async def test_any_other_command_goes_through_act():
    desk = Desk()
    command = AdjustCredits(
        adjustment_id="adj_1", lot_id="lot_1", credits=5, actor="operator:1", reason="goodwill"
    )
    receipt = await desk.ledger.act(desk.account, command, actor="operator:1")
    assert receipt.result == ["CreditsGranted"]
    assert await desk.balance() == (5, 0, 5)


async def test_paying_for_one_image_is_one_transaction_and_leaves_the_allowance_alone():
    desk = Desk(PLANS)

    def decide(draft: Draft) -> int:
        account = desk.account
        grant = GrantCredits(lot_id="lot_1", credits=1, consideration=paid(1), source=Source.PAYMENT)
        lot = grant_in(draft, account, grant)
        first = HoldCredits(hold_id="h1", job_id="j1", credits=1, deadline=NOON + HOUR, only_lot=lot.lot_id)
        hold_in(draft, account, first)
        return capture_in(draft, account, CaptureHold(hold_id="h1")).credits

    transaction = Transaction(
        key=desk.ids.command(), actor="rail:lightning", body=1, streams=(desk.account,), decide=decide
    )
    assert (await desk.log.submit(transaction)).result == 1
    assert await desk.balance() == (20, 0, 20)


async def test_a_newer_sketch_takes_over_the_hold_of_an_older_one():
    desk = Desk(PLANS)

    def decide(draft: Draft) -> int:
        account = desk.account
        held = hold_in(
            draft, account, HoldCredits(hold_id="h1", job_id="j1", credits=1, deadline=NOON + HOUR)
        )
        move_in(draft, account, MoveHold(hold_id="h1", to_hold_id="h2", job_id="j2", deadline=NOON + HOUR))
        release_in(draft, account, ReleaseHold(hold_id="h2", reason="superseded"))
        return held.allowance_credits

    transaction = Transaction(
        key=desk.ids.command(), actor="a", body=1, streams=(desk.account,), decide=decide
    )
    assert (await desk.log.submit(transaction)).result == 1
    assert await desk.balance() == (20, 0, 20)


async def test_a_plan_with_overage_lets_a_hold_go_beyond_the_allowance():
    plan = Plan(name="free", label="F", price_usd_minor=0, period="day", credits=2, rank=0, overage_limit=5)
    desk = Desk({"free": plan})
    held = await desk.hold(6)
    await desk.ledger.capture(desk.account, held)
    assert (await desk.ledger.account(desk.account)).overage_owed == 4
    with pytest.raises(InsufficientCredits):
        await desk.hold(2)
