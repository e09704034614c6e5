"""What operators ask about workers, jobs and the queue: read from PostgreSQL, cheap enough for every scrape."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from generation.domain.states import JobState
from generation.fleet.registry import PRESENT_WITHIN
from generation.store.tables import job_funding, job_queue, job_results, workers


class QueueFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The queue now, and the last hour. Times in milliseconds unless they say otherwise."""

    jobs: dict[str, int]
    """By state, without the ended."""
    people_waiting: int
    oldest_wait_seconds: int
    workers: dict[str, int]
    """Workers heard of lately, by state."""
    payments: dict[str, int]
    """Payments made for one job alone that are under way, by state."""
    delivered: int
    wait_p50: int
    wait_p95: int
    paint_p50: int
    gpu_milliseconds: int
    gpu_milliseconds_per_image: int
    images_per_gpu_hour: int
    """With images at one credit also the credits that an hour of GPU time earns."""


async def figures(engine: AsyncEngine, now: datetime, window: timedelta = timedelta(hours=1)) -> QueueFigures:
    """Count everything at once."""
    states = sa.select(job_queue.c.state, sa.func.count()).group_by(job_queue.c.state)
    present = (
        sa.select(workers.c.state, sa.func.count())
        .where(workers.c.seen_at > now - PRESENT_WITHIN)
        .group_by(workers.c.state)
    )
    paying = sa.select(job_funding.c.state, sa.func.count()).group_by(job_funding.c.state)
    queued = job_queue.c.state == JobState.QUEUED.value
    waiting = sa.select(
        sa.func.count(sa.distinct(job_queue.c.account_id)).filter(queued),
        sa.func.min(job_queue.c.requested_at).filter(queued),
    )
    async with engine.connect() as connection:
        by_state = {row[0]: row[1] for row in await connection.execute(states)}
        by_worker_state = {row[0]: row[1] for row in await connection.execute(present)}
        by_payment = {row[0]: row[1] for row in await connection.execute(paying)}
        people, oldest = (await connection.execute(waiting)).one()
        done = (await connection.execute(_delivered(now - window))).one()
    gpu = int(done.gpu or 0)
    return QueueFigures(
        jobs=by_state,
        people_waiting=people,
        oldest_wait_seconds=0 if oldest is None else max(0, int((now - oldest).total_seconds())),
        workers=by_worker_state,
        payments=by_payment,
        delivered=done.images,
        wait_p50=int(done.wait_p50 or 0),
        wait_p95=int(done.wait_p95 or 0),
        paint_p50=int(done.paint_p50 or 0),
        gpu_milliseconds=gpu,
        gpu_milliseconds_per_image=gpu // max(1, done.images),
        images_per_gpu_hour=done.images * 3_600_000 // max(1, gpu) if gpu else 0,
    )


def _delivered(since: datetime) -> sa.Select[Any, Any, Any, Any, Any]:
    def at(quantile: float, column: sa.Column[int]) -> sa.ColumnElement[int]:
        return sa.func.percentile_disc(quantile).within_group(column)

    return sa.select(
        sa.func.count().label("images"),
        sa.func.sum(job_results.c.gpu_milliseconds).label("gpu"),
        at(0.5, job_results.c.wait_milliseconds).label("wait_p50"),
        at(0.95, job_results.c.wait_milliseconds).label("wait_p95"),
        at(0.5, job_results.c.paint_milliseconds).label("paint_p50"),
    ).where(job_results.c.completed_at > since)
