"""People who may act as operators; and payments that wait for one are found without reading all of them."""

from __future__ import annotations

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

CHANGES = (
    """
    CREATE TABLE operators (
        account_id TEXT NOT NULL,
        added_by TEXT NOT NULL,
        added_at TIMESTAMP WITH TIME ZONE NOT NULL,
        PRIMARY KEY (account_id)
    )
    """,
    "COMMENT ON COLUMN operators.added_by IS 'who let them in'",
    "ALTER TABLE rail_payments ADD COLUMN suspended BOOLEAN DEFAULT false NOT NULL",
    "COMMENT ON COLUMN rail_payments.suspended IS 'has money that waits for an operator'",
    """
    UPDATE rail_payments SET suspended = true
    WHERE EXISTS (
        SELECT 1 FROM json_each(payment -> 'receipts') AS receipt
        WHERE receipt.value ->> 'status' IN ('mismatched', 'too_small')
        AND (receipt.value ->> 'taken_minor')::numeric = 0
    )
    """,
    """
    CREATE INDEX rail_payments_attention ON rail_payments (payment_id)
    WHERE suspended OR unpriced OR state = 'disputed'
    """,
)


def upgrade() -> None:
    """A table, a column with a default, and an index over few rows."""
    for change in CHANGES:
        op.execute(change)
