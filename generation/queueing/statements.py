"""What is asked of the queue's tables again and again. Built once: SQLAlchemy then knows each by its object.

Building an expression, and the key by which its compiled form is found, costs more than sending it.
Everything that differs from call to call is a bind parameter, named where it is used.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from generation.domain.states import JobState
from generation.store.tables import (
    fair_shares,
    job_funding,
    job_inputs,
    job_queue,
    job_results,
    jobs_paid_apart,
    live_sessions,
    network_allowances,
    queue_clock,
    workers,
)

RECENT_MAX = 100
"""Results that tell how long an image takes."""
CLOCK = "global"
"""The id of the queue's one clock row."""

_queue = job_queue.c
_TIME = sa.DateTime(timezone=True)


def _text(name: str) -> sa.BindParameter[str]:
    return sa.bindparam(name, type_=sa.Text())


def _number(name: str) -> sa.BindParameter[int]:
    return sa.bindparam(name, type_=sa.Integer())


def _time(name: str) -> sa.BindParameter[object]:
    return sa.bindparam(name, type_=_TIME)


_virtual_time = sa.select(queue_clock.c.virtual_time).where(queue_clock.c.id == CLOCK).scalar_subquery()
_graphs = workers.c.capabilities["graphs"]

# --- what a request needs to know: account_id, graphs (a list of one), known_since ---

_known = sa.and_(workers.c.state != "gone", workers.c.seen_at > _time("known_since"))
_able = sa.exists().where(_known, _graphs.contains(sa.bindparam("graphs", type_=_graphs.type)))
SUMMARY = sa.select(
    _virtual_time,
    sa.select(sa.func.count()).where(_queue.account_id == _text("account_id")).scalar_subquery(),
    sa.select(sa.func.count()).where(_queue.state == JobState.QUEUED.value).scalar_subquery(),
    sa.or_(_able, ~sa.exists().where(_known)),
)

# --- where a waiting job stands; no row if it does not wait: job_id, present_since ---

_mine, _other = job_queue.alias("mine"), job_queue.alias("other")
_before = sa.tuple_(_other.c.rank, _other.c.job_id) < sa.tuple_(_mine.c.rank, _mine.c.job_id)
_ahead = sa.select(sa.func.count()).where(_other.c.state == JobState.QUEUED.value, _before)
_running = sa.select(sa.func.count()).where(_queue.state == JobState.RUNNING.value)
_workers = sa.select(sa.func.count()).where(
    workers.c.state == "active",
    workers.c.seen_at > _time("present_since"),
    _graphs.contains(sa.func.to_jsonb(_mine.c.graph)),
)
PLACE = sa.select(
    _ahead.correlate(_mine).scalar_subquery().label("before"),
    _running.scalar_subquery().label("running"),
    _workers.correlate(_mine).scalar_subquery().label("workers"),
    _virtual_time.label("virtual_time"),
    _mine.c.rank,
).where(_mine.c.job_id == _text("job_id"), _mine.c.state == JobState.QUEUED.value)

# --- the same, and how long the newest images took: job_id, present_since ---

_newest = (
    sa.select(job_results.c.paint_milliseconds)
    .order_by(job_results.c.completed_at.desc())
    .limit(sa.literal_column(str(RECENT_MAX)))
    .subquery()
)
_took = sa.select(sa.func.coalesce(sa.func.array_agg(_newest.c.paint_milliseconds), sa.text("'{}'")))
_PLACE_AND_RECENT = PLACE.add_columns(_took.scalar_subquery().label("recent_milliseconds")).compile(
    dialect=sa.make_url("postgresql+psycopg://").get_dialect()()
)
PLACE_AND_RECENT = _PLACE_AND_RECENT.string.encode()
"""For psycopg itself, as every poll of an image asks it: SQLAlchemy's way there and back costs more than the question."""
PLACE_AND_RECENT_USUAL = _PLACE_AND_RECENT.params
"""What is the same in each."""

# --- where the jobs of some accounts stand, the newest of each: account_ids, most, present_since ---

_active = _queue.state.in_((JobState.QUEUED.value, JobState.RUNNING.value))
_latest = sa.func.row_number().over(partition_by=_queue.account_id, order_by=_queue.requested_at.desc())
_theirs = (
    sa.select(job_queue, _latest.label("latest"))
    .where(_queue.account_id == sa.any_(sa.bindparam("account_ids", type_=ARRAY(sa.Text()))), _active)
    .subquery()
)
_in_line = (
    sa.select(
        _queue.job_id,
        (sa.func.row_number().over(order_by=(_queue.rank, _queue.job_id)) - 1).label("before"),
    )
    .where(_queue.state == JobState.QUEUED.value)
    .subquery()
)
_able_to = sa.select(sa.func.count()).where(
    workers.c.state == "active",
    workers.c.seen_at > _time("present_since"),
    _graphs.contains(sa.func.to_jsonb(_theirs.c.graph)),
)
UNFINISHED = (
    sa.select(_queue.job_id)
    .where(
        _queue.account_id == sa.any_(sa.bindparam("account_ids", type_=ARRAY(sa.Text()))),
        _queue.session_id.is_(None),
    )
    .order_by(_queue.requested_at.desc(), _queue.job_id.desc())
    .limit(_number("most"))
)
"""account_ids, most."""
IN_FLIGHT = (
    sa.select(
        _theirs.c.job_id,
        _theirs.c.account_id,
        _theirs.c.state,
        _theirs.c.progress_value,
        _theirs.c.progress_max,
        _theirs.c.rank,
        _in_line.c.before,
        _running.scalar_subquery().label("running"),
        _able_to.correlate(_theirs).scalar_subquery().label("workers"),
        _virtual_time.label("virtual_time"),
    )
    .select_from(_theirs.outerjoin(_in_line, _in_line.c.job_id == _theirs.c.job_id))
    .where(_theirs.c.latest <= _number("most"))
    .order_by(_theirs.c.account_id, _theirs.c.latest)
)

# --- the whole queue at once: most, known_since, present_since ---

_first = (
    sa.select(_queue.rank)
    .where(_queue.state == JobState.QUEUED.value)
    .order_by(_queue.rank)
    .limit(_number("most"))
    .subquery()
)
_newest = (
    sa.select(job_results.c.paint_milliseconds)
    .order_by(job_results.c.completed_at.desc())
    .limit(RECENT_MAX)
    .subquery()
)
_at_hand = sa.and_(workers.c.state == "active", workers.c.seen_at > _time("present_since"))
_each = sa.func.jsonb_build_array(sa.func.coalesce(_graphs, sa.text("'[]'::jsonb")), _at_hand)
_position = sa.table("stored_events", sa.column("notification_id")).c.notification_id
SNAPSHOT = sa.select(
    _virtual_time.label("virtual_time"),
    sa.select(sa.func.coalesce(sa.func.max(_position), 0)).scalar_subquery().label("log_position"),
    sa.select(sa.func.count()).where(_queue.state == JobState.QUEUED.value).scalar_subquery().label("queued"),
    sa.select(sa.func.array_agg(_first.c.rank)).scalar_subquery().label("ranks"),
    _running.scalar_subquery().label("running"),
    sa.select(sa.func.jsonb_agg(_each, type_=JSONB)).where(_known).scalar_subquery().label("workers"),
    sa.select(sa.func.array_agg(_newest.c.paint_milliseconds)).scalar_subquery().label("recent"),
)

# --- a worker's heartbeat: job, worker, lease_epoch, value, maximum, moved, until ---

_moved = sa.or_(
    _queue.progress_value != _number("value"),
    _queue.progress_max != _number("maximum"),
    _queue.progress_moved < _number("moved"),
)
HEARTBEAT = (
    sa.update(job_queue)
    .where(
        _queue.job_id == _text("job"),
        _queue.worker_id == _text("worker"),
        _queue.epoch == _number("lease_epoch"),
        _queue.state == JobState.RUNNING.value,
    )
    .values(
        lease_expires_at=sa.case((_moved, _time("until")), else_=_queue.lease_expires_at),
        progress_value=_number("value"),
        progress_max=_number("maximum"),
        progress_moved=sa.func.greatest(_queue.progress_moved, _number("moved")),
    )
    .returning(_queue.lease_expires_at, _queue.cancel_asked, _queue.account_id)
)
QUICKLY = sa.text("SET LOCAL synchronous_commit = off")
ASK_CANCEL = sa.update(job_queue).where(_queue.job_id == _text("job")).values(cancel_asked=True)

# --- jobs of the queue: now and most; worker; job_ids ---

_overdue = sa.and_(_queue.state != JobState.SETTLING.value, _queue.deadline <= _time("now"))
_silent = sa.and_(_queue.state == JobState.RUNNING.value, _queue.lease_expires_at < _time("now"))
LAPSED = (
    sa.select(job_queue).where(sa.or_(_silent, _overdue)).order_by(_queue.deadline).limit(_number("most"))
)
HELD_BY = sa.select(job_queue).where(
    _queue.worker_id == _text("worker"), _queue.state == JobState.RUNNING.value
)
ROWS = sa.select(job_queue).where(_queue.job_id == sa.any_(sa.bindparam("job_ids", type_=ARRAY(sa.Text()))))

# --- one row by its key ---

SEEDS = sa.select(job_inputs.c.job_id, job_inputs.c.seed).where(
    job_inputs.c.job_id == sa.any_(sa.bindparam("job_ids", type_=ARRAY(sa.Text())))
)
RESULT_OF = sa.select(job_results).where(job_results.c.job_id == _text("key"))
FUNDING_OF = sa.select(job_funding).where(job_funding.c.job_id == _text("key"))
PAID_APART_OF = sa.select(jobs_paid_apart).where(jobs_paid_apart.c.counted_for == _text("key"))
SESSION_OF = sa.select(live_sessions).where(live_sessions.c.session_id == _text("key"))
NEWEST_SESSION = (
    sa.select(live_sessions)
    .where(live_sessions.c.session_id == sa.any_(sa.bindparam("names", type_=sa.ARRAY(sa.Text))))
    .order_by(live_sessions.c.updated_at.desc())
    .limit(1)
)
WAITING_FRAME = (
    sa.select(live_sessions.c.waiting_job, _queue.account_id)
    .outerjoin(job_queue, _queue.job_id == live_sessions.c.waiting_job)
    .where(live_sessions.c.session_id == _text("key"), live_sessions.c.waiting_job.is_not(None))
)
JOBS_OF_SESSION = sa.select(_queue.job_id, _queue.account_id).where(_queue.session_id == _text("session"))
NEWEST_UNFINISHED_SESSION = NEWEST_SESSION.where(
    sa.exists().where(_queue.session_id == live_sessions.c.session_id)
)

# --- what waits in paused sessions: most, and session for one of them ---

WAITING_IN_PAUSED = (
    sa.select(_queue.job_id, _queue.account_id, _queue.session_id)
    .join(live_sessions, live_sessions.c.session_id == _queue.session_id)
    .where(live_sessions.c.paused, _queue.state == JobState.QUEUED.value)
    .limit(_number("most"))
)
WAITING_IN_ONE_PAUSED = WAITING_IN_PAUSED.where(live_sessions.c.session_id == _text("session"))

RECENT_MILLISECONDS = (
    sa.select(job_results.c.paint_milliseconds)
    .order_by(job_results.c.completed_at.desc())
    .limit(_number("most"))
)

# --- what nobody needs any more: old and older, or now; and most ---

_sent = sa.or_(live_sessions.c.paused, live_sessions.c.cap_credits.is_not(None))
_forgettable = sa.and_(
    live_sessions.c.updated_at < _time("old"),
    sa.or_(sa.not_(_sent), live_sessions.c.updated_at < _time("older")),
)
_idle = sa.select(live_sessions.c.session_id).where(_forgettable)
_past = fair_shares.c.finish <= _virtual_time
_behind = sa.select(fair_shares.c.account_id).where(_past)
_spent = sa.select(network_allowances.c.id).where(network_allowances.c.expires_at < _time("now"))
_ended = jobs_paid_apart.c.until < _time("now")
_over = sa.select(jobs_paid_apart.c.counted_for).where(_ended)
PRUNE = (
    sa.delete(live_sessions).where(
        live_sessions.c.session_id.in_(_idle.limit(_number("most"))), _forgettable
    ),
    sa.delete(fair_shares).where(fair_shares.c.account_id.in_(_behind.limit(_number("most"))), _past),
    sa.delete(network_allowances).where(network_allowances.c.id.in_(_spent.limit(_number("most")))),
    sa.delete(jobs_paid_apart).where(jobs_paid_apart.c.counted_for.in_(_over.limit(_number("most"))), _ended),
)
