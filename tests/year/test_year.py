"""A year of a business by card: renewals, failures, plan changes, refunds, disputes, and every fault at once.

At the end ledger, Stripe's balance and journal agree to the cent, nobody has credits that were not paid, and
nobody paid for credits that they lack.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import structlog

from gateway.commands.verify import verify_everything
from gateway.database.schema import migrate
from tests.gateway.stack import settings_for
from tests.year.checks import agrees
from tests.year.people import ACTS, Person, act
from tests.year.world import Year, living

STEP = timedelta(days=3)
MONTH_DAYS = 30


def faults(year: Year) -> dict[str, object]:
    """What goes wrong in one step."""
    chance = year.randomness
    return {
        "duplicate": chance.randint(0, 6),
        "drop": chance.randint(0, 6),
        "reorder": chance.random() < 0.2,
        "delay_ms": 50 if chance.random() < 0.2 else 0,
        "error_500": chance.randint(0, 1),
        "refuse_500": chance.randint(0, 2),
        "refuse_429": chance.randint(0, 2),
        "timeout_after_commit": int(chance.random() < 0.05),
        "fail_renewals": chance.randint(0, 2),
        "challenge_renewals": int(chance.random() < 0.3),
        "unpaid_at_last": chance.random() < 0.5,
    }


async def live(year: Year, customers: int, months: int, done: Counter[str]) -> None:
    """All customers join within the first half, and live until the end."""
    steps = months * MONTH_DAYS // STEP.days
    people = [
        Person(year.services.base.identifiers.account(), year.randomness.randrange(max(1, steps // 2)))
        for _ in range(customers)
    ]
    for step in range(steps):
        await year.set_faults(**faults(year))
        await year.advance(STEP)
        for person in people:
            if person.joins <= step:
                await act(year, person, done)
        await year.settle()
        if step % 10 == 9:
            await year.services.payments.reconciliation.run("card")
    await year.set_faults()
    for _ in range(3):
        await year.advance(timedelta(days=2))
        await year.settle()
    await year.advance(timedelta(hours=2))


async def whole_year(
    folder: Path, database_url: str, valkey_url: str, *, customers: int, months: int, seed: int
) -> tuple[dict[str, int], Counter[str]]:
    """Live it, and have everything checked."""
    settings = settings_for(database_url, valkey_url, folder / "data")
    done: Counter[str] = Counter()
    days = (months + 1) * MONTH_DAYS
    async with living(settings, folder, days, seed) as year:
        await live(year, customers, months, done)
        figures = await agrees(year, database_url)
    report = await asyncio.to_thread(verify_everything, database_url)
    assert report.findings == [], report.findings[:3]
    return figures, done


@pytest.mark.thorough
async def test_after_some_months_of_ten_customers_everything_agrees(
    tmp_path: Path, make_database: Callable[..., str], valkey_url: str
) -> None:
    url = make_database()
    migrate(url.replace("postgresql://", "postgresql+psycopg://", 1))
    figures, done = await whole_year(tmp_path, url, valkey_url, customers=10, months=3, seed=11)
    assert figures["payments"] > 10
    structlog.get_logger("tests.year").info("year_lived", **figures, done=dict(done))


@pytest.mark.slow_suite
@pytest.mark.parametrize("seed", [1])
async def test_after_a_year_of_two_hundred_customers_everything_agrees(
    tmp_path: Path, make_database: Callable[..., str], valkey_url: str, seed: int
) -> None:
    url = make_database()
    migrate(url.replace("postgresql://", "postgresql+psycopg://", 1))
    figures, done = await whole_year(tmp_path, url, valkey_url, customers=200, months=13, seed=seed)
    assert figures["payments"] > 1_500
    assert {work.__name__ for work, _ in ACTS} <= set(done), "everything was done at least once"
    structlog.get_logger("tests.year").info("year_lived", **figures, done=dict(done))
