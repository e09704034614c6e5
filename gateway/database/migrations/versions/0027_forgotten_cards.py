"""Saved payment methods that the provider is to forget."""

from __future__ import annotations

from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

CHANGES = (
    """
    CREATE TABLE auto_topup_forgets (
        method TEXT NOT NULL,
        rail TEXT NOT NULL,
        due_at TIMESTAMP WITH TIME ZONE NOT NULL,
        attempts INTEGER DEFAULT '0' NOT NULL,
        last_problem TEXT,
        PRIMARY KEY (method)
    )
    """,
    "CREATE INDEX auto_topup_forgets_due ON auto_topup_forgets (due_at)",
    "CREATE INDEX auto_topup_forgets_failing ON auto_topup_forgets (attempts) WHERE attempts > 0",
    "COMMENT ON COLUMN auto_topup_forgets.method IS 'the rail''s own handle of what is charged no more'",
    "COMMENT ON COLUMN auto_topup_forgets.attempts IS 'failures in a row'",
    "COMMENT ON COLUMN auto_topup_forgets.last_problem IS 'what the newest failure was; no personal data'",
)


def upgrade() -> None:
    """What was turned off before was forgotten then, or stays with the provider."""
    for statement in CHANGES:
        op.execute(statement)
