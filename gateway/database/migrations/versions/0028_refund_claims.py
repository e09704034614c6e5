"""What exactly is paid for a refund is kept before it is paid, and no other refund may pay the same."""

from __future__ import annotations

from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

CHANGES = (
    """
    CREATE TABLE rail_refund_claims (
        claim TEXT NOT NULL,
        refund_id TEXT NOT NULL,
        claimed_at TIMESTAMP WITH TIME ZONE NOT NULL,
        PRIMARY KEY (claim)
    )
    """,
    "COMMENT ON COLUMN rail_refund_claims.claim IS 'the outside''s own name of what is paid once'",
    "COMMENT ON COLUMN rail_refund_claims.refund_id IS 'the only refund that may pay it'",
    "ALTER TABLE rail_refunds ADD COLUMN prepared TEXT",
    "COMMENT ON COLUMN rail_refunds.prepared IS 'what exactly is paid; kept before it is'",
    # What was under way may have been paid already: it goes on with the invoice that it named.
    "UPDATE rail_refunds SET prepared = destination WHERE NOT by_hand",
)


def upgrade() -> None:
    """A new table, and a nullable column."""
    for change in CHANGES:
        op.execute(change)
