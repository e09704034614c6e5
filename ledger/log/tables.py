"""The log's own tables, and the follow-ups that accounts cause.

`stored_events` has the shape that `eventsourcing`'s recorder expects.
"""

from __future__ import annotations

import sqlalchemy as sa

from ledger.followups.rows import failing_index, retry_columns
from ledger.instants import instant

metadata = sa.MetaData()

stored_events = sa.Table(
    "stored_events",
    metadata,
    sa.Column("originator_id", sa.Text, primary_key=True, comment="the stream"),
    sa.Column("originator_version", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("topic", sa.Text, nullable=False, comment="the stored event name"),
    sa.Column("state", sa.LargeBinary, nullable=False, comment="JSON: envelope and data"),
    sa.Column("notification_id", sa.BigInteger, nullable=False, comment="the position in the log, no gaps"),
    sa.Index("stored_events_notification_id_idx", "notification_id", unique=True),
)

log_batches = sa.Table(
    "log_batches",
    metadata,
    sa.Column("batch", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("first_position", sa.BigInteger, nullable=False),
    sa.Column("last_position", sa.BigInteger, nullable=False, comment="first_position - 1 if no event"),
    sa.Column("outcomes", sa.Integer, nullable=False),
    instant("recorded_at"),
    sa.Column("previous_hash", sa.LargeBinary, nullable=False),
    sa.Column("hash", sa.LargeBinary, nullable=False),
)

log_outcomes = sa.Table(
    "log_outcomes",
    metadata,
    sa.Column("key", sa.Text, primary_key=True, comment="command key: ours, time-ordered"),
    sa.Column("batch", sa.BigInteger, nullable=False),
    sa.Column("ordinal", sa.Integer, nullable=False, comment="its place among the batch's outcomes"),
    sa.Column("body_digest", sa.LargeBinary, nullable=False),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("refusal", sa.Text, comment="the refusal's code, null if accepted"),
    sa.Column("detail", sa.LargeBinary, nullable=False, comment="JSON: the result or the refusal's details"),
)

log_snapshots = sa.Table(
    "log_snapshots",
    metadata,
    sa.Column("stream", sa.Text, primary_key=True),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("shape", sa.Text, nullable=False, comment="which code wrote it; another shape is ignored"),
    sa.Column("state", sa.LargeBinary, nullable=False),
)

account_merges = sa.Table(
    "account_merges",
    metadata,
    sa.Column("account_id", sa.Text, primary_key=True, comment="the guest"),
    sa.Column("into_account", sa.Text, nullable=False, comment="whose account the guest's credits go to"),
    instant("due_at"),
    *retry_columns(),
    sa.Index("account_merges_due", "due_at"),
    failing_index("account_merges"),
    comment="guests of whom paid credits are still to be moved",
)

merged_accounts = sa.Table(
    "merged_accounts",
    metadata,
    sa.Column("account_id", sa.Text, primary_key=True, comment="the guest"),
    sa.Column("into_account", sa.Text, nullable=False, comment="the account that the guest was merged into"),
    sa.Index("merged_accounts_into", "into_account"),
    comment="to whom belongs what a merged guest made",
)

account_due = sa.Table(
    "account_due",
    metadata,
    sa.Column("account_id", sa.Text, primary_key=True),
    instant("due_at", index=True),
    *retry_columns(),
    failing_index("account_due"),
    comment="work to do, not a read model: which accounts a sweep should visit, and when",
)


def create_log_tables(url: str) -> None:
    """Create these tables where they are missing, at `postgresql://…`; services migrate instead."""
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))
    try:
        metadata.create_all(engine)
    finally:
        engine.dispose()
