"""What failed with a payment is postponed by itself: a row for each payment and task."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

CHANGES = (
    "ALTER TABLE rail_retries ADD COLUMN task TEXT",
    # What waited for a rate was asked about like everything else.
    "UPDATE rail_retries SET task = CASE WHEN last_problem LIKE 'expire:%' THEN 'expire' ELSE 'observe' END",
    "ALTER TABLE rail_retries ALTER COLUMN task SET NOT NULL",
    "ALTER TABLE rail_retries DROP CONSTRAINT rail_retries_pkey",
    "ALTER TABLE rail_retries ADD CONSTRAINT rail_retries_pkey PRIMARY KEY (payment_id, task)",
    "COMMENT ON COLUMN rail_retries.task IS 'observe or expire'",
    "DROP INDEX rail_retries_rail",
)


def upgrade() -> None:
    """Key the few rows anew; none is lost."""
    for statement in CHANGES:
        op.execute(statement)
