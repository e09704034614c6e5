"""A lease is extended by everything that moves, not by the sampler's steps alone."""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a column to the queue; running jobs begin to count from zero."""
    op.execute("ALTER TABLE job_queue ADD COLUMN progress_moved INTEGER DEFAULT '0' NOT NULL")
    op.execute("COMMENT ON COLUMN job_queue.progress_moved IS 'all that moved in this lease'")
