"""Payments for one image are worked off like every follow-up: failures are counted and named in the row."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

CHANGES = (
    "ALTER TABLE job_funding ADD COLUMN attempts INTEGER DEFAULT '0' NOT NULL",
    "ALTER TABLE job_funding ADD COLUMN last_problem TEXT",
    "COMMENT ON COLUMN job_funding.attempts IS 'failures in a row'",
    "COMMENT ON COLUMN job_funding.last_problem IS 'what the newest failure was; no personal data'",
    "CREATE INDEX job_funding_failing ON job_funding (attempts) WHERE attempts > 0",
)


def upgrade() -> None:
    """Add two columns; the few rows go on waiting."""
    for statement in CHANGES:
        op.execute(statement)
