"""The queue: a table claimed with SKIP LOCKED, ordered by weighted fair queueing.

Every person has a virtual time. A job's tag is the later of the queue's virtual time and its
owner's, and moves the owner's on by cost / weight; so a hundred waiting jobs of one person lie
far behind the first job of another. Each claim moves the queue's virtual time on, to the claimed tag
or by an eighth of that claim's share among everybody who waits: slower than the tags of somebody who
hogs the queue, so that it stays behind his next job, and yet past whoever waits while new people
keep coming.
A job's rank is its tag less its tier's bonus. Three claims of four go by rank, the fourth by tag
alone: whoever has no bonus waits longer, but not for ever, however many others have one.
Virtual time is an integer; one image of a person of weight 1 is `SLOT`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncEngine

from generation.batching import Batcher
from generation.tables import (
    fair_shares,
    job_funding,
    job_inputs,
    job_queue,
    job_results,
    live_sessions,
    network_allowances,
    queue_clock,
    workers,
)
from generation.workers import PRESENT_WITHIN
from ledger.identifiers import AccountId, JobId

SLOT = 1_000_000
_CLOCK = "global"
KNOWN_WITHIN = timedelta(hours=24)
"""A box that was not heard of for longer is no promise that its kind of image can ever be made."""
SESSIONS_KEPT = timedelta(hours=24)
_TEXTS = ARRAY(sa.Text())
_QUICKLY = sa.text("SET LOCAL synchronous_commit = off")


def _known(now: datetime) -> sa.ColumnElement[bool]:
    return sa.and_(workers.c.state != "gone", workers.c.seen_at > now - KNOWN_WITHIN)


class Tier(NamedTuple):
    """How a plan is served."""

    weight: int
    bonus_slots: int
    """How many single-image turns ahead of others it stands."""
    in_flight_max: int


FREE = Tier(weight=1, bonus_slots=0, in_flight_max=24)
PAID = Tier(weight=2, bonus_slots=2, in_flight_max=200)
PRIORITY = Tier(weight=4, bonus_slots=20, in_flight_max=400)
VARIATION_SLOTS = 8
"""How many single-image turns variations of a live session stand behind its frames."""


class Place(NamedTuple):
    """Where a waiting job stands."""

    position: int
    """1 is next."""
    running: int
    boxes: int
    """Boxes heard of lately that can run it."""


class Standing(NamedTuple):
    """What a request needs to know about the queue before it is decided."""

    virtual_time: int
    in_flight: int
    queued: int
    servable: bool = True
    """False if boxes are known and none of them can ever run the graph."""


class Turn(NamedTuple):
    """A job's place: in the order by rank, and in the fair order."""

    rank: int
    tag: int


def turn_of(virtual_time: int, finish: int, cost_credits: int, tier: Tier) -> tuple[Turn, int]:
    """(place, new finish of its owner) of a job: see the module's words."""
    start = max(virtual_time, finish)
    return Turn(start - tier.bonus_slots * SLOT, start), start + cost_credits * SLOT // tier.weight


class JobQueue:
    """The SQL around the queue. Rows are put and removed by transactions of the log."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._rows: Batcher[str, Any] = Batcher(self._load_rows)

    @property
    def engine(self) -> AsyncEngine:
        """Where the queue lives."""
        return self._engine

    async def standing(self, account_id: AccountId, graph: str, now: datetime) -> Standing:
        """The queue's virtual time, the person's jobs in flight, all that wait, and who could serve it."""
        mine = sa.select(sa.func.count()).where(job_queue.c.account_id == account_id)
        waiting = sa.select(sa.func.count()).where(job_queue.c.state == "queued")
        known = sa.exists().where(_known(now))
        able = sa.exists().where(_known(now), workers.c.capabilities["graphs"].contains([graph]))
        query = sa.select(
            sa.select(queue_clock.c.virtual_time).where(queue_clock.c.id == _CLOCK).scalar_subquery(),
            mine.scalar_subquery(),
            waiting.scalar_subquery(),
            sa.or_(able, ~known),
        )
        async with self._engine.connect() as connection:
            virtual_time, in_flight, queued, servable = (await connection.execute(query)).one()
        return Standing(virtual_time or 0, in_flight, queued, servable)

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
            # A heartbeat lost with a crashing server is followed by the next one.
            await connection.execute(_QUICKLY)
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
                    sa.and_(job_queue.c.state != "settling", job_queue.c.deadline <= now),
                )
            )
            .order_by(job_queue.c.deadline)
            .limit(limit)
        )
        async with self._engine.connect() as connection:
            return (await connection.execute(query)).all()

    async def held_by(self, worker_id: str) -> Sequence[Any]:
        """What a box is painting, as far as is known here."""
        query = sa.select(job_queue).where(job_queue.c.worker_id == worker_id, job_queue.c.state == "running")
        async with self._engine.connect() as connection:
            return (await connection.execute(query)).all()

    async def place(self, job_id: JobId, now: datetime) -> Place | None:
        """Where a queued job stands, None if it is not queued."""
        mine = sa.select(job_queue.c.rank, job_queue.c.graph, job_queue.c.state).where(
            job_queue.c.job_id == job_id
        )
        before_it = sa.tuple_(job_queue.c.rank, job_queue.c.job_id)
        async with self._engine.connect() as connection:
            row = (await connection.execute(mine)).one_or_none()
            if row is None or row.state != "queued":
                return None
            boxes = sa.select(sa.func.count()).where(
                workers.c.state == "active",
                workers.c.seen_at > now - PRESENT_WITHIN,
                workers.c.capabilities["graphs"].contains([row.graph]),
            )
            ahead = sa.select(
                sa.func.count().filter(
                    sa.and_(job_queue.c.state == "queued", before_it < sa.tuple_(row.rank, str(job_id)))
                ),
                sa.func.count().filter(job_queue.c.state == "running"),
                boxes.scalar_subquery(),
            )
            before, running, present = (await connection.execute(ahead)).one()
        return Place(before + 1, running, present)

    async def queue_row(self, job_id: JobId) -> Any | None:
        """The queue's row of a job, None once it has ended."""
        return await self._rows.get(job_id)

    async def _load_rows(self, job_ids: Sequence[str]) -> dict[str, Any]:
        query = sa.select(job_queue).where(job_queue.c.job_id == sa.any_(sa.literal(job_ids, _TEXTS)))
        async with self._engine.connect() as connection:
            return {row.job_id: row for row in await connection.execute(query)}

    async def inputs(self, job_id: JobId) -> Any | None:
        """What a job is to be painted from; None if it was erased."""
        return await self._one(sa.select(job_inputs).where(job_inputs.c.job_id == job_id))

    async def result(self, job_id: JobId) -> Any | None:
        """Where a job's image is; None if there is none (any more)."""
        return await self._one(sa.select(job_results).where(job_results.c.job_id == job_id))

    async def funding(self, job_id: JobId) -> Any | None:
        """The payment made for this job alone, None if there is none (any more)."""
        return await self._one(sa.select(job_funding).where(job_funding.c.job_id == job_id))

    async def session(self, session_key: str) -> Any | None:
        """A live session's row."""
        return await self._one(sa.select(live_sessions).where(live_sessions.c.session_id == session_key))

    async def waiting_in_paused(self, session_key: str | None = None, limit: int = 100) -> Sequence[Any]:
        """(job, account, session) of what waits although its live session is paused: in this one, or anywhere."""
        query = (
            sa.select(job_queue.c.job_id, job_queue.c.account_id, job_queue.c.session_id)
            .join(live_sessions, live_sessions.c.session_id == job_queue.c.session_id)
            .where(live_sessions.c.paused, job_queue.c.state == "queued")
            .limit(limit)
        )
        if session_key is not None:
            query = query.where(live_sessions.c.session_id == session_key)
        async with self._engine.connect() as connection:
            return (await connection.execute(query)).all()

    async def recent_milliseconds(self, limit: int = 100) -> Sequence[int]:
        """From lease to image, of the newest results, for estimates."""
        query = (
            sa.select(job_results.c.paint_milliseconds)
            .order_by(job_results.c.completed_at.desc())
            .limit(limit)
        )
        async with self._engine.connect() as connection:
            return list((await connection.execute(query)).scalars())

    async def prune(self, now: datetime, limit: int = 500) -> int:
        """Forget idle live sessions, people whose turn is long past, and yesterday's quotas."""
        old = now - SESSIONS_KEPT
        idle = sa.select(live_sessions.c.session_id).where(live_sessions.c.updated_at < old).limit(limit)
        clock = sa.select(queue_clock.c.virtual_time).where(queue_clock.c.id == _CLOCK).scalar_subquery()
        past = sa.select(fair_shares.c.account_id).where(fair_shares.c.finish <= clock).limit(limit)
        spent = sa.select(network_allowances.c.id).where(network_allowances.c.expires_at < now).limit(limit)
        gone = 0
        for statement in (
            sa.delete(live_sessions).where(live_sessions.c.session_id.in_(idle)),
            sa.delete(fair_shares).where(fair_shares.c.account_id.in_(past), fair_shares.c.finish <= clock),
            sa.delete(network_allowances).where(network_allowances.c.id.in_(spent)),
        ):
            async with self._engine.begin() as connection:
                gone += (await connection.execute(statement)).rowcount
        return gone

    async def _one(self, query: Any) -> Any | None:
        async with self._engine.connect() as connection:
            return (await connection.execute(query)).one_or_none()
