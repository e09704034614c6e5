"""Refunds that have not ended wait in a table of their own."""

from __future__ import annotations

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

CHANGES = (
    """
    CREATE TABLE rail_refunds (
        refund_id TEXT NOT NULL,
        payment_id TEXT NOT NULL,
        rail TEXT NOT NULL,
        destination TEXT,
        by_hand BOOLEAN NOT NULL,
        due_at TIMESTAMP WITH TIME ZONE NOT NULL,
        attempts INTEGER DEFAULT '0' NOT NULL,
        last_problem TEXT,
        PRIMARY KEY (refund_id)
    )
    """,
    "COMMENT ON COLUMN rail_refunds.destination IS 'where to; gone with the row'",
    "COMMENT ON COLUMN rail_refunds.by_hand IS 'an operator sends it and says so'",
    "COMMENT ON COLUMN rail_refunds.attempts IS 'failures in a row'",
    "COMMENT ON COLUMN rail_refunds.last_problem IS 'what the newest failure was; no personal data'",
    "CREATE INDEX rail_refunds_due ON rail_refunds (due_at) WHERE NOT by_hand",
    "CREATE INDEX rail_refunds_failing ON rail_refunds (attempts) WHERE attempts > 0",
)


def upgrade() -> None:
    """A new table; no row changes."""
    for change in CHANGES:
        op.execute(change)
