"""The tables of mail. Rows named "erasable" may hold what belongs to people."""

from __future__ import annotations

import sqlalchemy as sa

from ledger.followups.rows import failing_index, retry_columns
from ledger.instants import instant

METADATA = sa.MetaData()

OUTBOX_ROWS = sa.Table(
    "mail_outbox",
    METADATA,
    sa.Column("mail_id", sa.Text, primary_key=True, comment="the letter's name and its cause"),
    sa.Column(
        "account_id",
        sa.Text,
        nullable=False,
        comment="whom it is for: the account as it was when the mail was caused, or a sign-in link",
    ),
    sa.Column("letter", sa.JSON, nullable=False, comment="what its template is filled with"),
    sa.Column("state", sa.Text, nullable=False, server_default="waiting"),
    instant("due_at"),
    instant("caused_at"),
    instant("sent_at", nullable=True),
    *retry_columns(),
    sa.Index("mail_outbox_due", "due_at"),
    sa.Index("mail_outbox_sent", "account_id", "sent_at", postgresql_where=sa.text("sent_at IS NOT NULL")),
    failing_index("mail_outbox"),
)
"""Mail that waits, that was sent, dropped or parked lately. Written with the event that causes it. Erasable."""

CHOICE_ROWS = sa.Table(
    "mail_choices",
    METADATA,
    sa.Column("account_id", sa.Text, primary_key=True),
    sa.Column(
        "optional", sa.Boolean, nullable=False, comment="whether letters that can be turned off are on"
    ),
    instant("changed_at"),
)
"""What people chose; without a row, everything is sent. Erasable."""
