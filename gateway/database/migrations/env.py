"""Alembic's entry: one connection, one advisory lock, so that two starting processes take turns.

Each migration is a transaction, and waits for a table's lock only as long as `lock_timeout` says: whoever comes
after it waits behind it. `gateway.database.schema` tries again.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context

from gateway.database.schema import METADATA

_LOCK = 7_233_104_551


def run() -> None:
    """Run the pending migrations, each in a transaction."""
    attributes = context.config.attributes
    engine = sa.create_engine(attributes["url"], poolclass=sa.NullPool)
    try:
        with engine.connect() as connection:
            # Held by the session, and so from the first migration to the last. While it is waited for, no
            # table is locked: that may take as long as it likes.
            connection.execute(sa.text("SELECT pg_advisory_lock(:lock)"), {"lock": _LOCK})
            timeout = f"{attributes['lock_timeout_milliseconds']}ms"
            connection.execute(
                sa.text("SELECT set_config('lock_timeout', :timeout, false)"), {"timeout": timeout}
            )
            connection.commit()
            context.configure(connection=connection, target_metadata=METADATA, transaction_per_migration=True)
            with context.begin_transaction():
                context.run_migrations()
    finally:
        engine.dispose()


run()
