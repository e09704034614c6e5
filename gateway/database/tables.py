"""The gateway's own rows: idempotency keys, people, guests, API keys. Nothing here is an event."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from ledger.log.model import SideTable

metadata = sa.MetaData()


def _time(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


idempotency_keys = sa.Table(
    "idempotency_keys",
    metadata,
    sa.Column("principal", sa.Text, primary_key=True),
    sa.Column("route", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True, comment="as the client chose it"),
    sa.Column("body_digest", sa.LargeBinary, nullable=False),
    sa.Column("resource_id", sa.Text, nullable=False, comment="the id that this key stands for"),
    sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),
    _time("created_at"),
)

people = sa.Table(
    "people",
    metadata,
    sa.Column("issuer", sa.Text, primary_key=True),
    sa.Column("subject", sa.Text, primary_key=True),
    sa.Column("account_id", sa.Text, nullable=False, unique=True),
    sa.Column("email", sa.Text, comment="erasable"),
    _time("created_at"),
)

guests = sa.Table(
    "guests",
    metadata,
    sa.Column("account_id", sa.Text, primary_key=True),
    sa.Column("code_digest", sa.LargeBinary, unique=True, comment="of the recovery code"),
    sa.Column("merged_into", sa.Text),
    _time("created_at"),
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("key_id", sa.Text, primary_key=True),
    sa.Column("account_id", sa.Text, nullable=False),
    sa.Column("digest", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("scopes", JSONB, nullable=False),
    sa.Column("label", sa.Text, nullable=False),
    _time("created_at"),
    _time("revoked_at", nullable=True),
)

GUESTS = SideTable(guests)
