"""Pictures that nobody will ever see: uploaded under a lease that died, was refused or came too late.

A link to upload by outlives its lease and its job, so a picture can still arrive after the job has
ended. Therefore an ending job that was leased leaves a note in `job_leftovers`, in the transaction
that ends it; once every link has expired, all that its leases could have written is deleted, but for
what the last one delivered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from generation.job import Job, JobState
from generation.storage import ObjectStore
from generation.tables import LEFTOVERS, job_leftovers
from ledger.clock import Clock
from ledger.identifiers import JobId
from ledger.log.model import Draft
from ledger.log.reader import LogReader

LINKS_OUTLIVE = timedelta(minutes=15)
"""How long after its job's deadline somebody may still be writing: the links' margin, and a slow upload."""
SWEEP_LIMIT = 100


def upload_key(job_id: JobId, epoch: int) -> str:
    """Where the box with this lease puts its file. No other lease can write there."""
    return f"uploads/{job_id}/{epoch}"


def image_keys(job_id: JobId, epoch: int) -> tuple[str, str]:
    """Where the picture and its thumbnail are kept. The epoch is part of the name: a zombie cannot
    overwrite what another box delivered."""
    return f"images/{job_id}-{epoch}.png", f"images/{job_id}-{epoch}.webp"


def note(draft: Draft, job_id: JobId, job: Job) -> None:
    """Remember to clear up after a job that was leased."""
    if job.epoch and job.deadline is not None:
        draft.put(LEFTOVERS, {"job_id": job_id, "due_at": job.deadline + LINKS_OUTLIVE})


class Leftovers:
    """Deletes them. Safe to run in many processes."""

    def __init__(self, *, engine: AsyncEngine, reader: LogReader, store: ObjectStore, clock: Clock) -> None:
        self._engine = engine
        self._reader = reader
        self._store = store
        self._clock = clock
        self._logger = structlog.get_logger("generation.leftovers")

    async def sweep(self) -> int:
        """Clear up after what is due, at most a hundred jobs; returns after how many."""
        query = (
            sa.select(job_leftovers)
            .where(job_leftovers.c.due_at <= self._clock())
            .order_by(job_leftovers.c.due_at)
            .limit(SWEEP_LIMIT)
        )
        async with self._engine.connect() as connection:
            rows = (await connection.execute(query)).all()
        cleared = 0
        for row in rows:
            cleared += await self._clear(row)
        return cleared

    async def _clear(self, row: Any) -> bool:
        job_id = JobId(row.job_id)
        try:
            job: Job = (await self._reader.state(job_id)).state
            done = job.state.final
            if done:
                await asyncio.gather(*(self._store.delete(key) for key in _unwanted(job_id, job)))
        except Exception as error:  # noqa: BLE001 - whatever log or store raises; the others go on
            self._logger.warning("leftovers_kept", job_id=job_id, error=type(error).__name__)
            done = False
        mine = (job_leftovers.c.job_id == job_id, job_leftovers.c.due_at == row.due_at)
        later = self._clock() + LINKS_OUTLIVE
        statement = (
            sa.delete(job_leftovers).where(*mine)
            if done
            else sa.update(job_leftovers).where(*mine).values(due_at=later)
        )
        async with self._engine.begin() as connection:
            await connection.execute(statement)
        return done


def _unwanted(job_id: JobId, job: Job) -> Iterator[str]:
    """All that the leases of an ended job can have left, without what was delivered."""
    for epoch in range(1, job.epoch + 1):
        yield upload_key(job_id, epoch)
        if job.state is not JobState.COMPLETED or epoch < job.epoch:
            yield from image_keys(job_id, epoch)
