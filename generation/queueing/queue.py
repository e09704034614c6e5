"""The queue: a table claimed with SKIP LOCKED, ordered by weighted fair queueing.

The order among people is in `generation.domain.fairness`. Each claim moves the queue's virtual time on, to the claimed tag
or by an eighth of that claim's share among everybody who waits: slower than the tags of somebody who
hogs the queue, so that it stays behind his next job, and yet past whoever waits while new people
keep coming.
Three claims of four go by rank, the fourth by tag alone: whoever has no bonus waits longer, but not for
ever, however many others have one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa
from psycopg.rows import namedtuple_row
from psycopg_pool import AsyncConnectionPool
from sqlalchemy.ext.asyncio import AsyncEngine

from generation.domain.paid_apart import EVERYBODY, PaidApart
from generation.domain.quotas import NetworkQuota
from generation.domain.rows import FundingEntry, JobProgress, QueueEntry
from generation.domain.sessions import LiveSession
from generation.fleet.registry import PRESENT_WITHIN
from generation.queueing import statements as sql
from generation.queueing.estimating import Place
from generation.queueing.pace import PaceWatch
from generation.queueing.watch import KNOWN_WITHIN, QueueSummary, QueueWatch
from generation.store.autocommit import Autocommit
from generation.store.batching import Batcher
from generation.store.tables import network_allowances
from ledger.identifiers import AccountId, JobId

SESSIONS_KEPT = timedelta(hours=24)
SEEDS_MAX = 20_000
"""Seeds that are kept in memory: a job's never changes."""
CHANGED_SESSIONS_KEPT = timedelta(days=30)
"""Those that a person has paused or limited: a pause must not end by itself."""


IN_FLIGHT_MAX = 10
"""The newest jobs of an account of which it is told where they are."""


class JobInFlight(NamedTuple):
    """A job that waits or is being painted."""

    job_id: JobId
    account_id: str
    state: str
    progress_value: int
    progress_max: int
    place: Place | None
    """Where it waits; None if it does not wait."""


class WaitingFrame(NamedTuple):
    """The newest frame of a session, and whose it is; None once it has left the queue."""

    job_id: JobId
    account_id: AccountId | None


class JobOfSession(NamedTuple):
    """A frame or variation, and whose it is."""

    job_id: JobId
    account_id: AccountId


class JobQueue:
    """The SQL around the queue. Rows are put and removed by transactions of the log."""

    def __init__(self, engine: AsyncEngine, pool: AsyncConnectionPool[Any]) -> None:
        """`pool` is for what every poll asks."""
        self._engine = engine
        self._pool = pool
        self._reading = Autocommit(engine)
        self._pace = PaceWatch()
        self.watch = QueueWatch(self._reading, self._pace)
        """The same queue, kept in memory for a moment."""
        self._entries: Batcher[str, QueueEntry] = Batcher(self._load_entries)
        self._seeds: Batcher[str, int] = Batcher(self._load_seeds)
        self._known_seeds: dict[str, int] = {}

    @property
    def engine(self) -> AsyncEngine:
        """Where the queue lives."""
        return self._engine

    async def summary(self, account_id: AccountId, graph: str, now: datetime) -> QueueSummary:
        """The queue's virtual time, the person's jobs in flight, all that wait, and who could serve it."""
        known = {"account_id": account_id, "graphs": [graph], "known_since": now - KNOWN_WITHIN}
        async with self._reading.connect() as connection:
            found = await connection.execute(sql.SUMMARY, known)
            virtual_time, in_flight, queued, servable = found.one()
        return self._noted(QueueSummary(virtual_time or 0, in_flight, queued, servable), now)

    async def used_today(self, quotas: Sequence[NetworkQuota]) -> dict[str, int]:
        """Free credits counted at these networks, by key; those without any are left out."""
        keys = [quota.key for quota in quotas]
        query = sa.select(network_allowances.c.id, network_allowances.c.used)
        async with self._reading.connect() as connection:
            found = await connection.execute(query.where(network_allowances.c.id.in_(keys)))
            return {row.id: row.used for row in found}

    async def paid_apart(self, now: datetime) -> int:
        """How many jobs of everybody are paid by payments of their own."""
        row = await self._one(sql.PAID_APART_OF, key=EVERYBODY)
        return PaidApart.of(EVERYBODY, None if row is None else row._asdict(), now).jobs

    def _noted(self, summary: QueueSummary, now: datetime) -> QueueSummary:
        self._pace.note(now, summary.virtual_time, waiting=summary.queued > 0)
        return summary

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
        progress: JobProgress,
    ) -> Any | None:
        """Note progress. The lease is extended only if something moved; None if the lease is lost."""
        report = {
            "job": job_id,
            "worker": worker_id,
            "lease_epoch": epoch,
            "value": progress.value,
            "maximum": progress.maximum,
            "moved": progress.moved,
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

    async def lapsed(self, now: datetime, limit: int) -> Sequence[QueueEntry]:
        """Jobs whose lease or deadline has passed, oldest first."""
        return _entries(await self._all(sql.LAPSED, now=now, most=limit))

    async def held_by(self, worker_id: str) -> Sequence[QueueEntry]:
        """What a worker is making, as far as is known here."""
        return _entries(await self._all(sql.HELD_BY, worker=worker_id))

    async def place(self, job_id: JobId, now: datetime) -> Place | None:
        """Where a queued job stands, None if it is not queued."""
        row = await self._one(sql.PLACE, job_id=job_id, present_since=now - PRESENT_WITHIN)
        return None if row is None else self._placed(row, now)

    async def place_and_recent(self, job_id: JobId, now: datetime) -> tuple[Place, Sequence[int]] | None:
        """As `place`, and `recent_milliseconds` with it."""
        known = {**sql.PLACE_AND_RECENT_USUAL, "job_id": job_id, "present_since": now - PRESENT_WITHIN}
        async with (
            self._pool.connection() as connection,
            connection.cursor(row_factory=namedtuple_row) as cursor,
        ):
            await cursor.execute(sql.PLACE_AND_RECENT, known, prepare=True)
            row = await cursor.fetchone()
        return None if row is None else (self._placed(row, now), row.recent_milliseconds)

    async def in_flight(self, account_ids: Sequence[str], now: datetime) -> Sequence[JobInFlight]:
        """Where the `IN_FLIGHT_MAX` newest jobs of each of these accounts stand, of all in one question."""
        known = {
            "account_ids": list(account_ids),
            "most": IN_FLIGHT_MAX,
            "present_since": now - PRESENT_WITHIN,
        }
        return [
            JobInFlight(
                JobId(row.job_id),
                row.account_id,
                row.state,
                row.progress_value,
                row.progress_max,
                None if row.before is None else self._placed(row, now),
            )
            for row in await self._all(sql.IN_FLIGHT, **known)
        ]

    async def unfinished(self, account_ids: Sequence[str]) -> Sequence[JobId]:
        """The `IN_FLIGHT_MAX` newest jobs of these accounts that have not ended, newest first; none of live sessions."""
        found = await self._all(sql.UNFINISHED, account_ids=list(account_ids), most=IN_FLIGHT_MAX)
        return [JobId(row.job_id) for row in found]

    def _placed(self, row: Any, now: datetime) -> Place:
        virtual_time = row.virtual_time or 0
        self._pace.note(now, virtual_time, waiting=True)
        pace = self._pace.pace(now, virtual_time)
        return Place(row.before + 1, row.running, row.workers, row.rank, virtual_time, pace)

    async def entry(self, job_id: JobId) -> QueueEntry | None:
        """The queue's entry of a job, None once it has ended."""
        return await self._entries.get(job_id)

    async def _load_entries(self, job_ids: Sequence[str]) -> dict[str, QueueEntry]:
        return {entry.job_id: entry for entry in _entries(await self._all(sql.ROWS, job_ids=job_ids))}

    async def seed(self, job_id: JobId) -> int | None:
        """The seed of a job, None if its inputs are not there (any more)."""
        seed = self._known_seeds.get(job_id)
        if seed is None:
            seed = await self._seeds.get(job_id)
            if seed is not None:
                self._known_seeds[job_id] = seed
            if len(self._known_seeds) > SEEDS_MAX:
                del self._known_seeds[next(iter(self._known_seeds))]
        return seed

    async def _load_seeds(self, job_ids: Sequence[str]) -> dict[str, int]:
        return {row.job_id: row.seed for row in await self._all(sql.SEEDS, job_ids=job_ids)}

    async def result(self, job_id: JobId) -> Any | None:
        """Where a job's image is; None if there is none (any more)."""
        return await self._one(sql.RESULT_OF, key=job_id)

    async def funding(self, job_id: JobId) -> FundingEntry | None:
        """The payment made for this job alone, None if there is none (any more)."""
        row = await self._one(sql.FUNDING_OF, key=job_id)
        return None if row is None else FundingEntry.from_row(row._asdict())

    async def session(self, session_key: str) -> LiveSession | None:
        """A live session, None if it was never used or is forgotten."""
        row = await self._one(sql.SESSION_OF, key=session_key)
        return None if row is None else LiveSession.from_row(row._asdict())

    async def newest_session(self, session_keys: Sequence[str]) -> LiveSession | None:
        """The one of these sessions that was used last, None if none ever was."""
        row = await self._one(sql.NEWEST_SESSION, names=list(session_keys))
        return None if row is None else LiveSession.from_row(row._asdict())

    async def unfinished_session(self, session_keys: Sequence[str]) -> LiveSession | None:
        """The one of these sessions that was used last, of those with jobs that have not ended."""
        row = await self._one(sql.NEWEST_UNFINISHED_SESSION, names=list(session_keys))
        return None if row is None else LiveSession.from_row(row._asdict())

    async def waiting_frame(self, session_key: str) -> WaitingFrame | None:
        """The frame that a newer one of this session replaces, if one came before."""
        row = await self._one(sql.WAITING_FRAME, key=session_key)
        return None if row is None else WaitingFrame(JobId(row.waiting_job), row.account_id)

    async def jobs_of_session(self, session_key: str) -> Sequence[JobOfSession]:
        """Its frames and variations that have not ended."""
        rows = await self._all(sql.JOBS_OF_SESSION, session=session_key)
        return [JobOfSession(JobId(row.job_id), AccountId(row.account_id)) for row in rows]

    async def waiting_in_paused(self, session_key: str | None = None, limit: int = 100) -> Sequence[Any]:
        """(job, account, session) of what waits although its live session is paused: in this one, or anywhere."""
        if session_key is None:
            return await self._all(sql.WAITING_IN_PAUSED, most=limit)
        return await self._all(sql.WAITING_IN_ONE_PAUSED, most=limit, session=session_key)

    async def recent_milliseconds(self, limit: int = 100) -> Sequence[int]:
        """From lease to image, of the newest results, for estimates."""
        return [row.paint_milliseconds for row in await self._all(sql.RECENT_MILLISECONDS, most=limit)]

    async def prune(self, now: datetime, limit: int = 500) -> int:
        """Forget idle live sessions, people whose turn is long past, yesterday's quotas, and counts of nothing."""
        old, older = now - SESSIONS_KEPT, now - CHANGED_SESSIONS_KEPT
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


def _entries(rows: Sequence[Any]) -> list[QueueEntry]:
    return [QueueEntry.from_row(row._asdict()) for row in rows]
