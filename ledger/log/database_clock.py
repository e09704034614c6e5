"""One clock for all processes: the database's.

Leases, due times and deadlines are written by one process and compared by another. With each machine's own
clock, one that is a minute ahead would take work away from those who are at it. So the clock that a
process passes around is PostgreSQL's: it is asked at the start and once a minute, and between that this
machine's clock counts on. What is left is the time of an answer: milliseconds.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import sqlalchemy as sa
import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from ledger.clock import Clock, CorrectedClock

ASK_EVERY_SECONDS = 60.0
ASK_SECONDS_MAX = 5.0
ANSWER_WITHIN = timedelta(seconds=1)
"""A slower answer says too little about when it was given."""
REPORTED_FROM = timedelta(seconds=2)
"""A machine whose clock is further off is told to its operators."""


class DatabaseClock:
    """Keeps a process's clock at the database's. `clock` is what is passed around."""

    def __init__(self, engine: AsyncEngine, local: Clock) -> None:
        self.clock = CorrectedClock(local)
        self._engine = engine
        self._local = local
        self._log = structlog.get_logger("ledger.log.database_clock")

    async def ask(self) -> bool:
        """Ask what time it is; False if there was no answer, or a late one, and nothing changed."""
        try:
            async with asyncio.timeout(ASK_SECONDS_MAX), self._engine.connect() as connection:
                # The first question also waits for a connection; the second one measures.
                await connection.execute(sa.text("SELECT 1"))
                asked_at = self._local()
                answered = (await connection.execute(sa.text("SELECT clock_timestamp()"))).scalar_one()
                answered_at = self._local()
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            self._log.warning("database_clock_not_asked", error=type(error).__name__)
            return False
        took = answered_at - asked_at
        if not timedelta(0) <= took <= ANSWER_WITHIN:
            return False
        ahead = asked_at + took // 2 - answered
        self.clock.correct(ahead)
        if abs(ahead) >= REPORTED_FROM:
            self._log.warning("clock_differs_from_database", ahead_seconds=ahead.total_seconds())
        return True

    async def run(self) -> None:
        """Ask again and again, until cancelled."""
        while True:
            await asyncio.sleep(ASK_EVERY_SECONDS)
            await self.ask()
