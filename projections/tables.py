"""The read models' tables."""

from __future__ import annotations

import sqlalchemy as sa

from ledger.instants import instant

metadata = sa.MetaData()

positions = sa.Table(
    "projection_positions",
    metadata,
    sa.Column("projection", sa.Text, primary_key=True),
    sa.Column("position", sa.BigInteger, nullable=False),
)

balances = sa.Table(
    "balances",
    metadata,
    sa.Column("account_id", sa.Text, primary_key=True),
    sa.Column("posted", sa.BigInteger, nullable=False, comment="credits owned, in hold or not"),
    sa.Column("held", sa.BigInteger, nullable=False),
    sa.Column("debt", sa.BigInteger, nullable=False),
    sa.Column("position", sa.BigInteger, nullable=False, comment="of the newest event that moved it"),
    sa.CheckConstraint("posted >= 0 AND held >= 0 AND debt >= 0", name="balances_are_never_negative"),
)

statement_entries = sa.Table(
    "statement_entries",
    metadata,
    sa.Column("account_id", sa.Text, primary_key=True),
    sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
    instant("recorded_at"),
    sa.Column("kind", sa.Text, nullable=False, comment="granted, held, captured, released and so on"),
    sa.Column(
        "credits",
        sa.BigInteger,
        nullable=False,
        comment="of what is owned; of what is available where only a reservation changes",
    ),
    sa.Column("posted_after", sa.BigInteger, nullable=False),
    sa.Column("held_after", sa.BigInteger, nullable=False),
    sa.Column("debt_after", sa.BigInteger, nullable=False),
    sa.Column("reference_type", sa.Text, nullable=False),
    sa.Column("reference_id", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
)

stream_owners = sa.Table(
    "stream_owners",
    metadata,
    sa.Column("stream", sa.Text, primary_key=True, comment="a job or a payment"),
    sa.Column("account_id", sa.Text, nullable=False),
)

account_feed = sa.Table(
    "account_feed",
    metadata,
    sa.Column("account_id", sa.Text, primary_key=True),
    sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("topic", sa.Text, nullable=False, comment="account, generation or topup"),
    sa.Column("stream", sa.Text, nullable=False),
)
