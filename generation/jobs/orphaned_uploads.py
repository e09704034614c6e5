"""Pictures that nobody will ever see: the sketch of a job that gave no image, and uploads of dead leases.

A job that ends without an image leaves a note in `job_orphaned_uploads`, in the transaction that ends it:
its sketch and prompt are deleted at once, or asking and cancelling would fill the disk for nothing. A link
to upload by outlives its lease and its job, so a picture can still arrive after the job has ended.
Therefore the note of a job that was leased stays until every link has expired; then all that its leases
could have written is deleted, but for what the last one delivered.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from generation.domain.job import Job
from generation.domain.states import JobState
from generation.images.object_store import ObjectStore
from generation.store.tables import ORPHANED_UPLOADS, job_inputs, job_orphaned_uploads
from ledger.clock import Clock
from ledger.followups.backoff import Backoff
from ledger.followups.rows import FollowUps
from ledger.followups.sweeper import Sweeper, SweepRules
from ledger.identifiers import JobId
from ledger.log.model import UnitOfWork
from ledger.log.reader import LogReader

LINKS_OUTLIVE = timedelta(minutes=15)
"""How long after its job's deadline somebody may still be writing: the links' margin, and a slow upload."""
UPLOADS = FollowUps(kind="orphaned_upload", table=job_orphaned_uploads)
_ENDINGS = {"image/png": (".png", ".webp"), "image/webp": ("-image.webp", "-thumbnail.webp")}
"""Of the keys of a picture and its thumbnail, by what the picture is: no two pictures have a key in common."""
RULES = SweepRules(
    at_once=16,
    pause_seconds=60.0,
    backoff=Backoff(first_milliseconds=60_000, longest_milliseconds=3_600_000),
)


def upload_key(job_id: JobId, epoch: int) -> str:
    """Where the worker with this lease puts its file. No other lease can write there."""
    return f"uploads/{job_id}/{epoch}"


def image_keys(job_id: JobId, epoch: int, content_type: str) -> tuple[str, str]:
    """Where the picture and its thumbnail are kept. The epoch is part of the name: a zombie cannot
    overwrite what another worker delivered."""
    image, thumbnail = _ENDINGS[content_type]
    return f"images/{job_id}-{epoch}{image}", f"images/{job_id}-{epoch}{thumbnail}"


def note_uploads(uow: UnitOfWork, job_id: JobId, job: Job) -> None:
    """Remember to clear up what the leases of a job with an image can have left."""
    if job.epoch and job.deadline is not None:
        uow.put(ORPHANED_UPLOADS, {"job_id": job_id, "due_at": job.deadline + LINKS_OUTLIVE})


def note_end(uow: UnitOfWork, job_id: JobId) -> None:
    """Remember to clear up after a job that ends without an image."""
    uow.put(ORPHANED_UPLOADS, {"job_id": job_id, "due_at": uow.now})


class OrphanedUploads:
    """Deletes them. Safe to run in many processes."""

    def __init__(
        self,
        *,
        engine: AsyncEngine,
        reader: LogReader,
        store: ObjectStore,
        clock: Clock,
        randomness: random.Random | None = None,
    ) -> None:
        self._engine = engine
        self._reader = reader
        self._store = store
        self._clock = clock
        self.sweeper = Sweeper(
            UPLOADS,
            self._clear,
            engine=engine,
            clock=clock,
            randomness=randomness or random.SystemRandom(),
            rules=RULES,
        )

    async def sweep(self) -> int:
        """Clear up after what is due, at most as many jobs as are worked on at once; returns after how many."""
        return await self.sweeper.sweep()

    async def _clear(self, row: Mapping[str, Any]) -> datetime | None:
        job_id = JobId(row["job_id"])
        job: Job = (await self._reader.state(job_id)).state
        if not job.state.final:
            return self._clock() + LINKS_OUTLIVE
        await asyncio.gather(*(self._store.delete(key) for key in _unwanted(job_id, job)))
        if job.state is not JobState.COMPLETED:
            await self._erase_inputs(job_id)
        return _links_expire(job, self._clock())

    async def _erase_inputs(self, job_id: JobId) -> None:
        """The file first: a process that dies in between finds its name again.

        The row stays, empty: the reconciliation looks at the accounts of recent requests.
        """
        mine = job_inputs.c.job_id == job_id
        async with self._engine.connect() as connection:
            sketch_key = (await connection.execute(sa.select(job_inputs.c.sketch_key).where(mine))).scalar()
        if not sketch_key:
            return
        await self._store.delete(sketch_key)
        async with self._engine.begin() as connection:
            await connection.execute(sa.update(job_inputs).where(mine).values(prompt="", sketch_key=""))


def _links_expire(job: Job, now: datetime) -> datetime | None:
    """When nobody can write for this job any more; None if that is so already."""
    if not job.epoch or job.deadline is None:
        return None
    end = job.deadline + LINKS_OUTLIVE
    return end if now < end else None


def _unwanted(job_id: JobId, job: Job) -> Iterator[str]:
    """All that the leases of an ended job can have left, without what was delivered."""
    for epoch in range(1, job.epoch + 1):
        yield upload_key(job_id, epoch)
        if job.state is not JobState.COMPLETED or epoch < job.epoch:
            for content_type in _ENDINGS:
                yield from image_keys(job_id, epoch, content_type)
