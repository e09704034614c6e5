"""How many payment requests of an account are open is decided by one row, under the log's lock."""

from __future__ import annotations

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

CHANGES = (
    """
    CREATE TABLE rail_openings (
        account_id TEXT NOT NULL,
        open_until JSON NOT NULL,
        PRIMARY KEY (account_id)
    )
    """,
    "COMMENT ON COLUMN rail_openings.open_until IS 'by payment, when its place is free at the latest'",
    # By the account that opened it: a payment's row follows a guest, its place does not.
    """
    INSERT INTO rail_openings
    SELECT payment -> 'opened' ->> 'account_id', json_object_agg(payment_id, quote_expires_at)
    FROM rail_payments
    WHERE unpaid AND quote_expires_at > now()
    GROUP BY 1
    """,
)


def upgrade() -> None:
    """Payment requests that are open keep their places."""
    for statement in CHANGES:
        op.execute(statement)
