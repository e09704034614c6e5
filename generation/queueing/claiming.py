"""Leasing jobs to workers: many claims that wait in this process share one short transaction.

Every fourth claim goes by the fair order of people alone, without anybody's bonus.

`FOR UPDATE SKIP LOCKED` keeps claims of other processes out of the way. A row's lease (worker,
epoch, expiry) is taken here; the job's stream is told afterwards, through the log. So this
transaction need not wait for the disk: the log's next COMMIT carries it along.

A worker that failed on a job gets it again only while no other worker is there that could try: a fleet of
one would else let it wait until its deadline. Who waits or works is heard of all the time: a worker that has
been silent for fifteen seconds keeps nobody waiting.

Only workers that are active in the database get anything: a worker may be drained or put in quarantine,
by whatever process, while it waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from generation.domain.fairness import SLOT
from generation.fleet.registry import SEEN_WITHIN
from ledger.clock import Clock
from ledger.identifiers import AccountId, JobId

CLAIMS_PER_ROUND = 64
SPARE_ROWS = 8
"""Rows looked at beyond the number of workers, since a row may refuse some of them."""

FAIR_EVERY = 4

_CANDIDATES = """
    WITH asking AS MATERIALIZED (
        SELECT coalesce(jsonb_agg(w.worker_id), '[]') AS active FROM workers w
        WHERE w.worker_id = ANY(:workers) AND w.state = 'active')
    SELECT set_config('synchronous_commit', 'off', true), q.job_id, q.account_id, q.graph, q.epoch, q.tag,
           q.deadline, q.requested_at, r.refused_workers, (SELECT active FROM asking) AS active_workers,
           i.prompt, i.seed, i.strength, i.width, i.height, i.sketch_key, i.sketch_sha256
    FROM job_queue q LEFT JOIN job_inputs i ON i.job_id = q.job_id
    CROSS JOIN LATERAL (SELECT CASE WHEN q.refused_workers = '[]' OR EXISTS (
        SELECT FROM workers w
        WHERE w.state = 'active' AND w.seen_at > :present AND w.capabilities->'graphs' @> to_jsonb(q.graph)
          AND NOT q.refused_workers @> to_jsonb(w.worker_id)
    ) THEN q.refused_workers ELSE '[]' END AS refused_workers) r
    WHERE q.state = 'queued' AND q.graph = ANY(:graphs) AND q.deadline > :now
      AND (q.lease_expires_at IS NULL OR q.lease_expires_at < :now)
      AND NOT r.refused_workers @> (SELECT active FROM asking)
      AND (q.session_id IS NULL OR NOT coalesce(
        (SELECT s.paused FROM live_sessions s WHERE s.session_id = q.session_id), false))
    ORDER BY q.{order}, q.job_id LIMIT :limit
    FOR UPDATE OF q SKIP LOCKED
    """
_BY_RANK = sa.text(_CANDIDATES.format(order="rank"))
_FAIRLY = sa.text(_CANDIDATES.format(order="tag"))
_LEASE = sa.text(
    """
    WITH leased AS (
        UPDATE job_queue q SET worker_id = l.worker_id, epoch = q.epoch + 1, leased_at = :now,
               lease_expires_at = :until, progress_value = 0, progress_max = 0,
               progress_moved = 0
        FROM unnest(CAST(:jobs AS text[]), CAST(:workers AS text[])) AS l(job_id, worker_id)
        WHERE q.job_id = l.job_id
        RETURNING q.tag)
    UPDATE queue_clock SET virtual_time = greatest(virtual_time + :moved, (SELECT max(tag) FROM leased))
    """
)
_WEIGHT = sa.text(
    "SELECT coalesce(sum(weight), 1) FROM (SELECT max(weight) AS weight FROM job_queue GROUP BY account_id) w"
)
_WEIGHED_FOR = timedelta(seconds=1)


class Claim(NamedTuple):
    """A leased job: whoever holds this epoch may report on it. `inputs` is None if they were erased."""

    job_id: JobId
    account_id: AccountId
    graph: str
    epoch: int
    deadline: datetime
    requested_at: datetime
    inputs: Any | None


class _Ask(NamedTuple):
    worker_id: str
    graphs: tuple[str, ...]
    answer: asyncio.Future[Claim | None]


class ClaimBatcher:
    """Answers claims in rounds. One per process; every method belongs to its event loop."""

    def __init__(
        self,
        engine: AsyncEngine,
        clock: Clock,
        lease: timedelta,
        on_batch: Callable[[int], None] | None = None,
    ) -> None:
        self._engine = engine
        self._on_batch = on_batch
        self._clock = clock
        self._lease_time = lease
        self._given = 0
        self._weight = 1
        self._weighed_at: datetime | None = None
        self._asks: list[_Ask] = []
        self._round: asyncio.Task[None] | None = None

    async def claim(self, worker_id: str, graphs: Sequence[str]) -> Claim | None:
        """Lease the next job that this worker can serve, None if there is none now."""
        answer: asyncio.Future[Claim | None] = asyncio.get_running_loop().create_future()
        self._asks.append(_Ask(worker_id, tuple(sorted(graphs)), answer))
        if self._round is None or self._round.done():
            self._round = asyncio.ensure_future(self._rounds())
        return await answer

    async def _rounds(self) -> None:
        while self._asks:
            kind = self._asks[0].graphs
            asks = [ask for ask in self._asks if ask.graphs == kind][:CLAIMS_PER_ROUND]
            taken = set(map(id, asks))
            self._asks = [ask for ask in self._asks if id(ask) not in taken]
            await self._serve([ask for ask in asks if not ask.answer.done()])

    async def _serve(self, asks: Sequence[_Ask]) -> None:
        """Answer every one of these asks, whatever happens; a worker that asked twice gets its job once."""
        claims: dict[str, Claim] = {}
        fault: Exception | None = None
        try:
            claims = await self._lease(asks)
        except (sa.exc.SQLAlchemyError, OSError) as error:
            fault = error
        finally:
            for ask in asks:
                if ask.answer.done():
                    continue
                if fault is None:
                    ask.answer.set_result(claims.pop(ask.worker_id, None))
                else:
                    ask.answer.set_exception(fault)

    async def _lease(self, asks: Sequence[_Ask]) -> dict[str, Claim]:
        """One transaction for all of them; who could not be matched is looked after alone."""
        waiting = list(dict.fromkeys(ask.worker_id for ask in asks))
        if not waiting:
            return {}
        now, graphs = self._clock(), list(asks[0].graphs)
        fair = (self._given + len(waiting)) // FAIR_EVERY - self._given // FAIR_EVERY
        claims: dict[str, Claim] = {}
        more = False
        async with self._engine.begin() as connection:
            for statement, count in ((_FAIRLY, fair), (_BY_RANK, len(waiting))):
                worker_ids = [worker_id for worker_id in waiting if worker_id not in claims][:count]
                if worker_ids:
                    spare = len(claims) + (SPARE_ROWS if len(worker_ids) > 1 else 0)
                    rows = await _candidates(connection, statement, worker_ids, graphs, now, spare)
                    taken = {claim.job_id for claim in claims.values()}
                    claims |= _match([row for row in rows if row.job_id not in taken], worker_ids)
                    more = len(rows) >= len(worker_ids)
            if claims:
                moved = len(claims) * SLOT // 8 // await self._active_weight(connection, now)
                await _write(connection, claims, now, now + self._lease_time, moved)
        if claims and self._on_batch is not None:
            self._on_batch(len(claims))
        self._given += len(claims)
        unserved = [ask for ask in asks if ask.worker_id not in claims]
        if unserved and more and len(waiting) > 1:
            claims |= await self._lease(unserved[:1])
        return claims

    async def _active_weight(self, connection: AsyncConnection, now: datetime) -> int:
        """The weights of all people who have work here, as of a second ago at most."""
        if self._weighed_at is None or abs(now - self._weighed_at) >= _WEIGHED_FOR:
            self._weight = max(1, int((await connection.execute(_WEIGHT)).scalar_one()))
            self._weighed_at = now
        return self._weight


async def _candidates(
    connection: AsyncConnection,
    statement: sa.TextClause,
    worker_ids: Sequence[str],
    graphs: Sequence[str],
    now: datetime,
    spare: int,
) -> Sequence[Any]:
    parameters = {
        "graphs": list(graphs),
        "now": now,
        "present": now - SEEN_WITHIN,
        "workers": list(worker_ids),
        "limit": len(worker_ids) + spare,
    }
    return (await connection.execute(statement, parameters)).all()


def _match(rows: Sequence[Any], workers: Sequence[str]) -> dict[str, Claim]:
    """Give each row, in order of rank, to the first waiting worker that is active and has not failed on it."""
    free = list(dict.fromkeys(workers))
    claims: dict[str, Claim] = {}
    for row in rows:
        for worker_id in free:
            if worker_id in row.active_workers and worker_id not in row.refused_workers:
                free.remove(worker_id)
                claims[worker_id] = _claim(row)
                break
    return claims


def _claim(row: Any) -> Claim:
    return Claim(
        JobId(row.job_id),
        AccountId(row.account_id),
        row.graph,
        row.epoch + 1,
        row.deadline,
        row.requested_at,
        None if row.sketch_key is None else row,
    )


async def _write(
    connection: AsyncConnection, claims: dict[str, Claim], now: datetime, until: datetime, moved: int
) -> None:
    parameters = {
        "jobs": [claim.job_id for claim in claims.values()],
        "workers": list(claims),
        "now": now,
        "until": until,
        "moved": moved,
    }
    await connection.execute(_LEASE, parameters)
