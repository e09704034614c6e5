"""The queue: a table claimed with SKIP LOCKED, ordered by weighted fair queueing.

Every person has a virtual time. A job's tag is the later of the queue's virtual time and its
owner's, and moves the owner's on by cost / weight; so a hundred waiting jobs of one person lie
far behind the first job of another. A tier's bonus is taken off the tag. Since the queue's
virtual time moves on with every claim, a waiting job ages by itself and needs no re-sorting.
Virtual time is an integer; one image of a person of weight 1 is `SLOT`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from generation.tables import fair_shares, job_inputs, job_queue, job_results, live_sessions, queue_clock
from ledger.identifiers import AccountId, JobId

SLOT = 1000
_CLOCK = "global"


class Tier(NamedTuple):
    """How a plan is served."""

    weight: int
    bonus_slots: int
    """How many single-image turns ahead of others it stands."""
    in_flight_max: int


FREE = Tier(weight=1, bonus_slots=0, in_flight_max=24)
PAID = Tier(weight=2, bonus_slots=2, in_flight_max=200)
PRIORITY = Tier(weight=4, bonus_slots=20, in_flight_max=400)


class Claim(NamedTuple):
    """A leased job: whoever holds this epoch may report on it."""

    job_id: JobId
    account_id: AccountId
    graph: str
    epoch: int
    deadline: datetime
    requested_at: datetime


class Place(NamedTuple):
    """Where a waiting job stands."""

    position: int
    """1 is next."""
    running: int
    workers: int


class Standing(NamedTuple):
    """What a request needs to know about the queue before it is decided."""

    virtual_time: int
    in_flight: int
    queued: int


def tag_of(virtual_time: int, finish: int, cost_credits: int, tier: Tier) -> tuple[int, int]:
    """(rank, new finish) of a job: see the module's words."""
    start = max(virtual_time, finish)
    return start - tier.bonus_slots * SLOT, start + cost_credits * SLOT // tier.weight


class JobQueue:
    """The SQL around the queue. Rows are put and removed by transactions of the log."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def standing(self, account_id: AccountId) -> Standing:
        """The queue's virtual time, the person's jobs in flight, and all that wait."""
        mine = sa.select(sa.func.count()).where(job_queue.c.account_id == account_id)
        waiting = sa.select(sa.func.count()).where(job_queue.c.state == "queued")
        query = sa.select(
            sa.select(queue_clock.c.virtual_time).where(queue_clock.c.id == _CLOCK).scalar_subquery(),
            mine.scalar_subquery(),
            waiting.scalar_subquery(),
        )
        async with self._engine.connect() as connection:
            virtual_time, in_flight, queued = (await connection.execute(query)).one()
        return Standing(virtual_time or 0, in_flight, queued)

    async def claim(
        self, worker_id: str, graphs: Sequence[str], now: datetime, lease: timedelta
    ) -> Claim | None:
        """Lease the next job that this worker can serve: one short transaction of its own.

        The job's stream is told afterwards; a crash in between costs one lease time.
        """
        chosen = (
            sa.select(job_queue.c.job_id)
            .where(
                job_queue.c.state == "queued",
                job_queue.c.graph.in_(graphs),
                job_queue.c.deadline > now,
                sa.or_(job_queue.c.lease_expires_at.is_(None), job_queue.c.lease_expires_at < now),
                ~job_queue.c.refused_workers.contains([worker_id]),
            )
            .order_by(job_queue.c.rank)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        update = (
            sa.update(job_queue)
            .where(job_queue.c.job_id == chosen.scalar_subquery())
            .values(
                worker_id=worker_id,
                epoch=job_queue.c.epoch + 1,
                leased_at=now,
                lease_expires_at=now + lease,
                progress_value=0,
                progress_max=0,
            )
            .returning(
                job_queue.c.job_id,
                job_queue.c.account_id,
                job_queue.c.graph,
                job_queue.c.epoch,
                job_queue.c.deadline,
                job_queue.c.requested_at,
                job_queue.c.rank,
            )
        )
        async with self._engine.begin() as connection:
            row = (await connection.execute(update)).one_or_none()
        if row is None:
            return None
        await self._advance_clock(row.rank)
        return Claim(
            JobId(row.job_id), AccountId(row.account_id), row.graph, row.epoch, row.deadline, row.requested_at
        )

    async def _advance_clock(self, virtual_time: int) -> None:
        statement = (
            sa.update(queue_clock)
            .where(queue_clock.c.id == _CLOCK, queue_clock.c.virtual_time < virtual_time)
            .values(virtual_time=virtual_time)
        )
        async with self._engine.begin() as connection:
            await connection.execute(statement)

    async def ensure_clock(self) -> None:
        """Create the queue's clock row where it is missing."""
        async with self._engine.begin() as connection:
            await connection.execute(
                sa.text("INSERT INTO queue_clock VALUES (:id, 0) ON CONFLICT DO NOTHING"), {"id": _CLOCK}
            )

    async def heartbeat(
        self,
        job_id: JobId,
        worker_id: str,
        epoch: int,
        now: datetime,
        lease: timedelta,
        progress: tuple[int, int],
    ) -> Any | None:
        """Note progress. The lease is extended only if progress moved; None if the lease is lost."""
        value, maximum = progress
        moved = sa.or_(job_queue.c.progress_value != value, job_queue.c.progress_max != maximum)
        statement = (
            sa.update(job_queue)
            .where(
                job_queue.c.job_id == job_id,
                job_queue.c.worker_id == worker_id,
                job_queue.c.epoch == epoch,
                job_queue.c.state == "running",
            )
            .values(
                lease_expires_at=sa.case((moved, now + lease), else_=job_queue.c.lease_expires_at),
                progress_value=value,
                progress_max=maximum,
            )
            .returning(job_queue.c.lease_expires_at, job_queue.c.cancel_asked, job_queue.c.account_id)
        )
        async with self._engine.begin() as connection:
            return (await connection.execute(statement)).one_or_none()

    async def ask_cancel(self, job_id: JobId) -> None:
        """Tell whoever runs the job, with the next heartbeat, that it is not wanted any more."""
        async with self._engine.begin() as connection:
            await connection.execute(
                sa.update(job_queue).where(job_queue.c.job_id == job_id).values(cancel_asked=True)
            )

    async def lapsed(self, now: datetime, limit: int) -> Sequence[Any]:
        """Jobs whose lease or deadline has passed, oldest first."""
        query = (
            sa.select(job_queue)
            .where(
                sa.or_(
                    sa.and_(job_queue.c.state == "running", job_queue.c.lease_expires_at < now),
                    job_queue.c.deadline <= now,
                )
            )
            .order_by(job_queue.c.deadline)
            .limit(limit)
        )
        async with self._engine.connect() as connection:
            return (await connection.execute(query)).all()

    async def place(self, job_id: JobId) -> Place | None:
        """Where a queued job stands, None if it is not queued."""
        mine = sa.select(job_queue.c.rank, job_queue.c.state).where(job_queue.c.job_id == job_id)
        async with self._engine.connect() as connection:
            row = (await connection.execute(mine)).one_or_none()
            if row is None or row.state != "queued":
                return None
            ahead = sa.select(
                sa.func.count().filter(sa.and_(job_queue.c.state == "queued", job_queue.c.rank < row.rank)),
                sa.func.count().filter(job_queue.c.state == "running"),
            )
            before, running = (await connection.execute(ahead)).one()
        return Place(before + 1, running, 0)

    async def queue_row(self, job_id: JobId) -> Any | None:
        """The queue's row of a job, None once it has ended."""
        return await self._one(sa.select(job_queue).where(job_queue.c.job_id == job_id))

    async def inputs(self, job_id: JobId) -> Any | None:
        """What a job is to be painted from; None if it was erased."""
        return await self._one(sa.select(job_inputs).where(job_inputs.c.job_id == job_id))

    async def result(self, job_id: JobId) -> Any | None:
        """Where a job's image is; None if there is none (any more)."""
        return await self._one(sa.select(job_results).where(job_results.c.job_id == job_id))

    async def session(self, session_key: str) -> Any | None:
        """A live session's row."""
        return await self._one(sa.select(live_sessions).where(live_sessions.c.session_id == session_key))

    async def share(self, account_id: AccountId) -> int:
        """A person's virtual finish time."""
        row = await self._one(sa.select(fair_shares).where(fair_shares.c.account_id == account_id))
        return 0 if row is None else int(row.finish)

    async def recent_seconds(self, limit: int = 50) -> Sequence[int]:
        """GPU milliseconds of the newest results, for estimates."""
        query = (
            sa.select(job_results.c.gpu_milliseconds).order_by(job_results.c.completed_at.desc()).limit(limit)
        )
        async with self._engine.connect() as connection:
            return list((await connection.execute(query)).scalars())

    async def _one(self, query: Any) -> Any | None:
        async with self._engine.connect() as connection:
            return (await connection.execute(query)).one_or_none()
