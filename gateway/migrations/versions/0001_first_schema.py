"""The first schema: the log, payments, generation, projections and the gateway's own tables."""

from __future__ import annotations

from alembic import op

from gateway.schema import METADATA

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create every table as the packages declare it today.

    Until the first release this revision follows the declarations; from then on it is frozen and
    every change is a revision of its own.
    """
    for metadata in METADATA:
        metadata.create_all(op.get_bind())


def downgrade() -> None:
    """Drop everything."""
    for metadata in reversed(METADATA):
        metadata.drop_all(op.get_bind())
