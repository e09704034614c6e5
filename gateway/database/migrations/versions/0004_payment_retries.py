"""Payments that fail are postponed, and notifications count their failures as every follow-up does."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

CHANGES = (
    "ALTER TABLE rail_notifications RENAME COLUMN tries TO attempts",
    "ALTER TABLE rail_notifications ALTER COLUMN attempts SET DEFAULT '0'",
    "ALTER TABLE rail_notifications RENAME COLUMN problem TO last_problem",
    """
    CREATE TABLE rail_retries (
        payment_id TEXT NOT NULL,
        rail TEXT NOT NULL,
        due_at TIMESTAMP WITH TIME ZONE NOT NULL,
        attempts INTEGER DEFAULT '0' NOT NULL,
        last_problem TEXT,
        CONSTRAINT rail_retries_pkey PRIMARY KEY (payment_id)
    )
    """,
    "CREATE INDEX rail_retries_rail ON rail_retries (rail)",
)


def upgrade() -> None:
    """Rename columns and add a table; no row changes."""
    for statement in CHANGES:
        op.execute(statement)
    for table in ("rail_notifications", "rail_retries"):
        op.execute(f"COMMENT ON COLUMN {table}.attempts IS 'failures in a row'")
        op.execute(
            f"COMMENT ON COLUMN {table}.last_problem IS 'what the newest failure was; no personal data'"
        )
        op.execute(f"CREATE INDEX {table}_failing ON {table} (attempts) WHERE attempts > 0")
