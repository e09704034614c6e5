"""How subscriptions stand at their rails."""

from __future__ import annotations

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

CHANGES = (
    """
    CREATE TABLE rail_subscriptions (
        subscription_id TEXT NOT NULL,
        account_id TEXT NOT NULL,
        rail TEXT NOT NULL,
        page_reference TEXT,
        page_url TEXT,
        page_expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
        reference TEXT,
        status TEXT NOT NULL,
        plan TEXT NOT NULL,
        length TEXT NOT NULL,
        period_start TIMESTAMP WITH TIME ZONE,
        period_end TIMESTAMP WITH TIME ZONE,
        cancels BOOLEAN NOT NULL,
        next_plan TEXT,
        pending_plan TEXT,
        next_attempt_at TIMESTAMP WITH TIME ZONE,
        pay_url TEXT,
        opened_at TIMESTAMP WITH TIME ZONE NOT NULL,
        asked_at TIMESTAMP WITH TIME ZONE NOT NULL,
        watched BOOLEAN NOT NULL,
        due_at TIMESTAMP WITH TIME ZONE NOT NULL,
        attempts INTEGER DEFAULT 0 NOT NULL,
        last_problem TEXT,
        PRIMARY KEY (subscription_id),
        UNIQUE (rail, page_reference),
        UNIQUE (rail, reference)
    )
    """,
    "CREATE INDEX rail_subscriptions_account ON rail_subscriptions (account_id, opened_at)",
    "CREATE INDEX rail_subscriptions_due ON rail_subscriptions (due_at) WHERE watched",
    "CREATE INDEX rail_subscriptions_failing ON rail_subscriptions (attempts) WHERE attempts > 0",
    "COMMENT ON COLUMN rail_subscriptions.subscription_id IS 'ours'",
    "COMMENT ON COLUMN rail_subscriptions.account_id IS 'who opened it'",
    "COMMENT ON COLUMN rail_subscriptions.page_reference IS 'of the page to subscribe on'",
    "COMMENT ON COLUMN rail_subscriptions.page_url IS 'while that page is open'",
    "COMMENT ON COLUMN rail_subscriptions.reference IS 'the rail''s own name of the subscription'",
    "COMMENT ON COLUMN rail_subscriptions.plan IS 'charged for now'",
    "COMMENT ON COLUMN rail_subscriptions.length IS 'month or year'",
    "COMMENT ON COLUMN rail_subscriptions.cancels IS 'it ends with its period'",
    "COMMENT ON COLUMN rail_subscriptions.next_plan IS 'charged for from the next period on'",
    "COMMENT ON COLUMN rail_subscriptions.pending_plan IS 'waits for its invoice to be paid'",
    "COMMENT ON COLUMN rail_subscriptions.next_attempt_at IS 'when the open invoice is collected again'",
    "COMMENT ON COLUMN rail_subscriptions.pay_url IS 'where the payer pays the open invoice'",
    "COMMENT ON COLUMN rail_subscriptions.asked_at IS 'when the rail was asked for all this'",
    "COMMENT ON COLUMN rail_subscriptions.watched IS 'whether it is asked about unbidden'",
    "COMMENT ON COLUMN rail_subscriptions.due_at IS 'when it is asked about next'",
    "COMMENT ON COLUMN rail_subscriptions.attempts IS 'failures in a row'",
    "COMMENT ON COLUMN rail_subscriptions.last_problem IS 'what the newest failure was; no personal data'",
)


def upgrade() -> None:
    """There were no subscriptions before."""
    for statement in CHANGES:
        op.execute(statement)
