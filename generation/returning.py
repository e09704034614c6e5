"""What was counted for an image that never came is counted back, once: its network's free images,
and what its live session has spent.

An end is decided where neither row is at hand. So it leaves a note in `job_returns`, in its own
transaction; whoever finds the note takes it away and counts back, in another one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from generation.job import Job
from generation.tables import NETWORKS, RETURNS, SESSIONS, job_returns
from ledger.identifiers import CommandKey, JobId
from ledger.log.model import Draft, LogWriter, SideTable, Transaction

SWEEP_LIMIT = 100


def note(draft: Draft, job_id: JobId, job: Job, row: Mapping[str, Any] | None) -> None:
    """Remember what an ending job's row in the queue says was counted for it."""
    if row is None:
        return
    session_id, free = row.get("session_id"), row.get("free_credits") or 0
    if session_id is None and not free:
        return
    draft.put(
        RETURNS,
        {
            "job_id": job_id,
            "session_id": session_id,
            "credits": job.price_credits,
            "free_credits": free,
            "networks": row.get("networks") or [],
        },
    )


class Returns:
    """Counts back. Safe to run in many processes."""

    def __init__(self, *, log: LogWriter, engine: AsyncEngine) -> None:
        self._log = log
        self._engine = engine

    async def sweep(self) -> int:
        """Take up the notes that are there, at most a hundred; returns how many there were."""
        async with self._engine.connect() as connection:
            rows = (await connection.execute(sa.select(job_returns).limit(SWEEP_LIMIT))).all()
        await asyncio.gather(*(self._count_back(row) for row in rows))
        return len(rows)

    async def _count_back(self, row: Any) -> None:
        rows: list[tuple[SideTable, str]] = [(RETURNS, row.job_id)]
        rows += [(NETWORKS, key) for key in row.networks]
        if row.session_id is not None:
            rows.append((SESSIONS, row.session_id))

        def decide(draft: Draft) -> None:
            if draft.get(RETURNS, row.job_id) is None:
                return
            for key in row.networks:
                _less(draft, NETWORKS, key, "used", row.free_credits)
            if row.session_id is not None:
                _less(draft, SESSIONS, row.session_id, "requested_credits", row.credits)
            draft.delete(RETURNS, row.job_id)

        await self._log.submit(
            Transaction(
                key=CommandKey(f"{row.job_id}:return"),
                actor="system:returns",
                body=["return", row.job_id],
                streams=(),
                rows=rows,
                decide=decide,
            )
        )


def _less(draft: Draft, table: SideTable, key: str, column: str, amount: int) -> None:
    row = draft.get(table, key)
    if row is not None:  # a row that is gone belongs to a day or a session that is over
        draft.put(table, {**row, column: max(0, row[column] - amount)})
