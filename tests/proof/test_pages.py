"""What a projection writes depends on the log alone, not on where a page of it begins or ends."""

from __future__ import annotations

import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from ledger.domain import events as e
from ledger.identifiers import CommandKey
from ledger.log.encoding import EventRow, decode_row
from ledger.log.model import Envelope, Event
from ledger.log.recorder import EVENT_COLUMNS
from ledger.log.tables import account_due
from projections.accounts import AccountProjection
from projections.due import DueProjection
from projections.feed import FeedProjection
from projections.rebuild import TABLES
from projections.tables import balances
from tests.generation.core.samples import SAMPLES as JOB_EVENTS
from tests.proof.harness import CATEGORIES, Harness
from tests.proof.random_commands import Ledger
from tests.proof.walk import live
from tests.rails.core.test_golden import EXAMPLES as PAYMENT_EVENTS

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LIVES = settings(
    max_examples=3, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
MakeReadModels = Callable[[], Awaitable["ReadModels"]]
KEPT = [*itertools.chain.from_iterable(TABLES.values()), account_due]


class ReadModels:
    """What the projections have written, in a schema of its own."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def apply(self, entries: Sequence[Envelope], page: int) -> None:
        """So many events at a time."""
        for start in range(0, len(entries), page):
            for projection in (AccountProjection(), FeedProjection(), DueProjection()):
                await projection.apply(self._connection, entries[start : start + page])

    async def rows(self, table: sa.Table) -> list[tuple[Any, ...]]:
        query = sa.select(table).order_by(*table.primary_key.columns)
        return [tuple(row) for row in await self._connection.execute(query)]

    async def all_rows(self) -> dict[str, list[tuple[Any, ...]]]:
        return {table.name: await self.rows(table) for table in KEPT}


@pytest.fixture
async def read_models(make_database: Callable[..., str]) -> AsyncIterator[MakeReadModels]:
    engine = create_async_engine(make_database().replace("postgresql://", "postgresql+psycopg://", 1))
    async with AsyncExitStack() as stack:
        stack.push_async_callback(engine.dispose)
        numbers = itertools.count()

        async def make() -> ReadModels:
            connection = await stack.enter_async_context(engine.connect())
            schema = f"models_{next(numbers)}"
            await connection.execute(sa.text(f"CREATE SCHEMA {schema}"))
            await connection.execute(sa.text(f"SET search_path TO {schema}"))
            await connection.run_sync(lambda sync: [table.create(sync, checkfirst=False) for table in KEPT])
            return ReadModels(connection)

        yield make


def envelope(position: int, stream: str, version: int, event: Event) -> Envelope:
    key = CommandKey("key")
    return Envelope(position, stream, version, "name", key, "system:test", NOON, NOON, 1, event)


def accounts_of(url: str) -> list[Envelope]:
    with psycopg.connect(url) as connection:
        found = connection.execute(f"SELECT {EVENT_COLUMNS} FROM stored_events ORDER BY notification_id")
        return [decode_row(EventRow(*row), CATEGORIES) for row in found]


def among_jobs_and_payments(accounts: Sequence[Envelope], dice: random.Random) -> list[Envelope]:
    """The same lives with events of jobs and payments in between, each stream in its order."""
    owned = {
        "job": (JOB_EVENTS["generation.job_requested.v1"], list(JOB_EVENTS.values())),
        "pay": (PAYMENT_EVENTS["rails.payment_opened.v1"], list(PAYMENT_EVENTS.values())),
    }
    versions: dict[str, int] = {}
    entries: list[Envelope] = []
    for account in accounts:
        for _ in range(dice.choice([0, 0, 1, 2])):
            kind = dice.choice(["job", "pay"])
            stream = f"{kind}_{dice.randrange(len(accounts))}"
            first, others = owned[kind]
            version = versions[stream] = versions.get(stream, 0) + 1
            event = first if version == 1 else dice.choice(others)
            entries.append(envelope(len(entries) + 1, stream, version, event))
        entries.append(
            Envelope(len(entries) + 1, *(getattr(account, name) for name in Envelope.__struct_fields__[1:]))
        )
    return entries


@pytest.fixture
def lives(harness: Harness) -> list[Envelope]:
    run_state_machine_as_test(Ledger, settings=LIVES)
    live(seed=1)
    return among_jobs_and_payments(accounts_of(harness.url), random.Random(7))


async def test_random_lives_give_the_same_rows_in_pages_of_any_length(
    lives: list[Envelope], read_models: MakeReadModels
) -> None:
    singly, in_sevens, at_once = [await read_models() for _ in range(3)]
    for start in range(0, len(lives), 7):
        await singly.apply(lives[start : start + 7], 1)
        await in_sevens.apply(lives[start : start + 7], 7)
        assert await singly.rows(balances) == await in_sevens.rows(balances)
    await at_once.apply(lives, 1_000)
    expected = await at_once.all_rows()
    assert all(expected.values()), "each table has something in it"
    assert await singly.all_rows() == await in_sevens.all_rows() == expected


async def test_events_that_move_no_credits_leave_a_balance_alone(read_models: MakeReadModels) -> None:
    """In one of these pages each of them is the last, in another it is followed by what moves something."""
    granted = e.CreditsGranted(lot_id="lot_1", source="payment", credits=5, granted_at=NOON, priority=30)
    quiet: list[Event] = [
        e.DisputeLost(reversal_id="rev_1"),
        e.CancellationScheduled(subscription_id="sub_1", at=NOON),
        e.DowngradeScheduled(subscription_id="sub_1", from_plan="pro", to_plan="starter", at=NOON),
    ]
    events = [granted, *quiet, granted, *quiet]
    entries = [envelope(place, "acct_a", place, event) for place, event in enumerate(events, 1)]
    for page in (1, 2, 3, 8):
        models = await read_models()
        await models.apply(entries, page)
        assert await models.rows(balances) == [("acct_a", 10, 0, 0, 5)]
