"""What a guest has paid for comes to the person, whatever fails on the way and whenever it becomes free."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import sqlalchemy as sa

from ledger.domain.commands import OpenRefund, ResolveRefund
from ledger.followups.sweeper import SweepRules
from ledger.identifiers import AccountId
from ledger.log.recorder import LOG_LOCK
from projections.due import DueProjection
from tests.ledger.world import HOUR
from tests.processes.merging_house import House
from tests.rails.core.platform import RETURN_URL
from tests.waiting import until

LEASE = SweepRules().lease


async def merged_with_hold(
    house: House, owned: int = 500, held: int = 380
) -> tuple[AccountId, AccountId, str]:
    """A guest who was merged while a job of theirs ran: (guest, person, hold)."""
    guest, person = await house.guest(owned), house.ledger.open()
    hold = await house.hold(guest, held)
    assert await house.guests.merge(guest, person) == owned - held
    assert guest not in await house.waiting()
    return guest, person, hold


@pytest.mark.parametrize("fault", ["busy", "broken", "unknown"])
async def test_a_log_that_does_not_answer_at_sign_in_loses_nothing_and_keeps_nobody_out(
    merging: House, fault: str
) -> None:
    guest, person = await merging.guest(500), merging.ledger.open()
    merging.log.faults.append(fault)
    assert await merging.guests.merge(guest, person) == 0
    assert await merging.waiting() == [guest]
    await merging.sweep_all()
    assert (await merging.paid_of(guest), await merging.paid_of(person)) == (0, 500)


@pytest.mark.parametrize("fault", ["busy", "unknown"])
async def test_a_log_that_does_not_answer_when_credits_become_free_loses_nothing(
    merging: House, fault: str
) -> None:
    guest, person, hold = await merged_with_hold(merging)
    merging.log.faults.append(fault)
    await merging.ledger.release(guest, hold)
    assert await merging.sweeper.sweep() == 0
    assert await merging.waiting() == [guest]
    await merging.sweep_all()
    assert (await merging.paid_of(guest), await merging.paid_of(person)) == (0, 500)


async def release(house: House, guest: AccountId, hold: str) -> int:
    await house.ledger.release(guest, hold)
    return 500


async def expire(house: House, guest: AccountId, hold: str) -> int:
    house.clock.advance(HOUR)
    await house.ledger.sweep(guest)
    return 500


async def capture_a_part(house: House, guest: AccountId, hold: str) -> int:
    await house.ledger.capture(guest, hold, 300)
    return 200


async def pay_once_more(house: House, guest: AccountId, hold: str) -> int:
    await house.buy(guest, 70)
    return 190


@pytest.mark.parametrize("happens", [release, expire, capture_a_part, pay_once_more])
async def test_whatever_leaves_paid_credits_with_a_merged_guest_writes_the_follow_up_with_it(
    merging: House, happens: Callable[[House, AccountId, str], Awaitable[int]]
) -> None:
    guest, person, hold = await merged_with_hold(merging)
    expected = await happens(merging, guest, hold)
    assert await merging.waiting() == [guest], "before anything else ran"
    assert await merging.sweeper.sweep() == 1
    assert (await merging.paid_of(guest), await merging.paid_of(person)) == (0, expected)
    assert await merging.waiting() == []


async def test_a_refund_that_fails_after_the_merge_brings_its_credits_along(merging: House) -> None:
    guest, person = merging.ledger.open(), merging.ledger.open()
    lot = await merging.buy(guest, 100)
    await merging.ledger.act(guest, OpenRefund(refund_id="re_1", lot_id=lot, credits=40))
    assert await merging.guests.merge(guest, person) == 60
    await merging.ledger.act(guest, ResolveRefund(refund_id="re_1", outcome="failed"))
    assert await merging.waiting() == [guest]
    await merging.sweep_all()
    assert (await merging.paid_of(guest), await merging.paid_of(person)) == (0, 100)


async def test_credits_go_on_to_where_the_person_was_merged_meanwhile(merging: House) -> None:
    guest, person, hold = await merged_with_hold(merging)
    last = merging.ledger.open()
    await merging.guests.merge(person, last)
    await merging.ledger.release(guest, hold)
    await merging.sweep_all()
    assert [await merging.paid_of(account) for account in (guest, person, last)] == [0, 0, 500]


async def test_a_guest_whose_new_account_was_merged_before_follows_it(merging: House) -> None:
    guest, old, last = await merging.guest(500), await merging.guest(1), merging.ledger.open()
    await merging.guests.merge(old, last)
    assert await merging.guests.merge(guest, old) == 0
    await merging.sweep_all()
    assert [await merging.paid_of(account) for account in (guest, old, last)] == [0, 0, 501]


async def test_what_can_not_move_is_no_follow_up(merging: House) -> None:
    guest, _, _ = await merged_with_hold(merging, owned=500, held=500)
    await merging.ledger.grant(guest, 20, expires_at=merging.clock() + HOUR)
    assert await merging.waiting() == []
    free = merging.ledger.open()
    await merging.buy(free, 5)
    await merging.ledger.release(free, await merging.hold(free, 5))
    assert await merging.waiting() == [], "this guest is nobody's"


async def test_a_visitor_who_never_did_anything_leaves_no_row(merging: House) -> None:
    assert await merging.guests.merge(merging.ledger.open(), merging.ledger.open()) == 0
    assert await merging.waiting() == []


# --- what begins while somebody signs in ---------------------------------------------------------


WAITING_FOR_THE_LOG = sa.text(
    "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database"
    " WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()"
)


async def under_way(house: House, task: asyncio.Task[Any], count: int) -> None:
    """Wait until so many sessions wait for the log's lock, or the task has decided without it."""

    async def waiting() -> int:
        async with house.engine.connect() as connection:
            return int((await connection.execute(WAITING_FOR_THE_LOG)).scalar_one())

    await until(waiting, lambda sessions: task.done() or sessions >= count, "both wait for the log")


@pytest.mark.parametrize("first", ["the top-up", "the sign-in"])
async def test_a_top_up_that_opens_while_its_guest_signs_in_is_credited_to_the_person(
    merging: House, another: House, first: str
) -> None:
    """Neither sees what the other one is writing: both wait for the log, in two processes."""
    guest, person = merging.ledger.open(), merging.ledger.open()
    platform = another.platform
    opening = platform.payments.open_topup(guest, "fake", wanted=500, return_url=RETURN_URL)
    signing_in = merging.guests.merge(guest, person)
    async with merging.engine.begin() as connection:
        await connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({LOG_LOCK})"))
        tasks = []
        for step in (opening, signing_in) if first == "the top-up" else (signing_in, opening):
            tasks.append(asyncio.create_task(step))
            await under_way(merging, tasks[-1], len(tasks))
    await asyncio.gather(*tasks)
    [topup] = await platform.payments.topups_of(guest)
    await platform.pay(topup.payment_id)
    await platform.network.settle()
    await platform.payments.observe(topup.payment_id)
    await merging.sweep_all()
    assert (await merging.paid_of(guest), await merging.paid_of(person)) == (0, 500)


async def test_a_visitor_who_has_done_nothing_yet_is_moved_by_one_small_event(merging: House) -> None:
    guest, person = merging.ledger.open(), merging.ledger.open()
    for _ in range(3):
        assert await merging.guests.merge(guest, person) == 0
    assert await merging.reader.head() == 1
    assert await merging.guests.merged_into(guest) == person


# --- crashes -------------------------------------------------------------------------------------


async def test_a_process_that_dies_between_the_request_and_the_merge_loses_nothing(merging: House) -> None:
    guest, person, thief = await merging.guest(500), merging.ledger.open(), merging.ledger.open()
    await merging.guests._ask_for(guest, person)
    assert await merging.guests.merge(guest, thief) == 0, "what was asked first stands"
    assert await merging.sweeper.sweep() == 0
    merging.clock.advance(LEASE)
    assert await merging.sweeper.sweep() == 1
    assert [await merging.paid_of(account) for account in (guest, person, thief)] == [0, 500, 0]


async def test_signing_in_again_does_not_wait_for_the_sweeper(merging: House) -> None:
    guest, person = await merging.guest(500), merging.ledger.open()
    await merging.guests._ask_for(guest, person)
    assert await merging.guests.merge(guest, person) == 500
    await merging.sweep_all()
    assert await merging.paid_of(person) == 500


async def test_a_process_that_dies_before_the_merge_loses_nothing(merging: House) -> None:
    guest, person, hold = await merged_with_hold(merging)
    await merging.ledger.release(guest, hold)
    await merging.rows.claim(merging.clock(), merging.clock() + LEASE, 9)
    assert await merging.sweeper.sweep() == 0
    merging.clock.advance(LEASE)
    assert await merging.sweeper.sweep() == 1
    assert (await merging.paid_of(guest), await merging.paid_of(person)) == (0, 500)


async def test_a_process_that_dies_after_the_merge_moves_nothing_twice(merging: House) -> None:
    guest, person, hold = await merged_with_hold(merging)
    await merging.ledger.release(guest, hold)
    [claim] = await merging.rows.claim(merging.clock(), merging.clock() + LEASE, 9)
    await merging.guests.bring_along(claim.row)
    head = await merging.reader.head()
    merging.clock.advance(LEASE)
    assert await merging.sweeper.sweep() == 1
    assert await merging.reader.head() == head
    assert (await merging.paid_of(guest), await merging.paid_of(person)) == (0, 500)


async def test_credits_that_come_between_the_merge_and_its_deletion_are_moved(merging: House) -> None:
    guest, person, hold = await merged_with_hold(merging)
    await merging.buy(guest, 20)
    [claim] = await merging.rows.claim(merging.clock(), merging.clock() + LEASE, 9)
    await merging.guests.bring_along(claim.row)
    await merging.ledger.release(guest, hold)
    await merging.rows.done(claim)
    assert await merging.waiting() == [guest]
    assert await merging.sweeper.sweep() == 1
    assert (await merging.paid_of(guest), await merging.paid_of(person)) == (0, 520)


async def test_two_sweepers_at_once_move_everything_once(merging: House) -> None:
    several = [await merged_with_hold(merging) for _ in range(4)]
    for guest, _, hold in several:
        await merging.ledger.release(guest, hold)
    await asyncio.gather(merging.sweeper.sweep(), merging.another_sweeper().sweep())
    for guest, person, _ in several:
        assert (await merging.paid_of(guest), await merging.paid_of(person)) == (0, 500)
    assert await merging.waiting() == []


async def test_a_guest_who_can_not_be_merged_holds_up_nobody(merging: House) -> None:
    poisoned = await merging.guest(5)
    await merging.guests._ask_for(poisoned, AccountId("nobody_1"))
    merging.clock.advance(LEASE)
    guest, person, hold = await merged_with_hold(merging)
    await merging.ledger.release(guest, hold)
    assert await merging.sweeper.sweep() == 1
    assert await merging.paid_of(person) == 500
    assert await merging.waiting() == [poisoned]


# --- read models command nothing -----------------------------------------------------------------


async def test_a_projection_that_reads_the_log_from_zero_commands_nothing(merging: House) -> None:
    guest, _, hold = await merged_with_hold(merging)
    await merging.ledger.release(guest, hold)
    await merging.sweep_all()
    head = await merging.reader.head()
    for _ in range(2):
        entries = await merging.reader.read(after=0, limit=1_000)
        async with merging.engine.begin() as connection:
            await DueProjection().apply(connection, entries)
    assert await merging.sweeper.sweep() == 0
    assert await merging.reader.head() == head
    assert await merging.waiting() == []


# --- whatever is interleaved ---------------------------------------------------------------------


class Life:
    """A guest who buys, draws and signs in while processes die and the log does not answer."""

    def __init__(self, house: House, randomness: random.Random) -> None:
        self.house, self.random = house, randomness
        self.guest, self.person = house.ledger.open(), house.ledger.open()
        self.owned = 0
        """Paid credits that exist, held ones included."""
        self.holds: dict[str, int] = {}
        self.signed_in = False

    async def step(self) -> None:
        await self.random.choice([self.buy, self.hold, self.end_hold, self.sign_in, self.sweep, self.die])()

    async def buy(self) -> None:
        amount = self.random.randint(1, 50)
        await self.house.buy(self.guest, amount)
        self.owned += amount

    async def hold(self) -> None:
        free = await self.house.paid_of(self.guest)
        if free and not self.signed_in:
            amount = self.random.randint(1, free)
            self.holds[await self.house.hold(self.guest, amount)] = amount

    async def end_hold(self) -> None:
        if not self.holds:
            return
        hold, amount = self.holds.popitem()
        if self.random.random() < 0.5:
            await self.house.ledger.release(self.guest, hold)
        else:
            spent = self.random.randint(1, amount)
            await self.house.ledger.capture(self.guest, hold, spent)
            self.owned -= spent

    async def sign_in(self) -> None:
        self.fail_sometimes()
        await self.house.guests.merge(self.guest, self.person)
        self.signed_in = True

    async def sweep(self) -> None:
        self.fail_sometimes()
        self.house.clock.advance(self.random.choice([LEASE, LEASE // 7, LEASE // 60]))
        await self.house.sweeper.sweep()

    async def die(self) -> None:
        """A process dies with what it had claimed, before or after it moved it."""
        now = self.house.clock()
        for claim in await self.house.rows.claim(now, now + LEASE, 9):
            if self.random.random() < 0.5:
                self.house.log.faults.clear()
                await self.house.guests.bring_along(claim.row)
            if self.random.random() < 0.5:
                await self.buy()
            if self.random.random() < 0.3:
                await self.house.rows.done(claim)

    def fail_sometimes(self) -> None:
        if self.random.random() < 0.4:
            self.house.log.faults.append(self.random.choice(["busy", "unknown"]))


@pytest.mark.parametrize("seed", range(12))
async def test_in_the_end_the_person_has_exactly_what_the_guest_had_paid_for(
    merging: House, seed: int
) -> None:
    life = Life(merging, random.Random(seed))
    for _ in range(40):
        await life.step()
    await life.buy()
    await life.sign_in()
    while life.holds:
        await life.end_hold()
    merging.log.faults.clear()
    await merging.sweep_all()
    assert await merging.paid_of(life.guest) == 0
    assert await merging.paid_of(life.person) == life.owned
