"""The side tables of the payment core. Rows named "erasable" may hold what belongs to people.

`rail_references` is kept for ever: money that comes years late still finds its payment.
"""

from __future__ import annotations

import sqlalchemy as sa

from ledger.followups.rows import FollowUps, failing_index, retry_columns
from ledger.instants import instant
from ledger.log.model import SideTable

METADATA = sa.MetaData()

PAYMENT_ROWS = sa.Table(
    "rail_payments",
    METADATA,
    sa.Column("payment_id", sa.Text, primary_key=True),
    sa.Column("account_id", sa.Text, nullable=False),
    sa.Column("rail", sa.Text, nullable=False),
    sa.Column("root_id", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("unpaid", sa.Boolean, nullable=False),
    sa.Column("unpriced", sa.Boolean, nullable=False),
    sa.Column(
        "suspended",
        sa.Boolean,
        nullable=False,
        server_default=sa.false(),
        comment="has money that waits for an operator",
    ),
    instant("watch_until", nullable=True),
    instant("quote_expires_at"),
    instant("opened_at"),
    sa.Column("payment", sa.JSON, nullable=False),
    sa.Index("rail_payments_account", "account_id", "opened_at"),
    sa.Index("rail_payments_root", "root_id"),
    # One for each sweep, in the order in which it goes through its payments: a page reads a page.
    sa.Index("rail_payments_unpaid", "rail", "payment_id", postgresql_where=sa.text("unpaid")),
    sa.Index(
        "rail_payments_watched", "rail", "payment_id", postgresql_where=sa.text("watch_until IS NOT NULL")
    ),
    sa.Index("rail_payments_unpriced", "rail", "payment_id", postgresql_where=sa.text("unpriced")),
    sa.Index(
        "rail_payments_attention",
        "payment_id",
        postgresql_where=sa.text("suspended OR unpriced OR state = 'disputed'"),
    ),
)
"""The present state of each payment, written in the transaction of its events. Rebuilt from the log."""

REFERENCE_ROWS = sa.Table(
    "rail_references",
    METADATA,
    sa.Column("payment_id", sa.Text, primary_key=True),
    sa.Column("rail", sa.Text, nullable=False),
    sa.Column("ordinal", sa.BigInteger, nullable=False),
    sa.Column("reference", sa.Text, nullable=True),
    sa.UniqueConstraint("rail", "ordinal"),
    sa.UniqueConstraint("rail", "reference"),
)
"""The rail's own handle for each payment. Without a reference the payment request is not open yet."""

INSTRUCTION_ROWS = sa.Table(
    "rail_instructions",
    METADATA,
    sa.Column("payment_id", sa.Text, primary_key=True),
    sa.Column("instructions", sa.JSON, nullable=False),
    sa.Column("return_url", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
)
"""How to pay: addresses, invoices, links. Erasable."""

ORDINAL_ROWS = sa.Table(
    "rail_ordinals",
    METADATA,
    sa.Column("rail", sa.Text, primary_key=True),
    sa.Column("last", sa.BigInteger, nullable=False),
)
"""The last ordinal given out per rail."""

CHARGE_ROWS = sa.Table(
    "rail_charges",
    METADATA,
    sa.Column("payment_id", sa.Text, primary_key=True),
    sa.Column("method", sa.Text, nullable=False, comment="the rail's own handle of what is charged"),
)
"""Which saved payment method a payment is charged to, until the rail has been asked to. Erasable."""

MONEY_ROWS = sa.Table(
    "rail_money",
    METADATA,
    sa.Column("money_ref", sa.Text, primary_key=True),
    sa.Column("payment_id", sa.Text, nullable=False),
)
"""Which payment a funds receipt was credited to: no money is credited to two."""

OPENING_ROWS = sa.Table(
    "rail_openings",
    METADATA,
    sa.Column("account_id", sa.Text, primary_key=True),
    sa.Column(
        "open_until", sa.JSON, nullable=False, comment="by payment, when its place is free at the latest"
    ),
)
"""The open payment requests of each account that opened them: what its limit is decided by."""

LINK_OPENING_ROWS = sa.Table(
    "rail_link_openings",
    METADATA,
    sa.Column("account_id", sa.Text, primary_key=True),
    sa.Column(
        "open_until", sa.JSON, nullable=False, comment="by payment, when its place is free at the latest"
    ),
)
"""The same of those that were opened by a link: whoever has one takes no place of the account's own."""

SUBSCRIPTION_ROWS = sa.Table(
    "rail_subscriptions",
    METADATA,
    sa.Column("subscription_id", sa.Text, primary_key=True, comment="ours"),
    sa.Column("account_id", sa.Text, nullable=False, comment="who opened it"),
    sa.Column("rail", sa.Text, nullable=False),
    sa.Column("page_reference", sa.Text, comment="of the page to subscribe on"),
    sa.Column("page_url", sa.Text, comment="while that page is open"),
    instant("page_expires_at"),
    sa.Column("reference", sa.Text, comment="the rail's own name of the subscription"),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("plan", sa.Text, nullable=False, comment="charged for now"),
    sa.Column("length", sa.Text, nullable=False, comment="month or year"),
    instant("period_start", nullable=True),
    instant("period_end", nullable=True),
    sa.Column("cancels", sa.Boolean, nullable=False, comment="it ends with its period"),
    sa.Column("next_plan", sa.Text, comment="charged for from the next period on"),
    sa.Column("next_length", sa.Text, comment="the same for how long"),
    sa.Column("pending_plan", sa.Text, comment="waits for its invoice to be paid"),
    sa.Column("pending_length", sa.Text, comment="the same for how long"),
    instant("next_attempt_at", nullable=True, comment="when the open invoice is collected again"),
    sa.Column("pay_url", sa.Text, comment="where the payer pays the open invoice"),
    sa.Column(
        "overage_usd_minor",
        sa.Integer,
        nullable=False,
        server_default="0",
        comment="US cents that it bills for each credit used beyond the plan",
    ),
    instant("opened_at"),
    instant("asked_at", comment="when the rail was asked for all this"),
    sa.Column("watched", sa.Boolean, nullable=False, comment="whether it is asked about unbidden"),
    instant("due_at", comment="when it is asked about next"),
    *retry_columns(),
    sa.UniqueConstraint("rail", "page_reference"),
    sa.UniqueConstraint("rail", "reference"),
    sa.Index("rail_subscriptions_account", "account_id", "opened_at"),
    sa.Index("rail_subscriptions_due", "due_at", postgresql_where=sa.text("watched")),
    failing_index("rail_subscriptions"),
)
"""How each subscription stands at its rail, as of when that was asked. Links are erasable."""

CURSOR_ROWS = sa.Table(
    "rail_cursors",
    METADATA,
    sa.Column("rail", sa.Text, primary_key=True),
    sa.Column("cursor", sa.Text, nullable=False),
)
"""Where to go on listening."""

NOTIFICATION_ROWS = sa.Table(
    "rail_notifications",
    METADATA,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("rail", sa.Text, nullable=False),
    sa.Column("notification_id", sa.Text, nullable=True),
    sa.Column("reference", sa.Text, nullable=True),
    sa.Column("state", sa.Text, nullable=False),
    instant("due_at"),
    instant("received_at"),
    *retry_columns(),
    sa.UniqueConstraint("rail", "notification_id"),
    sa.Index("rail_notifications_due", "rail", "due_at", postgresql_where=sa.text("state = 'waiting'")),
    sa.Index("rail_notifications_done", "received_at", postgresql_where=sa.text("state = 'done'")),
    failing_index("rail_notifications"),
)
"""Verified notifications, stored before they are answered. States: waiting, done, unmatched."""

UNMATCHED = "unmatched"
"""The state of a notification about something of ours that could not be dealt with. It is never forgotten."""

RETRY_ROWS = sa.Table(
    "rail_retries",
    METADATA,
    sa.Column("payment_id", sa.Text, primary_key=True),
    sa.Column("task", sa.Text, primary_key=True, comment="observe or expire"),
    sa.Column("rail", sa.Text, nullable=False),
    instant("due_at"),
    *retry_columns(),
    failing_index("rail_retries"),
)
"""What could not be done with a payment, until it can or need not be done any more."""

REFUND_ROWS = sa.Table(
    "rail_refunds",
    METADATA,
    sa.Column("refund_id", sa.Text, primary_key=True),
    sa.Column("payment_id", sa.Text, nullable=False),
    sa.Column("rail", sa.Text, nullable=False),
    sa.Column("destination", sa.Text, nullable=True, comment="where to; gone with the row"),
    sa.Column("by_hand", sa.Boolean, nullable=False, comment="an operator sends it and says so"),
    sa.Column("prepared", sa.Text, nullable=True, comment="what exactly is paid; kept before it is"),
    instant("due_at"),
    *retry_columns(),
    sa.Index("rail_refunds_due", "due_at", postgresql_where=sa.text("NOT by_hand")),
    failing_index("rail_refunds"),
)
"""Refunds that have not ended, written in the transaction that requests them."""

REFUND_CLAIM_ROWS = sa.Table(
    "rail_refund_claims",
    METADATA,
    sa.Column("claim", sa.Text, primary_key=True, comment="the outside's own name of what is paid once"),
    sa.Column("refund_id", sa.Text, nullable=False, comment="the only refund that may pay it"),
    instant("claimed_at"),
)
"""What refunds have paid, or were about to. Kept for ever: what was paid once is no other refund's."""

NOTIFICATIONS = FollowUps(
    kind="rail_notification", table=NOTIFICATION_ROWS, waiting=NOTIFICATION_ROWS.c.state == "waiting"
)
PAYMENT_RETRIES = FollowUps(kind="payment_retry", table=RETRY_ROWS)
SUBSCRIPTIONS = FollowUps(
    kind="rail_subscription", table=SUBSCRIPTION_ROWS, waiting=SUBSCRIPTION_ROWS.c.watched
)

REFUNDS = FollowUps(kind="refund", table=REFUND_ROWS, waiting=~REFUND_ROWS.c.by_hand)

PAYMENT_TABLE = SideTable(PAYMENT_ROWS)
REFUND_TABLE = SideTable(REFUND_ROWS)
REFUND_CLAIM_TABLE = SideTable(REFUND_CLAIM_ROWS)
REFERENCE_TABLE = SideTable(REFERENCE_ROWS)
INSTRUCTION_TABLE = SideTable(INSTRUCTION_ROWS)
CHARGE_TABLE = SideTable(CHARGE_ROWS)
ORDINAL_TABLE = SideTable(ORDINAL_ROWS)
MONEY_TABLE = SideTable(MONEY_ROWS)
OPENING_TABLE = SideTable(OPENING_ROWS)
SUBSCRIPTION_TABLE = SideTable(SUBSCRIPTION_ROWS)
LINK_OPENING_TABLE = SideTable(LINK_OPENING_ROWS)


def openings_table(*, by_link: bool) -> SideTable:
    """Where the place of a payment is kept."""
    return LINK_OPENING_TABLE if by_link else OPENING_TABLE
