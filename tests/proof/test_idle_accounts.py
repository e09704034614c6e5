"""What time does to accounts that nobody uses is booked by a sweep that visits only those that are due."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from psycopg_pool import AsyncConnectionPool
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from ledger.clock import ManualClock
from ledger.domain import events as e
from ledger.domain.account import ACCOUNTS
from ledger.domain.commands import PayPeriod
from ledger.domain.due import next_due
from ledger.domain.lots import Source
from ledger.followups.rows import DueRows
from ledger.followups.sweeper import Sweeper
from ledger.identifiers import AccountId
from ledger.log.categories import Categories
from ledger.log.postgres_reader import PostgresLogReader
from ledger.log.recorder import LogRecorder, open_datastore
from ledger.log.sequencer import Sequencer
from ledger.log.tables import account_due
from ledger.plans import NO_PLANS, PLANS
from ledger.service import Ledger
from processes.idle_accounts import IDLE_ACCOUNTS, RULES, IdleAccounts
from projections.due import DueProjection
from tests.ledger.world import DAY, HOUR, NOON, paid
from tests.tables import create_tables


class House:
    """A ledger on PostgreSQL, the projection that notes what is due, and a sweeper."""

    def __init__(
        self, engine: AsyncEngine, ledger: Ledger, reader: PostgresLogReader, clock: ManualClock
    ) -> None:
        self.engine, self.ledger, self.reader, self.clock = engine, ledger, reader, clock
        self.idle = IdleAccounts(ledger, reader, clock)
        self.rows = DueRows(engine, IDLE_ACCOUNTS)
        self.sweeper = self.another_sweeper()
        self.followed = 0

    def another_sweeper(self) -> Sweeper:
        """As of another process."""
        return Sweeper(
            IDLE_ACCOUNTS,
            self.idle.visit,
            engine=self.engine,
            clock=self.clock,
            randomness=random.Random(1),
            rules=replace(RULES, at_once=3),
        )

    async def follow(self) -> None:
        entries = await self.reader.read(after=self.followed, limit=1_000)
        async with self.engine.begin() as connection:
            await DueProjection().apply(connection, entries)
        if entries:
            self.followed = entries[-1].position

    async def sweep(self) -> int:
        await self.follow()
        return await self.sweeper.sweep()

    async def due(self) -> dict[str, datetime]:
        async with self.engine.connect() as connection:
            rows = (await connection.execute(sa.select(account_due))).mappings()
            return {row["account_id"]: row["due_at"].astimezone(UTC) for row in rows}

    async def events(self, account: AccountId, kind: type[Any]) -> list[Any]:
        return [x.event for x in await self.reader.events(account) if isinstance(x.event, kind)]

    async def account(self, amount: int, lasts: timedelta | None) -> AccountId:
        account = self.ledger.open()
        expires_at = None if lasts is None else self.clock() + lasts
        await self.ledger.grant(
            account, amount, consideration=paid(amount * 10), source=Source.PASS, expires_at=expires_at
        )
        return account


@pytest.fixture
async def house(make_database: Callable[..., str]) -> AsyncIterator[House]:
    url, clock, categories = make_database(), ManualClock(NOON), Categories([ACCOUNTS])
    engine = create_async_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))
    create_tables(url)
    with open_datastore(url) as datastore:
        sequencer = Sequencer(LogRecorder(datastore), categories, clock)
        sequencer.start()
        async with AsyncConnectionPool(url, min_size=1, max_size=4, open=False) as pool:
            reader = PostgresLogReader(pool, categories)
            yield House(engine, Ledger(sequencer, reader, clock=clock, plans=NO_PLANS), reader, clock)
        await asyncio.to_thread(sequencer.stop)
    await engine.dispose()


async def test_the_breakage_of_an_idle_account_is_booked_when_its_time_has_come(house: House) -> None:
    account = await house.account(5, HOUR)
    assert await house.sweep() == 0
    assert await house.due() == {account: NOON + HOUR}
    house.clock.advance(HOUR)
    assert await house.sweep() == 1
    [lapsed] = await house.events(account, e.LotExpired)
    assert (lapsed.expired.credits, lapsed.expired.worth.net_minor) == (5, 50)
    assert await house.due() == {}
    assert await house.sweep() == 0


async def test_a_subscription_earns_its_money_though_nobody_looks(house: House) -> None:
    account, start = house.ledger.open(), datetime(2026, 11, 22, tzinfo=UTC)
    period = PayPeriod(
        subscription_id="sub_1",
        plan=PLANS["unlimited"],
        period_start=start,
        period_end=start + 3 * DAY,
        lot_id="lot_1",
        consideration=paid(4_000),
    )
    await house.ledger.act(account, period)
    for _ in range(6):
        await house.sweep()
        house.clock.advance(DAY)
    days = await house.events(account, e.RevenueEarned)
    assert [day.ordinal for day in days] == [1, 2, 3]
    assert sum(day.worth.net_minor for day in days) == 4_000
    assert await house.due() == {}


async def test_accounts_that_are_not_due_are_not_visited(house: House) -> None:
    for _ in range(4):
        await house.account(5, None)
        await house.account(5, DAY)
    head = await house.reader.head()
    assert await house.sweep() == 0
    assert await house.reader.head() == head
    assert len(await house.due()) == 4


async def test_a_round_is_bounded_and_takes_those_due_longest(house: House) -> None:
    accounts = [await house.account(1, timedelta(minutes=10 - number)) for number in range(7)]
    house.clock.advance(HOUR)
    assert await house.sweep() == 3
    for account in accounts[-3:]:
        assert len(await house.events(account, e.LotExpired)) == 1
    assert await house.events(accounts[0], e.LotExpired) == []
    assert [await house.sweep() for _ in range(3)] == [3, 1, 0]


async def test_a_hold_is_left_to_those_who_expire_its_job(house: House) -> None:
    account = await house.account(5, HOUR)
    await house.ledger.hold(account, 2, job_id="job_1", deadline=NOON + timedelta(minutes=5))
    house.clock.advance(HOUR)
    assert await house.sweep() == 1
    assert await house.events(account, e.HoldExpired) == []
    [lapsed] = await house.events(account, e.LotExpired)
    assert lapsed.expired.credits == 3
    assert await house.due() == {}, "the held credits lapse with their hold"


@pytest.mark.parametrize("ends", ["before the lot lapses", "after the lot has lapsed"])
async def test_what_was_wholly_held_when_its_account_was_visited_lapses_in_time(
    house: House, ends: str
) -> None:
    """Another lot of the account lapses first, and brings the visit."""
    account = await house.account(3, timedelta(minutes=10))
    lot = await house.ledger.grant(account, 5, expires_at=NOON + HOUR, consideration=paid(50))
    hold = await house.ledger.hold(account, 8, job_id="job_1", deadline=NOON + 2 * HOUR)
    house.clock.advance(timedelta(minutes=10))
    assert await house.sweep() == 0, "it is due again"
    house.clock.set(NOON + (timedelta(minutes=30) if ends == "before the lot lapses" else 2 * HOUR))
    await house.sweep()
    await house.ledger.release(account, hold)
    house.clock.set(NOON + 2 * HOUR)
    await house.sweep()
    lapsed = {event.expired.lot_id: event.expired for event in await house.events(account, e.LotExpired)}
    assert (lapsed[lot].credits, lapsed[lot].worth.net_minor) == (5, 50)
    assert await house.due() == {}


async def test_two_sweepers_visit_an_account_once(house: House) -> None:
    for _ in range(6):
        await house.account(1, HOUR)
    house.clock.advance(HOUR)
    await house.follow()
    other = house.another_sweeper()
    assert sum(await asyncio.gather(house.sweeper.sweep(), other.sweep())) == 6


async def test_what_a_process_that_died_had_taken_is_visited_after_the_lease(house: House) -> None:
    account = await house.account(5, HOUR)
    house.clock.advance(HOUR)
    await house.follow()
    await house.rows.claim(house.clock(), house.clock() + RULES.lease, 3)
    assert await house.sweep() == 0
    house.clock.advance(RULES.lease)
    assert await house.sweep() == 1
    assert len(await house.events(account, e.LotExpired)) == 1


async def test_what_happens_during_a_visit_is_not_forgotten(house: House) -> None:
    """An event is noted after the account was read and before the visit is noted."""
    account = await house.account(5, HOUR)
    house.clock.advance(HOUR)
    await house.follow()
    [claim] = await house.rows.claim(house.clock(), house.clock() + RULES.lease, 3)
    assert await house.idle.visit(claim.row) is None
    await house.ledger.grant(account, 1, expires_at=house.clock() + DAY)
    await house.follow()
    await house.rows.done(claim)
    assert account in await house.due()
    house.clock.advance(RULES.lease)
    await house.sweep()
    assert await house.due() == {account: NOON + HOUR + DAY}


async def test_the_table_can_be_filled_anew_from_the_log(house: House) -> None:
    account = await house.account(5, HOUR)
    house.clock.advance(HOUR)
    assert await house.sweep() == 1
    await house.account(5, HOUR)
    house.followed = 0
    assert await house.sweep() == 1, "once in vain"
    assert len(await house.events(account, e.LotExpired)) == 1
    assert list((await house.due()).values()) == [NOON + 2 * HOUR]


async def test_the_next_due_time_is_known_from_the_state(house: House) -> None:
    account = await house.account(5, DAY)
    await house.ledger.grant(account, 5, expires_at=NOON + HOUR)
    assert next_due((await house.reader.state(account)).state, NOON) == NOON + HOUR
