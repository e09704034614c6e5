"""A balance's position is that of the newest event that moved it, wherever the pages began and ended.

Before, events of the same page that moved nothing counted as well, so that a replay in other pages gave
other rows and `llamasketch verify` reported them.
"""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Every line of the statement is one event that moved the balance."""
    op.execute(
        """
        UPDATE balances SET position = newest.position
        FROM (SELECT account_id, max(position) AS position FROM statement_entries GROUP BY account_id) AS newest
        WHERE newest.account_id = balances.account_id AND newest.position <> balances.position
        """
    )
    op.execute("COMMENT ON COLUMN balances.position IS 'of the newest event that moved it'")
