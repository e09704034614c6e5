"""No key was ever issued: there are no programs' keys, and nothing wrote or read this table."""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Drop it."""
    op.drop_table("api_keys")
