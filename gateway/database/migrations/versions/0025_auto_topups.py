"""Automatic top-ups: how each stands, what turns them off, and what a payment is charged to."""

from __future__ import annotations

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

CHANGES = (
    "CREATE TABLE rail_charges (payment_id TEXT NOT NULL, method TEXT NOT NULL, PRIMARY KEY (payment_id))",
    "COMMENT ON COLUMN rail_charges.method IS 'the rail''s own handle of what is charged'",
    """
    CREATE TABLE auto_topups (
        account_id TEXT NOT NULL,
        rail TEXT NOT NULL,
        state TEXT NOT NULL,
        reason TEXT NOT NULL,
        pack JSON NOT NULL,
        threshold BIGINT NOT NULL,
        limit_minor BIGINT NOT NULL,
        consent TEXT NOT NULL,
        consented_at TIMESTAMP WITH TIME ZONE NOT NULL,
        saving_id TEXT NOT NULL,
        page_reference TEXT,
        page_url TEXT,
        page_expires_at TIMESTAMP WITH TIME ZONE,
        method TEXT,
        method_label TEXT NOT NULL,
        method_expires_at TIMESTAMP WITH TIME ZONE,
        month TEXT NOT NULL,
        charged_minor BIGINT NOT NULL,
        charge_key TEXT NOT NULL,
        payment_id TEXT,
        declines INTEGER NOT NULL,
        not_before TIMESTAMP WITH TIME ZONE NOT NULL,
        revision BIGINT NOT NULL,
        due_at TIMESTAMP WITH TIME ZONE NOT NULL,
        attempts INTEGER DEFAULT 0 NOT NULL,
        last_problem TEXT,
        PRIMARY KEY (account_id)
    )
    """,
    "CREATE INDEX auto_topups_due ON auto_topups (due_at) WHERE state <> 'off'",
    "CREATE INDEX auto_topups_failing ON auto_topups (attempts) WHERE attempts > 0",
    "COMMENT ON COLUMN auto_topups.reason IS 'why it is off, or empty'",
    "COMMENT ON COLUMN auto_topups.pack IS 'as it was agreed to'",
    "COMMENT ON COLUMN auto_topups.threshold IS 'credits below which it is bought'",
    "COMMENT ON COLUMN auto_topups.limit_minor IS 'US cents in a UTC month'",
    "COMMENT ON COLUMN auto_topups.consent IS 'the words that were agreed to'",
    "COMMENT ON COLUMN auto_topups.saving_id IS 'of the page to save a method on'",
    "COMMENT ON COLUMN auto_topups.page_url IS 'while that page is open'",
    "COMMENT ON COLUMN auto_topups.method IS 'the rail''s own handle of what is charged'",
    "COMMENT ON COLUMN auto_topups.month IS 'UTC, of the sum'",
    "COMMENT ON COLUMN auto_topups.charged_minor IS 'US cents charged in that month'",
    "COMMENT ON COLUMN auto_topups.charge_key IS 'of the charge under way, or empty'",
    "COMMENT ON COLUMN auto_topups.payment_id IS 'of the newest charge'",
    "COMMENT ON COLUMN auto_topups.declines IS 'in a row'",
    "COMMENT ON COLUMN auto_topups.not_before IS 'it is not looked at because of a balance'",
    "COMMENT ON COLUMN auto_topups.revision IS 'counts its changes'",
    "COMMENT ON COLUMN auto_topups.attempts IS 'failures in a row'",
    "COMMENT ON COLUMN auto_topups.last_problem IS 'what the newest failure was; no personal data'",
    """
    CREATE TABLE auto_topup_stops (
        account_id TEXT NOT NULL,
        reason TEXT NOT NULL,
        due_at TIMESTAMP WITH TIME ZONE NOT NULL,
        attempts INTEGER DEFAULT 0 NOT NULL,
        last_problem TEXT,
        PRIMARY KEY (account_id)
    )
    """,
    "CREATE INDEX auto_topup_stops_due ON auto_topup_stops (due_at)",
    "CREATE INDEX auto_topup_stops_failing ON auto_topup_stops (attempts) WHERE attempts > 0",
    "COMMENT ON COLUMN auto_topup_stops.attempts IS 'failures in a row'",
    "COMMENT ON COLUMN auto_topup_stops.last_problem IS 'what the newest failure was; no personal data'",
)


def upgrade() -> None:
    """New tables; no row changes."""
    for change in CHANGES:
        op.execute(change)
