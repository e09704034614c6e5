"""Every sweep of payments finds its own by an index, in the order in which it goes through them.

Payments that are overdue and notifications to be forgotten were looked for in the whole tables, by each
process and every 20 seconds.
"""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

CHANGES = (
    "CREATE INDEX rail_payments_unpaid ON rail_payments (rail, payment_id) WHERE unpaid",
    "CREATE INDEX rail_payments_watched ON rail_payments (rail, payment_id) WHERE watch_until IS NOT NULL",
    "DROP INDEX rail_payments_watch",
    "DROP INDEX rail_payments_unpriced",
    "CREATE INDEX rail_payments_unpriced ON rail_payments (rail, payment_id) WHERE unpriced",
    "CREATE INDEX rail_notifications_done ON rail_notifications (received_at) WHERE state = 'done'",
)


def upgrade() -> None:
    """Change indexes alone."""
    for change in CHANGES:
        op.execute(change)
