"""Follow-ups: guests to be merged, and beside every row that waits how often its work failed, and why."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

RETRIED = ("account_due", "job_usage_reversals", "job_orphaned_uploads")
CHANGES = (
    """
    CREATE TABLE account_merges (
        account_id TEXT NOT NULL,
        into_account TEXT NOT NULL,
        due_at TIMESTAMP WITH TIME ZONE NOT NULL,
        attempts INTEGER DEFAULT '0' NOT NULL,
        last_problem TEXT,
        CONSTRAINT account_merges_pkey PRIMARY KEY (account_id)
    )
    """,
    "COMMENT ON TABLE account_merges IS 'guests of whom paid credits are still to be moved'",
    "COMMENT ON COLUMN account_merges.account_id IS 'the guest'",
    "COMMENT ON COLUMN account_merges.into_account IS 'whose account the guest''s credits go to'",
    "CREATE INDEX account_merges_due ON account_merges (due_at)",
    # What was left with a guest before there were such rows is moved now: each merged guest is visited once.
    """
    INSERT INTO account_merges (account_id, into_account, due_at)
    SELECT originator_id, min(convert_from(state, 'UTF8')::json -> 'data' ->> 'to_account'), now()
    FROM stored_events WHERE topic = 'ledger.credits_moved_out.v1' GROUP BY originator_id
    """,
    "ALTER TABLE account_due DROP COLUMN position",
    "ALTER TABLE job_usage_reversals ADD COLUMN due_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL",
    "ALTER TABLE job_usage_reversals ALTER COLUMN due_at DROP DEFAULT",
    "CREATE INDEX job_usage_reversals_due ON job_usage_reversals (due_at)",
)


def upgrade() -> None:
    """Add tables and columns; what waits goes on waiting."""
    for statement in CHANGES:
        op.execute(statement)
    for table in RETRIED:
        op.execute(f"ALTER TABLE {table} ADD COLUMN attempts INTEGER DEFAULT '0' NOT NULL")
        op.execute(f"ALTER TABLE {table} ADD COLUMN last_problem TEXT")
    for table in ("account_merges", *RETRIED):
        op.execute(f"COMMENT ON COLUMN {table}.attempts IS 'failures in a row'")
        op.execute(
            f"COMMENT ON COLUMN {table}.last_problem IS 'what the newest failure was; no personal data'"
        )
        op.execute(f"CREATE INDEX {table}_failing ON {table} (attempts) WHERE attempts > 0")
