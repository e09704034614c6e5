"""What was counted for an image that never came is counted back, once: its network's free images,
and what its live session has spent.

An end is decided where neither row is at hand. So it leaves a note in `job_usage_reversals`, in its own
transaction; a sweeper takes it away and counts back, in another one.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from generation.domain.deciding import Situation
from generation.store.tables import NETWORKS, SESSIONS, USAGE_REVERSALS, job_usage_reversals
from ledger.clock import Clock
from ledger.followups.rows import FollowUps
from ledger.followups.sweeper import Sweeper, SweepRules
from ledger.identifiers import CommandKey
from ledger.log.model import LogWriter, SideTable, Transaction, UnitOfWork

REVERSALS = FollowUps(kind="usage_reversal", table=job_usage_reversals)
RULES = SweepRules(at_once=100)
"""So many share their commits."""


def note(uow: UnitOfWork, at: Situation) -> None:
    """Remember what an ending job's entry in the queue says was counted for it."""
    entry = at.entry
    if entry is None or (entry.session_id is None and not entry.free_credits):
        return
    row = {
        "job_id": at.job_id,
        "session_id": entry.session_id,
        "credits": at.job.price_credits,
        "free_credits": entry.free_credits,
        "networks": entry.networks or [],
        "due_at": uow.now,
    }
    uow.put(USAGE_REVERSALS, row)


class UsageReversals:
    """Counts back. Safe to run in many processes."""

    def __init__(
        self, *, log: LogWriter, engine: AsyncEngine, clock: Clock, randomness: random.Random | None = None
    ) -> None:
        self._log = log
        self._engine = engine
        self.sweeper = Sweeper(
            REVERSALS,
            self._count_back,
            engine=engine,
            clock=clock,
            randomness=randomness or random.SystemRandom(),
            rules=RULES,
        )

    async def sweep(self) -> int:
        """Take up the notes that are there, at most a hundred; returns how many were counted back."""
        return await self.sweeper.sweep()

    async def count_back(self, session_id: str) -> None:
        """Take up every note of one session, also what a sweeper is just at: when this returns, none is left."""
        notes = sa.select(job_usage_reversals).where(job_usage_reversals.c.session_id == session_id)
        async with self._engine.connect() as connection:
            rows = (await connection.execute(notes)).mappings().all()
        for row in rows:
            await self._count_back(dict(row))

    async def _count_back(self, row: Mapping[str, Any]) -> None:
        job_id, session_id, networks = row["job_id"], row["session_id"], row["networks"]
        rows: list[tuple[SideTable, str]] = [(USAGE_REVERSALS, job_id)]
        rows += [(NETWORKS, key) for key in networks]
        if session_id is not None:
            rows.append((SESSIONS, session_id))

        def decide(uow: UnitOfWork) -> None:
            if uow.get(USAGE_REVERSALS, job_id) is None:
                return
            for key in networks:
                _less(uow, NETWORKS, key, "used", row["free_credits"])
            if session_id is not None:
                _less(uow, SESSIONS, session_id, "requested_credits", row["credits"])
            uow.delete(USAGE_REVERSALS, job_id)

        await self._log.submit(
            Transaction(
                key=CommandKey(f"{job_id}:return"),
                actor="system:returns",
                body=["return", job_id],
                streams=(),
                rows=rows,
                decide=decide,
            )
        )


def _less(uow: UnitOfWork, table: SideTable, key: str, column: str, amount: int) -> None:
    row = uow.get(table, key)
    if row is not None:  # a row that is gone belongs to a day or a session that is over
        uow.put(table, {**row, column: max(0, row[column] - amount)})
