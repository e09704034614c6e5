"""Tables and columns take the standard terms that the code uses: notification, orphaned upload, usage reversal."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

RENAMES = (
    "ALTER TABLE rail_hints RENAME TO rail_notifications",
    "ALTER TABLE rail_notifications RENAME COLUMN hint_id TO notification_id",
    "ALTER TABLE rail_notifications RENAME CONSTRAINT rail_hints_pkey TO rail_notifications_pkey",
    (
        "ALTER TABLE rail_notifications RENAME CONSTRAINT rail_hints_rail_hint_id_key"
        " TO rail_notifications_rail_notification_id_key"
    ),
    "ALTER INDEX rail_hints_due RENAME TO rail_notifications_due",
    "ALTER SEQUENCE rail_hints_id_seq RENAME TO rail_notifications_id_seq",
    "ALTER TABLE job_leftovers RENAME TO job_orphaned_uploads",
    "ALTER TABLE job_orphaned_uploads RENAME CONSTRAINT job_leftovers_pkey TO job_orphaned_uploads_pkey",
    "ALTER INDEX job_leftovers_due RENAME TO job_orphaned_uploads_due",
    "ALTER TABLE job_returns RENAME TO job_usage_reversals",
    "ALTER TABLE job_usage_reversals RENAME CONSTRAINT job_returns_pkey TO job_usage_reversals_pkey",
)


def upgrade() -> None:
    """Rename; no row changes."""
    for statement in RENAMES:
        op.execute(statement)
