"""The outbox of mail, and what people chose to get."""

from __future__ import annotations

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

CHANGES = (
    """
    CREATE TABLE mail_outbox (
        mail_id TEXT NOT NULL,
        account_id TEXT NOT NULL,
        letter JSON NOT NULL,
        state TEXT DEFAULT 'waiting' NOT NULL,
        due_at TIMESTAMP WITH TIME ZONE NOT NULL,
        caused_at TIMESTAMP WITH TIME ZONE NOT NULL,
        sent_at TIMESTAMP WITH TIME ZONE,
        attempts INTEGER DEFAULT '0' NOT NULL,
        last_problem TEXT,
        PRIMARY KEY (mail_id)
    )
    """,
    "COMMENT ON COLUMN mail_outbox.mail_id IS 'the letter''s name and its cause'",
    "COMMENT ON COLUMN mail_outbox.account_id IS 'as it was when the mail was caused'",
    "COMMENT ON COLUMN mail_outbox.letter IS 'what its template is filled with'",
    "COMMENT ON COLUMN mail_outbox.attempts IS 'failures in a row'",
    "COMMENT ON COLUMN mail_outbox.last_problem IS 'what the newest failure was; no personal data'",
    "CREATE INDEX mail_outbox_due ON mail_outbox (due_at)",
    "CREATE INDEX mail_outbox_sent ON mail_outbox (account_id, sent_at) WHERE sent_at IS NOT NULL",
    "CREATE INDEX mail_outbox_failing ON mail_outbox (attempts) WHERE attempts > 0",
    """
    CREATE TABLE mail_choices (
        account_id TEXT NOT NULL,
        optional BOOLEAN NOT NULL,
        changed_at TIMESTAMP WITH TIME ZONE NOT NULL,
        PRIMARY KEY (account_id)
    )
    """,
    "COMMENT ON COLUMN mail_choices.optional IS 'whether letters that can be turned off are on'",
)


def upgrade() -> None:
    """Nothing was mailed before."""
    for statement in CHANGES:
        op.execute(statement)
