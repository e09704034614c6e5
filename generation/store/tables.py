"""Rows beside the log: the queue, what a job needs, what it gave. All of it erasable or rebuildable."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from ledger.followups.rows import failing_index, retry_columns
from ledger.instants import instant
from ledger.log.model import SideTable

metadata = sa.MetaData()


job_queue = sa.Table(
    "job_queue",
    metadata,
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("account_id", sa.Text, nullable=False),
    sa.Column("session_id", sa.Text, comment="live session of a frame or variation"),
    sa.Column("graph", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False, comment="awaiting_payment, queued, running or settling"),
    sa.Column("tag", sa.BigInteger, nullable=False, comment="place in the fair order of all people"),
    sa.Column("rank", sa.BigInteger, nullable=False, comment="the tag less the tier's bonus"),
    sa.Column("weight", sa.Integer, nullable=False, server_default="1"),
    sa.Column("held", sa.Boolean, nullable=False, server_default=sa.true(), comment="a hold stands for it"),
    sa.Column("free_credits", sa.Integer, nullable=False, server_default="0", comment="counted in networks"),
    sa.Column("networks", JSONB, comment="ids of the network allowances that count its free credits"),
    instant("requested_at"),
    instant("deadline"),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("refused_workers", JSONB, nullable=False, comment="worker ids that failed on it"),
    sa.Column("epoch", sa.Integer, nullable=False, server_default="0"),
    sa.Column("worker_id", sa.Text),
    instant("lease_expires_at", nullable=True),
    instant("leased_at", nullable=True),
    sa.Column("progress_value", sa.Integer, nullable=False, server_default="0"),
    sa.Column("progress_max", sa.Integer, nullable=False, server_default="0"),
    sa.Column(
        "progress_moved",
        sa.Integer,
        nullable=False,
        server_default="0",
        comment="all that moved in this lease",
    ),
    sa.Column("cancel_asked", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Index("job_queue_claim", "rank", "job_id", postgresql_where=sa.text("state = 'queued'")),
    sa.Index("job_queue_fair", "tag", "job_id", postgresql_where=sa.text("state = 'queued'")),
    sa.Index("job_queue_account", "account_id"),
    sa.Index("job_queue_lease", "lease_expires_at", postgresql_where=sa.text("worker_id IS NOT NULL")),
    sa.Index("job_queue_deadline", "deadline"),
    sa.Index("job_queue_session", "session_id", postgresql_where=sa.text("session_id IS NOT NULL")),
)

job_inputs = sa.Table(
    "job_inputs",
    metadata,
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("account_id", sa.Text, nullable=False),
    sa.Column("prompt", sa.Text, nullable=False),
    sa.Column("seed", sa.BigInteger, nullable=False),
    sa.Column("strength", sa.Integer, nullable=False, comment="per mille"),
    sa.Column("width", sa.Integer, nullable=False),
    sa.Column("height", sa.Integer, nullable=False),
    sa.Column("sketch_key", sa.Text, nullable=False),
    sa.Column("sketch_sha256", sa.Text, nullable=False),
    instant("requested_at"),
    sa.Index("job_inputs_account", "account_id", "requested_at"),
)

job_results = sa.Table(
    "job_results",
    metadata,
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("account_id", sa.Text, nullable=False),
    sa.Column("image_key", sa.Text, nullable=False),
    sa.Column("thumbnail_key", sa.Text, nullable=False),
    sa.Column("content_type", sa.Text, nullable=False),
    sa.Column("width", sa.Integer, nullable=False),
    sa.Column("height", sa.Integer, nullable=False),
    sa.Column("gpu_milliseconds", sa.Integer, nullable=False),
    sa.Column("wait_milliseconds", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("paint_milliseconds", sa.BigInteger, nullable=False, server_default="0"),
    instant("completed_at"),
    sa.Index("job_results_account", "account_id", "completed_at"),
    sa.Index("job_results_newest", "completed_at"),
)

live_sessions = sa.Table(
    "live_sessions",
    metadata,
    sa.Column("session_id", sa.Text, primary_key=True, comment="account id and client's session id"),
    sa.Column("newest_seq", sa.BigInteger, nullable=False, comment="newest frame requested"),
    sa.Column("delivered_seq", sa.BigInteger, nullable=False, comment="newest frame delivered"),
    sa.Column("delivered_job", sa.Text, comment="the job of the newest frame delivered"),
    sa.Column("waiting_job", sa.Text, comment="the pending frame that a newer one replaces"),
    sa.Column("requested_credits", sa.BigInteger, nullable=False, comment="spent, or held for it"),
    sa.Column("cap_credits", sa.BigInteger, comment="the person's own limit"),
    sa.Column("paused", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("variations", sa.Integer, nullable=False, server_default="0"),
    instant("updated_at"),
    sa.Index("live_sessions_age", "updated_at"),
    sa.Index("live_sessions_paused", "session_id", postgresql_where=sa.text("paused")),
)

job_funding = sa.Table(
    "job_funding",
    metadata,
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("account_id", sa.Text, nullable=False),
    sa.Column("method", sa.Text, nullable=False, comment="what the person chose to pay with"),
    sa.Column("state", sa.Text, nullable=False, comment="opening, waiting, held, settling or releasing"),
    sa.Column("price_credits", sa.BigInteger, nullable=False),
    sa.Column("reference", sa.Text, comment="the payment, once its way to pay is open"),
    sa.Column("result", JSONB, comment="the verified image's facts while the payment is settled"),
    instant("due_at"),
    *retry_columns(),
    sa.Index("job_funding_due", "due_at", postgresql_where=sa.text("state <> 'held'")),
    failing_index("job_funding"),
)

jobs_paid_apart = sa.Table(
    "jobs_paid_apart",
    metadata,
    sa.Column("counted_for", sa.Text, primary_key=True, comment="account id, or all"),
    sa.Column("by_minute", JSONB, nullable=False, comment="jobs without a hold, by the minute of their end"),
    instant("until"),
    sa.Index("jobs_paid_apart_until", "until"),
)

fair_shares = sa.Table(
    "fair_shares",
    metadata,
    sa.Column("account_id", sa.Text, primary_key=True),
    sa.Column("finish", sa.BigInteger, nullable=False, comment="virtual time at which their last job ends"),
    sa.Index("fair_shares_finish", "finish"),
)

queue_clock = sa.Table(
    "queue_clock",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("virtual_time", sa.BigInteger, nullable=False, comment="tag of the newest claimed job"),
)

network_allowances = sa.Table(
    "network_allowances",
    metadata,
    sa.Column("id", sa.Text, primary_key=True, comment="UTC day and keyed digest of the address prefix"),
    sa.Column("used", sa.Integer, nullable=False),
    instant("expires_at"),
)

job_usage_reversals = sa.Table(
    "job_usage_reversals",
    metadata,
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("session_id", sa.Text, comment="the live session that counts its price"),
    sa.Column("credits", sa.BigInteger, nullable=False),
    sa.Column("free_credits", sa.Integer, nullable=False),
    sa.Column("networks", JSONB, nullable=False, comment="ids of the network allowances that count it"),
    instant("due_at"),
    *retry_columns(),
    sa.Index("job_usage_reversals_due", "due_at"),
    failing_index("job_usage_reversals"),
)

job_orphaned_uploads = sa.Table(
    "job_orphaned_uploads",
    metadata,
    sa.Column("job_id", sa.Text, primary_key=True),
    instant("due_at"),
    *retry_columns(),
    sa.Index("job_orphaned_uploads_due", "due_at"),
    failing_index("job_orphaned_uploads"),
)

workers = sa.Table(
    "workers",
    metadata,
    sa.Column("worker_id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("capabilities", JSONB, nullable=False),
    sa.Column("token_digest", sa.LargeBinary, nullable=False),
    instant("token_expires_at"),
    sa.Column("state", sa.Text, nullable=False, comment="active, draining, quarantined or gone"),
    sa.Column("self_tests", sa.Integer, nullable=False, server_default="0", comment="since its last image"),
    instant("self_test_at", nullable=True),
    instant("registered_at"),
    instant("seen_at"),
    sa.Column("jobs_done", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("gpu_milliseconds", sa.BigInteger, nullable=False, server_default="0"),
)

worker_failures = sa.Table(
    "worker_failures",
    metadata,
    sa.Column("worker_id", sa.Text, primary_key=True),
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("account_id", sa.Text, nullable=False),
    sa.Column("code", sa.Text, nullable=False),
    instant("failed_at"),
    sa.Index("worker_failures_job", "job_id"),
)

registration_tokens = sa.Table(
    "worker_registrations",
    metadata,
    sa.Column("token_digest", sa.LargeBinary, primary_key=True),
    sa.Column("worker_id", sa.Text, nullable=False),
    instant("used_at"),
)

QUEUE = SideTable(job_queue)
INPUTS = SideTable(job_inputs)
RESULTS = SideTable(job_results)
SESSIONS = SideTable(live_sessions)
SHARES = SideTable(fair_shares)
NETWORKS = SideTable(network_allowances)
FUNDING = SideTable(job_funding)
PAID_APART = SideTable(jobs_paid_apart)
USAGE_REVERSALS = SideTable(job_usage_reversals)
ORPHANED_UPLOADS = SideTable(job_orphaned_uploads)
