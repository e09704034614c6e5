"""For how long a change of a subscription is: a month may become a year."""

from __future__ import annotations

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

CHANGES = (
    "ALTER TABLE rail_subscriptions ADD COLUMN next_length TEXT, ADD COLUMN pending_length TEXT",
    "UPDATE rail_subscriptions SET next_length = length WHERE next_plan IS NOT NULL",
    "UPDATE rail_subscriptions SET pending_length = length WHERE pending_plan IS NOT NULL",
    "COMMENT ON COLUMN rail_subscriptions.next_length IS 'the same for how long'",
    "COMMENT ON COLUMN rail_subscriptions.pending_length IS 'the same for how long'",
)


def upgrade() -> None:
    """Until now a change kept the length."""
    for statement in CHANGES:
        op.execute(statement)
