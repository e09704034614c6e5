"""What was used beyond plans and is billed with the next invoice."""

from __future__ import annotations

from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

CHANGES = (
    "ALTER TABLE rail_subscriptions ADD COLUMN overage_usd_minor INTEGER DEFAULT '0' NOT NULL",
    """
    COMMENT ON COLUMN rail_subscriptions.overage_usd_minor
    IS 'US cents that it bills for each credit used beyond the plan'
    """,
    """
    CREATE TABLE rail_uses (
        use_id TEXT NOT NULL,
        account_id TEXT NOT NULL,
        subscription_id TEXT NOT NULL,
        credits BIGINT NOT NULL,
        used_at TIMESTAMP WITH TIME ZONE NOT NULL,
        state TEXT DEFAULT 'waiting' NOT NULL,
        first_tried_at TIMESTAMP WITH TIME ZONE,
        due_at TIMESTAMP WITH TIME ZONE NOT NULL,
        attempts INTEGER DEFAULT '0' NOT NULL,
        last_problem TEXT,
        PRIMARY KEY (use_id)
    )
    """,
    "CREATE INDEX rail_uses_subscription ON rail_uses (subscription_id, state)",
    "CREATE INDEX rail_uses_due ON rail_uses (due_at) WHERE state = 'waiting'",
    "CREATE INDEX rail_uses_failing ON rail_uses (attempts) WHERE attempts > 0",
    "COMMENT ON COLUMN rail_uses.use_id IS 'the hold that was captured'",
    "COMMENT ON COLUMN rail_uses.account_id IS 'who used it'",
    "COMMENT ON COLUMN rail_uses.subscription_id IS 'which bills it'",
    "COMMENT ON COLUMN rail_uses.state IS 'waiting, reported or written_off'",
    "COMMENT ON COLUMN rail_uses.first_tried_at IS 'when it was reported first'",
    "COMMENT ON COLUMN rail_uses.attempts IS 'failures in a row'",
    "COMMENT ON COLUMN rail_uses.last_problem IS 'what the newest failure was; no personal data'",
    """
    CREATE TABLE rail_use_totals (
        subscription_id TEXT NOT NULL,
        due_at TIMESTAMP WITH TIME ZONE NOT NULL,
        attempts INTEGER DEFAULT '0' NOT NULL,
        last_problem TEXT,
        PRIMARY KEY (subscription_id)
    )
    """,
    "CREATE INDEX rail_use_totals_due ON rail_use_totals (due_at)",
    "CREATE INDEX rail_use_totals_failing ON rail_use_totals (attempts) WHERE attempts > 0",
    "COMMENT ON COLUMN rail_use_totals.due_at IS 'when both counts are compared'",
    "COMMENT ON COLUMN rail_use_totals.attempts IS 'failures in a row'",
    "COMMENT ON COLUMN rail_use_totals.last_problem IS 'what the newest failure was; no personal data'",
)


def upgrade() -> None:
    """Nothing was used beyond a plan before: no catalogue could allow it."""
    for statement in CHANGES:
        op.execute(statement)
