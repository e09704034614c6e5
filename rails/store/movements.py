"""The tables of what the outside says about our money, and of where that differs from what we say."""

from __future__ import annotations

import sqlalchemy as sa

from ledger.followups.rows import FollowUps, failing_index, retry_columns
from ledger.instants import instant
from rails.store.tables import METADATA

MOVEMENT_ROWS = sa.Table(
    "rail_movements",
    METADATA,
    sa.Column("rail", sa.Text, primary_key=True),
    sa.Column("movement_ref", sa.Text, primary_key=True, comment="the outside's own name"),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False, comment="whose money; its own name if it is no payer's"),
    sa.Column("asset", sa.Text, nullable=False),
    sa.Column("scale", sa.SmallInteger, nullable=False, comment="decimal places of a minor unit"),
    sa.Column("amount_minor", sa.BigInteger, nullable=False, comment="adds to what is held for us"),
    sa.Column("fee_minor", sa.BigInteger, nullable=False),
    sa.Column("parts_minor", sa.BigInteger, comment="the sum of what a payout pays out"),
    instant("occurred_at"),
    instant("read_at"),
    sa.Column("external_ref", sa.Text),
    sa.Column("compared", sa.Boolean, nullable=False, comment="with what our payments say"),
    sa.Index("rail_movements_subject", "rail", "subject"),
    sa.Index("rail_movements_new", "rail", "subject", postgresql_where=sa.text("NOT compared")),
)
"""Every movement of money, as the outside has it. Rows are never changed but for `compared`."""

DIFFERENCE_ROWS = sa.Table(
    "rail_differences",
    METADATA,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=True),
    sa.Column("rail", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("part", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("asset", sa.Text, nullable=False),
    sa.Column("ours_minor", sa.BigInteger, comment="null: we know nothing of it"),
    sa.Column("theirs_minor", sa.BigInteger, comment="null: they know nothing of it"),
    sa.Column("payment_id", sa.Text),
    instant("opened_at"),
    instant("seen_at", comment="when both were compared last"),
    instant("closed_at", nullable=True, comment="when both agreed"),
    sa.Index(
        "rail_differences_open",
        "rail",
        "subject",
        "part",
        unique=True,
        postgresql_where=sa.text("closed_at IS NULL"),
    ),
)
"""What both sides did not agree on. A row closes by itself when they do; none is ever deleted."""

BOOK_ROWS = sa.Table(
    "rail_books",
    METADATA,
    sa.Column("rail", sa.Text, primary_key=True),
    sa.Column("cursor", sa.Text, comment="up to where the outside's books were read"),
    sa.Column("position", sa.BigInteger, nullable=False, comment="up to which event ours were compared"),
    sa.Column("opening", sa.JSON, comment="what was held before the first movement, by asset"),
    instant("read_at", nullable=True, comment="when nothing more was to be read"),
    instant("compared_at", nullable=True),
)
"""How far each rail has been read and compared."""

RECONCILIATION_ROWS = sa.Table(
    "rail_reconciliations",
    METADATA,
    sa.Column("rail", sa.Text, primary_key=True),
    instant("due_at"),
    *retry_columns(),
    failing_index("rail_reconciliations"),
)
"""When each rail is read and compared next."""

RECONCILIATIONS = FollowUps(kind="rail_reconciliation", table=RECONCILIATION_ROWS)
