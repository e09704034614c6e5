"""Payment requests that links have opened take places of their own."""

from __future__ import annotations

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

CHANGES = (
    """
    CREATE TABLE rail_link_openings (
        account_id TEXT NOT NULL,
        open_until JSON NOT NULL,
        PRIMARY KEY (account_id)
    )
    """,
    "COMMENT ON COLUMN rail_link_openings.open_until IS 'by payment, when its place is free at the latest'",
)


def upgrade() -> None:
    """There were no such links before."""
    for statement in CHANGES:
        op.execute(statement)
