"""Tokens that name prepaid balances (L402)."""

from __future__ import annotations

from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

CHANGES = (
    """
    CREATE TABLE l402_tokens (
        token_id BYTEA NOT NULL,
        account_id TEXT NOT NULL,
        holder BYTEA NOT NULL,
        credits INTEGER NOT NULL,
        networks TEXT[] NOT NULL,
        payment_id TEXT,
        is_open BOOLEAN NOT NULL,
        opened_at TIMESTAMP WITH TIME ZONE NOT NULL,
        open_until TIMESTAMP WITH TIME ZONE NOT NULL,
        valid_until TIMESTAMP WITH TIME ZONE NOT NULL,
        revoked_at TIMESTAMP WITH TIME ZONE,
        PRIMARY KEY (token_id)
    )
    """,
    "COMMENT ON COLUMN l402_tokens.holder IS 'keyed digest of whoever was asked to pay'",
    "COMMENT ON COLUMN l402_tokens.networks IS 'keyed digests of where it was asked from'",
    "CREATE UNIQUE INDEX l402_tokens_is_open ON l402_tokens (holder, credits) WHERE is_open",
    "CREATE INDEX l402_tokens_open ON l402_tokens (open_until)",
)


def upgrade() -> None:
    """Nobody paid by L402 before."""
    for statement in CHANGES:
        op.execute(statement)
