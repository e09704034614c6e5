"""The gateway's own rows: idempotency keys, people, guests. Nothing here is an event."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from ledger.instants import instant

metadata = sa.MetaData()


idempotency_keys = sa.Table(
    "idempotency_keys",
    metadata,
    sa.Column("principal", sa.Text, primary_key=True),
    sa.Column("route", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True, comment="as the client chose it"),
    sa.Column("body_digest", sa.LargeBinary, nullable=False),
    sa.Column("resource_id", sa.Text, nullable=False, comment="the id that this key stands for"),
    sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),
    instant("created_at"),
)

people = sa.Table(
    "people",
    metadata,
    sa.Column("issuer", sa.Text, primary_key=True),
    sa.Column("subject", sa.Text, primary_key=True),
    sa.Column("account_id", sa.Text, nullable=False, unique=True),
    sa.Column("email", sa.Text, comment="erasable"),
    instant("created_at"),
)

operators = sa.Table(
    "operators",
    metadata,
    sa.Column("account_id", sa.Text, primary_key=True),
    sa.Column("added_by", sa.Text, nullable=False, comment="who let them in"),
    instant("added_at"),
)

guests = sa.Table(
    "guests",
    metadata,
    sa.Column("account_id", sa.Text, primary_key=True),
    sa.Column("code_digest", sa.LargeBinary, unique=True, comment="of the recovery code"),
    instant("created_at"),
)

sign_in_links = sa.Table(
    "sign_in_links",
    metadata,
    sa.Column("link_id", sa.Text, primary_key=True),
    sa.Column("email", sa.Text, nullable=False, comment="erasable"),
    instant("expires_at"),
    instant("used_at", nullable=True),
    sa.Index("sign_in_links_expires", "expires_at"),
)

l402_tokens = sa.Table(
    "l402_tokens",
    metadata,
    sa.Column("token_id", sa.LargeBinary, primary_key=True),
    sa.Column("account_id", sa.Text, nullable=False),
    sa.Column("holder", sa.LargeBinary, nullable=False, comment="keyed digest of whoever was asked to pay"),
    sa.Column("credits", sa.Integer, nullable=False),
    sa.Column("networks", ARRAY(sa.Text), nullable=False, comment="keyed digests of where it was asked from"),
    sa.Column("payment_id", sa.Text),
    sa.Column("is_open", sa.Boolean, nullable=False),
    instant("opened_at"),
    instant("open_until"),
    instant("valid_until"),
    instant("revoked_at", nullable=True),
    sa.Index("l402_tokens_is_open", "holder", "credits", unique=True, postgresql_where=sa.text("is_open")),
    sa.Index("l402_tokens_open", "open_until"),
)

ended_sessions = sa.Table(
    "ended_sessions",
    metadata,
    sa.Column("digest", sa.LargeBinary, primary_key=True, comment="of the token"),
    sa.Column("account_id", sa.Text, nullable=False),
    instant("expires_at"),
    instant("changed_at", server_default=sa.func.clock_timestamp()),
    sa.Index("ended_sessions_changed", "changed_at"),
    sa.Index("ended_sessions_expires", "expires_at"),
)

session_epochs = sa.Table(
    "session_epochs",
    metadata,
    sa.Column("account_id", sa.Text, primary_key=True),
    instant("ended_before", comment="tokens issued until then count no more"),
    instant("changed_at", server_default=sa.func.clock_timestamp()),
    sa.Index("session_epochs_changed", "changed_at"),
)
