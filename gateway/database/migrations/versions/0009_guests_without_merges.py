"""Where a guest was merged to is known by the log alone; nothing wrote or read this column."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Drop it."""
    op.drop_column("guests", "merged_into")
