"""The ledger without anything else around it: give it a PostgreSQL, get a `Ledger`.

Services wire the same parts themselves, because they put streams of their own and side
tables into the same log; this is for those who want only a ledger.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from ledger.clock import Clock, system_clock
from ledger.domain.account import ACCOUNTS
from ledger.log.categories import Categories
from ledger.log.connections import ReadingPool
from ledger.log.postgres_reader import PostgresLogReader
from ledger.log.recorder import LogRecorder, open_datastore
from ledger.log.sequencer import Sequencer
from ledger.log.tables import create_log_tables
from ledger.plans import NO_PLANS, Plan
from ledger.service import Ledger


@asynccontextmanager
async def open_ledger(
    database_url: str,
    *,
    clock: Clock = system_clock,
    plans: Mapping[str, Plan] = NO_PLANS,
    readers_max: int = 4,
) -> AsyncIterator[Ledger]:
    """A ledger on the PostgreSQL at `database_url` (`postgresql://…`); its tables are made if missing.

    Any number of processes may open the same database. `readers_max` bounds the connections
    for reading; writing needs one.
    """
    categories = Categories([ACCOUNTS])
    await asyncio.to_thread(create_log_tables, database_url)
    datastore = open_datastore(database_url)
    try:
        sequencer = Sequencer(LogRecorder(datastore), categories, clock)
        sequencer.start()
        try:
            async with ReadingPool(database_url, min_size=1, max_size=readers_max, open=False) as pool:
                yield Ledger(sequencer, PostgresLogReader(pool, categories), clock=clock, plans=plans)
        finally:
            await asyncio.to_thread(sequencer.stop)
    finally:
        datastore.close()
