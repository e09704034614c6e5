"""The tables of automatic top-ups. Rows named "erasable" hold what belongs to people."""

from __future__ import annotations

import sqlalchemy as sa

from ledger.followups.rows import FollowUps, failing_index, retry_columns
from ledger.instants import instant
from ledger.log.model import SideTable

METADATA = sa.MetaData()

AUTO_TOPUP_ROWS = sa.Table(
    "auto_topups",
    METADATA,
    sa.Column("account_id", sa.Text, primary_key=True),
    sa.Column("rail", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False, comment="why it is off, or empty"),
    sa.Column("pack", sa.JSON, nullable=False, comment="as it was agreed to"),
    sa.Column("threshold", sa.BigInteger, nullable=False, comment="credits below which it is bought"),
    sa.Column("limit_minor", sa.BigInteger, nullable=False, comment="US cents in a UTC month"),
    sa.Column("consent", sa.Text, nullable=False, comment="the words that were agreed to"),
    instant("consented_at"),
    sa.Column("saving_id", sa.Text, nullable=False, comment="of the page to save a method on"),
    sa.Column("page_reference", sa.Text),
    sa.Column("page_url", sa.Text, comment="while that page is open"),
    instant("page_expires_at", nullable=True),
    sa.Column("method", sa.Text, comment="the rail's own handle of what is charged"),
    sa.Column("method_label", sa.Text, nullable=False),
    instant("method_expires_at", nullable=True),
    sa.Column("month", sa.Text, nullable=False, comment="UTC, of the sum"),
    sa.Column("charged_minor", sa.BigInteger, nullable=False, comment="US cents charged in that month"),
    sa.Column("charge_key", sa.Text, nullable=False, comment="of the charge under way, or empty"),
    sa.Column("payment_id", sa.Text, comment="of the newest charge"),
    sa.Column("declines", sa.Integer, nullable=False, comment="in a row"),
    instant("not_before", comment="it is not looked at because of a balance"),
    sa.Column("revision", sa.BigInteger, nullable=False, comment="counts its changes"),
    instant("due_at"),
    *retry_columns(),
    sa.Index("auto_topups_due", "due_at", postgresql_where=sa.text("state <> 'off'")),
    failing_index("auto_topups"),
)
"""Who has their credits topped up, and how it stands. Erasable."""

AUTO_TOPUPS = FollowUps(kind="auto_topup", table=AUTO_TOPUP_ROWS, waiting=AUTO_TOPUP_ROWS.c.state != "off")

STOP_ROWS = sa.Table(
    "auto_topup_stops",
    METADATA,
    sa.Column("account_id", sa.Text, primary_key=True),
    sa.Column("reason", sa.Text, nullable=False),
    instant("due_at"),
    *retry_columns(),
    sa.Index("auto_topup_stops_due", "due_at"),
    failing_index("auto_topup_stops"),
)
"""Accounts whose money went back or is disputed: what tops them up is to be turned off."""

STOPS = FollowUps(kind="auto_topup_stop", table=STOP_ROWS)
STOP_TABLE = SideTable(STOP_ROWS)

FORGET_ROWS = sa.Table(
    "auto_topup_forgets",
    METADATA,
    sa.Column(
        "method", sa.Text, primary_key=True, comment="the rail's own handle of what is charged no more"
    ),
    sa.Column("rail", sa.Text, nullable=False),
    instant("due_at"),
    *retry_columns(),
    sa.Index("auto_topup_forgets_due", "due_at"),
    failing_index("auto_topup_forgets"),
)
"""Saved methods that the provider is to forget: turned off, replaced, or of whoever was erased. Names nobody."""

FORGETS = FollowUps(kind="auto_topup_forget", table=FORGET_ROWS)
