"""Each night the outside's books are read and compared with ours: on PostgreSQL, against the fake network."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from ledger.followups.sweeper import Sweeper
from ledger.money import BTC, USD, Money
from rails.contract import RailUnavailable, ReceiptState
from rails.domain.refusals import UnknownRail
from rails.movements import MovementKind, MovementPage
from rails.reconciliation.service import RULES, Reconciliation, Report, next_night
from rails.store.differences import Differences
from rails.store.movements import RECONCILIATIONS
from rails.store.reconciling import ReconciliationStore
from rails.testing.fake_books import FakeBooks
from tests.rails.core.platform import Platform, on_postgres, opened, settled

LATER = timedelta(hours=2)


@dataclass
class World:
    """A core on PostgreSQL, the network outside, and what compares both."""

    platform: Platform
    engine: AsyncEngine
    reconciliation: Reconciliation

    @property
    def books(self) -> FakeBooks:
        return self.platform.network.books

    async def paid(self) -> str:
        """Somebody has paid and has their credits; the money's name."""
        topup = await opened(self.platform)
        money = await self.platform.pay(topup.payment_id)
        await settled(self.platform, topup)
        return money

    async def compare(self) -> None:
        """What happened so far is old enough, and compared."""
        self.platform.clock.advance(LATER)
        await self.reconciliation.run("fake")

    async def differences(self, *, closed: bool = False) -> list[tuple[str, str, int | None, int | None]]:
        rows = await Differences(self.engine).listed(closed=closed)
        return [(row["part"], row["reason"], row["ours_minor"], row["theirs_minor"]) for row in rows]

    async def rows(self, table: str) -> list[Mapping[str, Any]]:
        async with self.engine.connect() as connection:
            return list(
                (await connection.execute(sa.text(f"SELECT * FROM {table} ORDER BY 1, 2"))).mappings()
            )


@pytest.fixture
async def world(make_database: Callable[..., str], rails_template: str) -> AsyncIterator[World]:
    url = make_database(template=rails_template)
    engine = create_async_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))
    async with on_postgres(url) as platform:
        rails = platform.rails
        reconciliation = Reconciliation(ReconciliationStore(engine), rails, clock=platform.clock)
        yield World(platform, engine, reconciliation)
    await engine.dispose()


async def test_what_was_paid_agrees_and_the_next_run_has_nothing_to_compare(world: World) -> None:
    for _ in range(5):
        await world.paid()
    world.platform.clock.advance(LATER)
    report = await world.reconciliation.run("fake")
    assert (report.compared, report.opened, report.balance_compared) == (5, 0, True)
    assert await world.differences() == []
    again = await world.reconciliation.run("fake")
    assert (again.movements, again.compared) == (0, 0)


async def test_what_is_young_on_either_side_is_left_for_the_next_run(world: World) -> None:
    await world.paid()
    world.books.entries.clear()
    report = await world.reconciliation.run("fake")
    assert (report.compared, await world.differences()) == (0, [])
    await world.compare()
    assert await world.differences() == [("received", "missing_there", 500, None)]


async def test_money_that_they_know_and_we_do_not_is_found_and_closes_when_we_learn_of_it(
    world: World,
) -> None:
    topup = await opened(world.platform)
    await world.platform.pay(topup.payment_id)
    await world.platform.network.settle()
    await world.compare()
    [(part, reason, ours, theirs)] = await world.differences()
    assert (part, reason, ours) == ("received", "missing_here", None)
    assert theirs == topup.amount_due.minor
    await settled(world.platform, topup)
    await world.compare()
    assert await world.differences() == []
    assert await world.differences(closed=True) == [("received", "missing_here", None, theirs)]


async def test_a_refund_that_nobody_told_us_of_is_found_and_the_credits_are_left_alone(world: World) -> None:
    topup = await opened(world.platform)
    money = await world.platform.pay(topup.payment_id)
    await settled(world.platform, topup)
    await world.compare()
    reference = await world.platform.reference(topup.payment_id)
    await world.platform.network.change(reference, money, ReceiptState.REVERSED)
    before = await world.platform.posted(topup.account_id)
    await world.compare()
    due = topup.amount_due.minor
    assert await world.differences() == [("taken_back", "amount_differs", 0, due)]
    assert await world.platform.posted(topup.account_id) == before
    await world.platform.payments.observe(topup.payment_id)
    await world.compare()
    assert await world.differences() == []


async def test_a_fee_that_we_booked_otherwise_is_found(world: World) -> None:
    await world.paid()
    world.books.entries[0] = replace(
        world.books.entries[0], fee=Money(44, world.books.entries[0].amount.asset)
    )
    await world.compare()
    assert await world.differences() == [("fee", "fee_differs", 0, 44)]


async def test_a_difference_keeps_its_age_and_is_one_row_however_often_it_is_found(world: World) -> None:
    await world.paid()
    world.books.entries.clear()
    for _ in range(3):
        await world.compare()
    [row] = await world.rows("rail_differences")
    assert row["seen_at"] - row["opened_at"] == 2 * LATER
    assert row["payment_id"].startswith("pay_")


async def test_one_that_closed_and_comes_again_is_a_new_row(world: World) -> None:
    await world.paid()
    kept = list(world.books.entries)
    world.books.entries.clear()
    await world.compare()
    world.books.entries[:] = kept
    await world.compare()
    [row] = await world.rows("rail_differences")
    assert row["closed_at"] is not None
    world.books.add(MovementKind.TAKEN_BACK, Money(-3, kept[0].amount.asset), kept[0].money_ref)
    await world.compare()
    assert len(await world.rows("rail_differences")) == 2
    assert await world.differences() == [("taken_back", "amount_differs", 0, 3)]


async def test_a_movement_that_our_reading_missed_shows_in_the_balance(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.paid()
    await world.compare()
    world.books.add(MovementKind.COST, Money(-250, USD))
    whole = FakeBooks.page

    def without_the_last(books: FakeBooks, cursor: str | None) -> MovementPage:
        page = whole(books, cursor)
        return replace(page, movements=[each for each in page.movements if each.amount.minor != -250])

    monkeypatch.setattr(FakeBooks, "page", without_the_last)
    await world.compare()
    assert [found[:2] for found in await world.differences()] == [("balance", "amount_differs")]


async def test_what_was_held_before_the_first_payment_is_no_difference(world: World) -> None:
    world.books.before[BTC] = 1_000_000
    await world.paid()
    await world.compare()
    assert await world.differences() == []
    [book] = await world.rows("rail_books")
    assert book["opening"]["BTC"] == 1_000_000


async def test_a_run_that_stops_anywhere_goes_on_where_it_was(world: World) -> None:
    for _ in range(7):
        await world.paid()
    world.platform.clock.advance(LATER)
    network, calls = world.platform.network, 0
    for stop in range(1, 12):
        calls = 0

        def check(call: str, stop: int = stop) -> None:
            nonlocal calls
            calls += 1
            if calls == stop:
                raise RailUnavailable("stopped")

        network.check = check  # type: ignore[method-assign]
        try:
            await world.reconciliation.run("fake")
        except RailUnavailable:
            continue
        break
    assert len(await world.rows("rail_movements")) == 7
    assert all(row["compared"] for row in await world.rows("rail_movements"))
    assert await world.differences() == []


async def test_two_at_once_write_each_thing_once(world: World) -> None:
    for _ in range(4):
        await world.paid()
    world.books.entries.pop()
    world.platform.clock.advance(LATER)
    await asyncio.gather(*(world.reconciliation.run("fake") for _ in range(4)))
    assert len(await world.rows("rail_movements")) == 3
    assert len(await world.rows("rail_differences")) == 1


async def test_each_rail_has_its_night_and_is_compared_then(world: World) -> None:
    await world.paid()
    await world.reconciliation.ensure()
    await world.reconciliation.ensure()
    [row] = await world.rows("rail_reconciliations")
    assert row["due_at"] == next_night(world.platform.clock())
    sweeper = Sweeper(
        RECONCILIATIONS,
        world.reconciliation.visit,
        engine=world.engine,
        clock=world.platform.clock,
        randomness=random.Random(1),
        rules=RULES,
    )
    await sweeper.sweep()
    assert await world.rows("rail_movements") == []
    world.platform.clock.advance(timedelta(days=1))
    await sweeper.sweep()
    assert len(await world.rows("rail_movements")) == 1
    [row] = await world.rows("rail_reconciliations")
    assert row["due_at"] == next_night(world.platform.clock())
    assert row["attempts"] == 0
    await world.platform.network.set_down(True)
    assert await world.reconciliation.bring_forward() == ["fake"]
    await sweeper.sweep()
    [row] = await world.rows("rail_reconciliations")
    assert (row["attempts"], row["last_problem"].split(":")[0]) == (1, "rail_unavailable")


async def test_a_rail_that_does_not_tell_its_books_is_refused(world: World) -> None:
    for name in ("cash", ""):
        with pytest.raises(UnknownRail):
            await world.reconciliation.run(name)
        with pytest.raises(UnknownRail):
            await world.reconciliation.bring_forward(name)


async def test_what_another_run_reads_while_this_one_compares_is_still_to_be_compared(world: World) -> None:
    money = await world.paid()
    store, now = ReconciliationStore(world.engine), world.platform.clock()
    await world.reconciliation._read("fake", world.platform.rails["fake"], now, Report(rail="fake"))
    sides = await store.sides_of("fake", [money])
    world.books.add(MovementKind.TAKEN_BACK, Money(-100, USD), money_ref=money)
    await world.reconciliation._read("fake", world.platform.rails["fake"], now, Report(rail="fake"))
    seen = [entry.movement_ref for entry in sides.theirs[money]]
    await store.compared("fake", [money], [], now, movements=seen)
    await world.compare()
    assert await world.differences() == [("taken_back", "amount_differs", 0, 100)]
