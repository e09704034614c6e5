"""How many jobs are paid by payments of their own is decided by rows, under the log's lock."""

from __future__ import annotations

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

CHANGES = (
    """
    CREATE TABLE jobs_paid_apart (
        counted_for TEXT NOT NULL,
        by_minute JSONB NOT NULL,
        until TIMESTAMP WITH TIME ZONE NOT NULL,
        PRIMARY KEY (counted_for)
    )
    """,
    "COMMENT ON COLUMN jobs_paid_apart.counted_for IS 'account id, or all'",
    "COMMENT ON COLUMN jobs_paid_apart.by_minute IS 'jobs without a hold, by the minute of their end'",
    "CREATE INDEX jobs_paid_apart_until ON jobs_paid_apart (until)",
    """
    WITH open AS (
        SELECT account_id, date_trunc('minute', deadline AT TIME ZONE 'UTC') + interval '1 minute' AS minute
        FROM job_queue
        WHERE NOT held AND deadline > now()
    ), counted AS (
        SELECT counted_for, minute, count(*) AS jobs
        FROM (SELECT account_id AS counted_for, minute FROM open UNION ALL SELECT 'all', minute FROM open) each
        GROUP BY 1, 2
    )
    INSERT INTO jobs_paid_apart
    SELECT
        counted_for,
        jsonb_object_agg(to_char(minute, 'YYYY-MM-DD"T"HH24:MI:SS+00:00'), jobs),
        max(minute) AT TIME ZONE 'UTC'
    FROM counted
    GROUP BY 1
    """,
)


def upgrade() -> None:
    """Jobs that wait for their payments keep their places."""
    for change in CHANGES:
        op.execute(change)
