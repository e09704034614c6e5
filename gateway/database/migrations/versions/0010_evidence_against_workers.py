"""What speaks against a worker is kept by job and account; a quarantined worker tests itself."""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    CREATE TABLE worker_failures (
        worker_id TEXT NOT NULL,
        job_id TEXT NOT NULL,
        account_id TEXT NOT NULL,
        code TEXT NOT NULL,
        failed_at TIMESTAMP WITH TIME ZONE NOT NULL,
        PRIMARY KEY (worker_id, job_id)
    )
    """,
    "CREATE INDEX worker_failures_job ON worker_failures (job_id)",
    "ALTER TABLE workers DROP COLUMN failures_in_a_row",
    "ALTER TABLE workers ADD COLUMN self_tests INTEGER DEFAULT '0' NOT NULL",
    "COMMENT ON COLUMN workers.self_tests IS 'since its last image'",
    "ALTER TABLE workers ADD COLUMN self_test_at TIMESTAMP WITH TIME ZONE",
    "UPDATE workers SET self_test_at = now() WHERE state = 'quarantined'",
)


def upgrade() -> None:
    """Workers in quarantine may test themselves at once."""
    for statement in STATEMENTS:
        op.execute(statement)
