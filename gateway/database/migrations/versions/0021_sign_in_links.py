"""Links by which people sign in."""

from __future__ import annotations

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

CHANGES = (
    """
    CREATE TABLE sign_in_links (
        link_id TEXT NOT NULL,
        email TEXT NOT NULL,
        expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
        used_at TIMESTAMP WITH TIME ZONE,
        PRIMARY KEY (link_id)
    )
    """,
    "COMMENT ON COLUMN sign_in_links.email IS 'erasable'",
    "CREATE INDEX sign_in_links_expires ON sign_in_links (expires_at)",
    """
    COMMENT ON COLUMN mail_outbox.account_id
    IS 'whom it is for: the account as it was when the mail was caused, or a sign-in link'
    """,
)


def upgrade() -> None:
    """Nobody signed in by a link before."""
    for statement in CHANGES:
        op.execute(statement)
