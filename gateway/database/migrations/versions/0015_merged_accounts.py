"""Where each merged guest went is a row beside the log: reads find what the guest made."""

from __future__ import annotations

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

CHANGES = (
    """
    CREATE TABLE merged_accounts (
        account_id TEXT NOT NULL,
        into_account TEXT NOT NULL,
        PRIMARY KEY (account_id)
    )
    """,
    "COMMENT ON TABLE merged_accounts IS 'to whom belongs what a merged guest made'",
    "COMMENT ON COLUMN merged_accounts.account_id IS 'the guest'",
    "COMMENT ON COLUMN merged_accounts.into_account IS 'the account that the guest was merged into'",
    "CREATE INDEX merged_accounts_into ON merged_accounts (into_account)",
    # Guests were merged before there was this table: the log knows where each went, once.
    """
    INSERT INTO merged_accounts (account_id, into_account)
    SELECT originator_id, convert_from(state, 'UTF8')::json -> 'data' ->> 'to_account'
    FROM stored_events
    WHERE topic = 'ledger.credits_moved_out.v1'
    ON CONFLICT DO NOTHING
    """,
)


def upgrade() -> None:
    """What guests made follows those who signed in before, too."""
    for change in CHANGES:
        op.execute(change)
