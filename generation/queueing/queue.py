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
from sqlalchemy.ext.asyncio import AsyncEngine

from generation import queue_sql as sql
from generation.batching import Batcher
from generation.pace import Pace, PaceWatch
from generation.workers import PRESENT_WITHIN
from ledger.identifiers import AccountId, JobId

SLOT = 1_000_000
KNOWN_WITHIN = timedelta(hours=24)
"""A box that was not heard of for longer is no promise that its kind of image can ever be made."""
SESSIONS_KEPT = timedelta(hours=24)
TOLD_SESSIONS_KEPT = timedelta(days=30)
"""Those that a person has paused or limited: a pause must not end by itself."""


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
    rank: int
    virtual_time: int
    """The queue's: a rank beyond it lets those pass who come meanwhile."""
    pace: Pace | None = None
    """How fast virtual time moves, as far as this process knows."""


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
        # A single question needs no BEGIN before it and no ROLLBACK after it.
        self._reading = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._watch = PaceWatch()
        self._rows: Batcher[str, Any] = Batcher(self._load_rows)

    @property
    def engine(self) -> AsyncEngine:
        """Where the queue lives."""
        return self._engine

    async def standing(self, account_id: AccountId, graph: str, now: datetime) -> Standing:
        """The queue's virtual time, the person's jobs in flight, all that wait, and who could serve it."""
        known = {"account_id": account_id, "graphs": [graph], "known_since": now - KNOWN_WITHIN}
        async with self._reading.connect() as connection:
            found = await connection.execute(sql.STANDING, known)
            virtual_time, in_flight, queued, servable = found.one()
        return self._stood(Standing(virtual_time or 0, in_flight, queued, servable), now)

    def _stood(self, standing: Standing, now: datetime) -> Standing:
        self._watch.note(now, standing.virtual_time, waiting=standing.queued > 0)
        return standing

    async def ensure_clock(self) -> None:
        """Create the queue's clock row where it is missing."""
        async with self._engine.begin() as connection:
            await connection.execute(
                sa.text("INSERT INTO queue_clock VALUES (:id, 0) ON CONFLICT DO NOTHING"), {"id": sql.CLOCK}
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
        report = {
            "job": job_id,
            "worker": worker_id,
            "lease_epoch": epoch,
            "value": value,
            "maximum": maximum,
            "until": now + lease,
        }
        async with self._engine.begin() as connection:
            # A heartbeat lost with a crashing server is followed by the next one.
            await connection.execute(sql.QUICKLY)
            return (await connection.execute(sql.HEARTBEAT, report)).one_or_none()

    async def ask_cancel(self, job_id: JobId) -> None:
        """Tell whoever runs the job, with the next heartbeat, that it is not wanted any more."""
        async with self._engine.begin() as connection:
            await connection.execute(sql.ASK_CANCEL, {"job": job_id})

    async def lapsed(self, now: datetime, limit: int) -> Sequence[Any]:
        """Jobs whose lease or deadline has passed, oldest first."""
        return await self._all(sql.LAPSED, now=now, most=limit)

    async def held_by(self, worker_id: str) -> Sequence[Any]:
        """What a box is painting, as far as is known here."""
        return await self._all(sql.HELD_BY, worker=worker_id)

    async def place(self, job_id: JobId, now: datetime) -> Place | None:
        """Where a queued job stands, None if it is not queued."""
        row = await self._one(sql.PLACE, job_id=job_id, present_since=now - PRESENT_WITHIN)
        return None if row is None else self._placed(row, now)

    def _placed(self, row: Any, now: datetime) -> Place:
        virtual_time = row.virtual_time or 0
        self._watch.note(now, virtual_time, waiting=True)
        pace = self._watch.pace(now, virtual_time)
        return Place(row.before + 1, row.running, row.boxes, row.rank, virtual_time, pace)

    async def queue_row(self, job_id: JobId) -> Any | None:
        """The queue's row of a job, None once it has ended."""
        return await self._rows.get(job_id)

    async def _load_rows(self, job_ids: Sequence[str]) -> dict[str, Any]:
        return {row.job_id: row for row in await self._all(sql.ROWS, job_ids=job_ids)}

    async def inputs(self, job_id: JobId) -> Any | None:
        """What a job is to be painted from; None if it was erased."""
        return await self._one(sql.INPUTS_OF, key=job_id)

    async def result(self, job_id: JobId) -> Any | None:
        """Where a job's image is; None if there is none (any more)."""
        return await self._one(sql.RESULT_OF, key=job_id)

    async def funding(self, job_id: JobId) -> Any | None:
        """The payment made for this job alone, None if there is none (any more)."""
        return await self._one(sql.FUNDING_OF, key=job_id)

    async def session(self, session_key: str) -> Any | None:
        """A live session's row."""
        return await self._one(sql.SESSION_OF, key=session_key)

    async def waiting_in_paused(self, session_key: str | None = None, limit: int = 100) -> Sequence[Any]:
        """(job, account, session) of what waits although its live session is paused: in this one, or anywhere."""
        if session_key is None:
            return await self._all(sql.WAITING_IN_PAUSED, most=limit)
        return await self._all(sql.WAITING_IN_ONE_PAUSED, most=limit, session=session_key)

    async def recent_milliseconds(self, limit: int = 100) -> Sequence[int]:
        """From lease to image, of the newest results, for estimates."""
        return [row.paint_milliseconds for row in await self._all(sql.RECENT_MILLISECONDS, most=limit)]

    async def prune(self, now: datetime, limit: int = 500) -> int:
        """Forget idle live sessions, people whose turn is long past, and yesterday's quotas."""
        old, older = now - SESSIONS_KEPT, now - TOLD_SESSIONS_KEPT
        known = {"old": old, "older": older, "now": now, "most": limit}
        gone = 0
        for statement in sql.PRUNE:
            async with self._engine.begin() as connection:
                gone += (await connection.execute(statement, known)).rowcount
        return gone

    async def _one(self, statement: sa.Executable, **known: Any) -> Any | None:
        async with self._reading.connect() as connection:
            return (await connection.execute(statement, known)).one_or_none()

    async def _all(self, statement: sa.Executable, **known: Any) -> Sequence[Any]:
        async with self._reading.connect() as connection:
            return (await connection.execute(statement, known)).all()
