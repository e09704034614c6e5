"""Rows that wait are worked off until done; what is wrong with one stays with it, visible, and is tried again."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from ledger.clock import ManualClock
from ledger.errors import TooBusy
from ledger.followups.backoff import Backoff
from ledger.followups.figures import Figures, figures_of, figures_query
from ledger.followups.rows import DueRows, FollowUps, failing_index, problem_of, retry_columns
from ledger.followups.sweeper import Sweeper, SweepRules
from rails.domain.refusals import CannotHold
from tests.waiting import SECONDS_MAX, eventually

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
METADATA = sa.MetaData()
CHORES = sa.Table(
    "chores",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
    *retry_columns(),
    failing_index("chores"),
)
KIND = FollowUps(kind="chore", table=CHORES)
RULES = SweepRules(
    at_once=3,
    pause_seconds=0.01,
    busy_seconds=0.01,
    backoff=Backoff(first_milliseconds=1_000, longest_milliseconds=8_000),
)


@dataclass
class House:
    """Chores in PostgreSQL, and what became of them."""

    engine: AsyncEngine
    clock: ManualClock = field(default_factory=lambda: ManualClock(NOON))
    worked_on: list[str] = field(default_factory=list)
    faults: dict[str, Exception] = field(default_factory=dict)
    stuck: dict[str, asyncio.Event] = field(default_factory=dict)
    due_again: dict[str, datetime] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rows = DueRows(self.engine, KIND)
        self.sweeper = self.another_sweeper()

    def another_sweeper(self, rules: SweepRules = RULES) -> Sweeper:
        """As of another process."""
        return Sweeper(
            KIND,
            self.work,
            engine=self.engine,
            clock=self.clock,
            randomness=random.Random(1),
            rules=rules,
        )

    async def work(self, row: Mapping[str, Any]) -> datetime | None:
        name = row["name"]
        self.worked_on.append(name)
        if name in self.stuck:
            await self.stuck[name].wait()
        if name in self.faults:
            raise self.faults[name]
        return self.due_again.get(name)

    async def put(self, *names: str, due_at: datetime | None = None) -> None:
        """As an event's transaction does it: only key and time are given."""
        rows = [{"name": name, "due_at": due_at or self.clock()} for name in names]
        statement = insert(CHORES).values(rows)
        newer = {"due_at": statement.excluded.due_at}
        async with self.engine.begin() as connection:
            await connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=newer))

    async def waiting(self) -> dict[str, tuple[int, str | None]]:
        """Attempts and last problem by name."""
        async with self.engine.connect() as connection:
            rows = (await connection.execute(sa.select(CHORES))).mappings().all()
        return {row["name"]: (row["attempts"], row["last_problem"]) for row in rows}

    async def due_at(self, name: str) -> datetime:
        async with self.engine.connect() as connection:
            found = await connection.execute(sa.select(CHORES.c.due_at).where(CHORES.c.name == name))
            due_at: datetime = found.scalar_one()
        return due_at.astimezone(UTC)

    async def figures(self) -> Figures:
        async with self.engine.connect() as connection:
            rows = (await connection.execute(figures_query([KIND], self.clock()))).mappings().all()
        [found] = figures_of(rows)
        return found


@pytest.fixture
async def house(make_database: Callable[..., str]) -> AsyncIterator[House]:
    engine = create_async_engine(make_database().replace("postgresql://", "postgresql+psycopg://", 1))
    async with engine.begin() as connection:
        await connection.run_sync(METADATA.create_all)
    yield House(engine)
    await engine.dispose()


@contextlib.asynccontextmanager
async def sweeping(sweeper: Sweeper) -> AsyncIterator[None]:
    """The sweeper's own loop, for as long as the context lasts."""
    task = asyncio.create_task(sweeper.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_is_due_is_worked_off_and_goes_and_the_rest_waits(house: House) -> None:
    await house.put("dishes", "floor")
    await house.put("windows", due_at=NOON + SECOND)
    assert await house.sweeper.sweep() == 2
    assert sorted(house.worked_on) == ["dishes", "floor"]
    assert await house.waiting() == {"windows": (0, None)}
    house.clock.advance(SECOND)
    assert await house.sweeper.sweep() == 1
    assert await house.sweeper.sweep() == 0


async def test_a_round_is_bounded_and_takes_what_is_due_longest(house: House) -> None:
    for number in range(5):
        await house.put(f"chore {number}", due_at=NOON - number * SECOND)
    assert await house.sweeper.sweep() == 3
    assert sorted(house.worked_on) == ["chore 2", "chore 3", "chore 4"]


async def test_a_poisoned_row_holds_up_no_other_and_is_visible(house: House) -> None:
    house.faults["oven"] = RuntimeError("the address of a person")
    await house.put("oven", due_at=NOON - SECOND)
    await house.put("dishes", "floor", "windows", "stairs", "cellar")
    assert await house.sweeper.sweep() == 2
    assert await house.sweeper.sweep() == 3
    assert await house.waiting() == {"oven": (1, "unexpected: RuntimeError")}
    assert await house.figures() == Figures(
        kind="chore", waiting=1, failing=1, oldest=None, attempts=1, problem="unexpected: RuntimeError"
    )


async def test_many_poisoned_rows_hold_up_no_other(house: House) -> None:
    """More than a page of them, each due longer than what is sound."""
    for number in range(7):
        house.faults[f"oven {number}"] = TooBusy()
        await house.put(f"oven {number}", due_at=NOON - SECOND)
    await house.put("dishes")
    for _ in range(3):
        await house.sweeper.sweep()
    assert "dishes" not in await house.waiting()
    assert (await house.figures()).failing == 7


async def test_the_wait_after_a_failure_grows_to_a_bound_and_is_forgotten_with_success(house: House) -> None:
    house.faults["oven"] = TooBusy()
    await house.put("oven")
    waits = []
    for _ in range(7):
        await house.sweeper.sweep()
        due_at = await house.due_at("oven")
        waits.append((due_at - house.clock()) // timedelta(milliseconds=1))
        assert await house.sweeper.sweep() == 0, "not before its time"
        house.clock.advance(due_at - house.clock())
    for wait, full in zip(waits, (1_000, 2_000, 4_000, 8_000, 8_000, 8_000, 8_000), strict=True):
        assert full // 2 <= wait <= full
    assert await house.waiting() == {
        "oven": (7, "too_busy: Too many commands are waiting; nothing was decided. Try again shortly.")
    }
    del house.faults["oven"]
    house.due_again["oven"] = house.clock() + 60 * SECOND
    await house.sweeper.sweep()
    assert await house.waiting() == {"oven": (0, None)}
    assert await house.due_at("oven") == house.clock() + 60 * SECOND


def test_backoff_is_bounded_however_often_something_fails() -> None:
    backoff, randomness = Backoff(), random.Random(1)
    for attempts in (0, 1, 40, 10_000):
        assert timedelta(milliseconds=500) <= backoff.wait(attempts, randomness) <= timedelta(minutes=10)
    assert len({backoff.wait(9, randomness) for _ in range(20)}) > 10, "never in step"


async def test_two_sweepers_work_on_a_row_once(house: House) -> None:
    await house.put(*(f"chore {number}" for number in range(6)))
    done = await asyncio.gather(house.sweeper.sweep(), house.another_sweeper().sweep())
    assert sum(done) == 6
    assert len(house.worked_on) == 6


async def test_what_a_process_that_died_had_claimed_is_worked_off_after_the_lease(house: House) -> None:
    await house.put("dishes")
    await house.rows.claim(house.clock(), house.clock() + RULES.lease, 3)
    assert await house.sweeper.sweep() == 0
    house.clock.advance(RULES.lease)
    assert await house.sweeper.sweep() == 1


@pytest.mark.parametrize("end", ["done", "again", "failed"])
async def test_what_comes_while_a_row_is_worked_on_is_not_lost(house: House, end: str) -> None:
    """Even at the same instant, and although another process claims it and dies."""
    await house.put("dishes")
    lease = house.clock() + RULES.lease
    [first] = await house.rows.claim(house.clock(), lease, 1)
    await house.put("dishes")
    [second] = await house.rows.claim(house.clock(), lease, 1)
    later = house.clock() + timedelta(days=1)
    match end:
        case "done":
            await house.rows.done(first)
        case "again":
            await house.rows.again(first, later)
        case _:
            await house.rows.failed(first, later, "late")
    assert await house.due_at("dishes") == lease
    await house.rows.done(second)
    assert await house.waiting() == {}


async def test_a_row_that_takes_too_long_has_failed(house: House) -> None:
    house.stuck["oven"] = asyncio.Event()
    await house.put("oven", "dishes")
    assert await house.another_sweeper(replace(RULES, work_seconds_max=0.05)).sweep() == 1
    assert await house.waiting() == {"oven": (1, "unexpected: TimeoutError")}


async def test_a_slow_row_holds_up_nobody(house: House) -> None:
    house.stuck["oven"] = asyncio.Event()
    await house.put("oven")
    async with sweeping(house.sweeper):
        await eventually(lambda: "oven" in house.worked_on, "the slow row was begun")
        await house.put("dishes", "floor", "windows", "stairs")
        await eventually(lambda: len(house.worked_on) == 5, "the others were worked on")
        house.stuck["oven"].set()
    assert house.worked_on.count("oven") == 1


async def test_a_fault_of_the_sweep_itself_is_survived(house: House) -> None:
    async def rename(old: str, new: str) -> None:
        async with house.engine.begin() as connection:
            await connection.execute(sa.text(f"ALTER TABLE {old} RENAME TO {new}"))

    asked = 0

    def clock() -> datetime:
        nonlocal asked
        asked += 1
        return NOON

    house.clock = clock  # type: ignore[assignment]
    await house.put("dishes")
    await rename("chores", "away")
    sweeper = house.another_sweeper()
    async with sweeping(sweeper):
        await eventually(lambda: asked > 4, "it goes on in spite of its failures")
        assert house.worked_on == []
        await rename("away", "chores")
        await eventually(lambda: house.worked_on == ["dishes"], "it works again")


async def test_who_gives_up_waiting_stops_nobodys_work(house: House) -> None:
    house.stuck["oven"] = asyncio.Event()
    await house.put("oven")
    impatient = asyncio.create_task(house.sweeper.sweep())
    await eventually(lambda: house.worked_on == ["oven"], "it was begun")
    impatient.cancel()
    await asyncio.gather(impatient, return_exceptions=True)
    house.stuck["oven"].set()
    await house.sweeper.sweep()
    assert await house.waiting() == {}


async def test_work_that_swallows_a_cancellation_does_not_keep_the_process_from_ending(house: House) -> None:
    cancelled = 0

    async def connect(row: Mapping[str, Any]) -> datetime | None:
        nonlocal cancelled
        house.worked_on.append(row["name"])
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled += 1
                if cancelled > 1:
                    raise

    await house.put("oven")
    sweeper = Sweeper(
        KIND, connect, engine=house.engine, clock=house.clock, randomness=random.Random(1), rules=RULES
    )
    async with asyncio.timeout(SECONDS_MAX):
        async with sweeping(sweeper):
            await eventually(lambda: house.worked_on == ["oven"], "it was begun")
    assert cancelled == 2


def test_what_is_kept_of_an_error_does_not_depend_on_its_name_or_description() -> None:
    class Renamed(TooBusy):
        """Another description."""

    assert problem_of(Renamed("ada@example.com")) == problem_of(TooBusy())


def test_a_problem_is_told_in_words_that_are_nobodys() -> None:
    assert problem_of(CannotHold(rail="card")).startswith("cannot_hold: ")
    assert problem_of(ValueError("ada@example.com")) == "unexpected: ValueError"
    assert len(problem_of(type("E" * 500, (Exception,), {})())) == 200


async def test_the_statement_of_a_claim_is_built_once(house: House) -> None:
    """Every process sends it once a second for every kind, mostly for nothing."""
    sent: list[object] = []
    sa.event.listen(house.engine.sync_engine, "before_execute", lambda *known: sent.append(known[1]))
    for _ in range(2):
        await house.rows.claim(NOON, NOON + SECOND, 1)
    assert len(sent) == 2
    assert sent[0] is sent[1]
