"""Alembic's entry: one connection, one advisory lock, so that two starting processes take turns."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context

from gateway.schema import METADATA

_LOCK = 7_233_104_551


def run() -> None:
    """Run the pending migrations in one transaction."""
    engine = sa.create_engine(context.config.attributes["url"], poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        context.configure(connection=connection, target_metadata=METADATA)
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


run()
