"""kill -9 of PostgreSQL under load, and of writers: what was acknowledged is there, nothing is there by half."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import psycopg
import pytest

from bench.crash import crash
from ledger.clock import system_clock
from ledger.errors import LogUnavailable, OutcomeUnknown
from ledger.log.categories import Categories
from ledger.log.recorder import LogRecorder, open_datastore
from ledger.log.sequencer import Sequencer
from ledger.log.verify import verify
from sandbox.embedded.running import RunningServer
from tests.log.purse import PURSES, add, move
from tests.tables import create_tables

CATEGORIES = Categories([PURSES])
ROUNDS = 5


async def _caller(sequencer: Sequencer, name: str, acknowledged: set[str], stop: asyncio.Event) -> None:
    step = 0
    while not stop.is_set():
        step += 1
        key = f"{name}-{step}"
        source, target = random.sample(("purse_a", "purse_b", "purse_c"), 2)
        try:
            await sequencer.submit(move(key, source, target, 1))
        except (LogUnavailable, OutcomeUnknown):
            continue
        acknowledged.add(key)


@pytest.mark.slow
async def test_what_was_acknowledged_survives_every_kill_of_postgresql(
    start_postgres: Callable[[], RunningServer],
) -> None:
    server = start_postgres()
    acknowledged: set[str] = set()
    create_tables(server.url)
    with open_datastore(server.url) as datastore:
        sequencer = Sequencer(LogRecorder(datastore), CATEGORIES, system_clock)
        sequencer.start()
        for purse in ("purse_a", "purse_b", "purse_c"):
            await sequencer.submit(add(f"fill-{purse}", purse, 1_000_000))
        stop = asyncio.Event()
        callers = [asyncio.create_task(_caller(sequencer, f"c{n}", acknowledged, stop)) for n in range(24)]
        for _ in range(ROUNDS):
            wanted = len(acknowledged) + random.randrange(30, 300)
            async with asyncio.timeout(60):
                while len(acknowledged) < wanted:
                    await asyncio.wait(callers, timeout=0.005)
            server.kill()
            server.start()
        stop.set()
        await asyncio.gather(*callers)
        await asyncio.to_thread(sequencer.stop)
    with psycopg.connect(server.url) as connection:
        rows = connection.execute("SELECT key FROM log_outcomes WHERE refusal IS NULL").fetchall()
        events = connection.execute("SELECT count(*) FROM stored_events").fetchone()
    recorded = {row[0] for row in rows if not row[0].startswith("fill")}
    assert acknowledged <= recorded
    assert events == (3 + 2 * len(recorded),), "a command is there by half"
    assert verify(server.url, CATEGORIES).ok


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [2, pytest.param(8, marks=pytest.mark.thorough)])
def test_writers_and_postgresql_killed_in_turn_lose_nothing(rounds: int) -> None:
    result = crash(rounds=rounds, seed=7)
    assert result["acknowledged"] > 0
    assert result["ok"], result
