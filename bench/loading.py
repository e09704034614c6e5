"""What it costs to load an account that is in nobody's memory: with 10 events behind it, and with a million."""

from __future__ import annotations

import asyncio
import statistics
import time
from datetime import timedelta
from typing import Any

from psycopg_pool import AsyncConnectionPool

from bench.cycles import CATEGORIES, open_accounts, open_ledger
from ledger.clock import system_clock
from ledger.identifiers import AccountId, JobId
from ledger.log.cache import SNAPSHOT_EVERY
from ledger.log.postgres_reader import PostgresLogReader
from ledger.service import Ledger

CALLERS = 1_000
STEP_EVENTS = 4
LOADS = 40
LITTLE = 10


async def loading(url: str, events: int) -> dict[str, Any]:
    """Median milliseconds of loading each account, in turns, wherever its last snapshot happens to be."""
    little, much = await open_accounts(url, 2)
    async with (
        open_ledger(url) as ledger,
        AsyncConnectionPool(url, min_size=1, max_size=1, open=False, kwargs={"autocommit": True}) as pool,
    ):
        reader = PostgresLogReader(pool, CATEGORIES)
        await _fill(ledger, reader, little, LITTLE)
        await _fill(ledger, reader, much, events)
        times: dict[AccountId, list[float]] = {little: [], much: []}
        for _ in range(3 * SNAPSHOT_EVERY // STEP_EVENTS):
            for _ in range(LOADS):
                for account, taken in times.items():
                    began = time.perf_counter()
                    await reader.state(account)
                    taken.append((time.perf_counter() - began) * 1000)
            await _cycles(ledger, much, STEP_EVENTS // 2)
        behind = {account: (await reader.state(account)).version for account in times}
    few, many = (statistics.median(times[account]) for account in (little, much))
    return {
        "events_behind": [behind[little], behind[much]],
        "load_p50_ms": [round(few, 3), round(many, 3)],
        "ratio": round(many / few, 2),
    }


async def _fill(ledger: Ledger, reader: PostgresLogReader, account: AccountId, events: int) -> None:
    missing = events - (await reader.state(account)).version
    await _cycles(ledger, account, max(0, missing) // 2)


async def _cycles(ledger: Ledger, account: AccountId, count: int) -> None:
    left = iter(range(count))

    async def caller() -> None:
        for _ in left:
            deadline = system_clock() + timedelta(minutes=10)
            hold = await ledger.hold(account, 1, job_id=JobId("job_load"), deadline=deadline)
            await ledger.capture(account, hold)

    await asyncio.gather(*(caller() for _ in range(min(count, CALLERS))))
