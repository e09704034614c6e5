"""Tokens that were ended before their time, and accounts that were signed out everywhere."""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

CHANGES = (
    """CREATE TABLE ended_sessions (
        digest BYTEA NOT NULL,
        account_id TEXT NOT NULL,
        expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
        changed_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
        PRIMARY KEY (digest)
    )""",
    "COMMENT ON COLUMN ended_sessions.digest IS 'of the token'",
    "CREATE INDEX ended_sessions_changed ON ended_sessions (changed_at)",
    "CREATE INDEX ended_sessions_expires ON ended_sessions (expires_at)",
    """CREATE TABLE session_epochs (
        account_id TEXT NOT NULL,
        ended_before TIMESTAMP WITH TIME ZONE NOT NULL,
        changed_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
        PRIMARY KEY (account_id)
    )""",
    "COMMENT ON COLUMN session_epochs.ended_before IS 'tokens issued until then count no more'",
    "CREATE INDEX session_epochs_changed ON session_epochs (changed_at)",
)


def upgrade() -> None:
    """Add two tables that begin empty."""
    for statement in CHANGES:
        op.execute(statement)
