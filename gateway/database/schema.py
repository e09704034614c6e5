"""The database's tables: every package's metadata in one place, and their creation by Alembic."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import psycopg
import sqlalchemy as sa
import structlog

import gateway.database.tables
import generation.store.tables
import ledger.log.tables
import mail.tables
import processes.auto_topups.tables
import projections.tables
import rails.store.movements
import rails.store.tables
from gateway.database.current import MIGRATIONS

METADATA: Sequence[sa.MetaData] = (
    ledger.log.tables.metadata,
    rails.store.tables.METADATA,
    generation.store.tables.metadata,
    mail.tables.METADATA,
    processes.auto_topups.tables.METADATA,
    projections.tables.metadata,
    gateway.database.tables.metadata,
)

LOCK_TIMEOUT_MILLISECONDS = 2_000
"""So long a migration waits for a lock at most, and everybody else behind it."""
LOCK_PAUSE_SECONDS = 5.0
"""Between attempts; meanwhile those who were kept waiting get on."""
LOCK_ATTEMPTS_MAX = 60
_IN_THE_WAY = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)


class MigrationBlocked(Exception):
    """Another session has locked a table for so long that the schema could not be changed."""


def migrate(
    sqlalchemy_url: str,
    revision: str = "head",
    *,
    lock_timeout_milliseconds: int = LOCK_TIMEOUT_MILLISECONDS,
    attempts_max: int = LOCK_ATTEMPTS_MAX,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Bring a database to the newest schema, or to `revision`, also while it is in use.

    Safe to run from several processes at once. A migration that does not get its locks in time is undone
    and tried again; those before it stay done. Raises `MigrationBlocked` after `attempts_max`.
    """
    # Late, because a database that is current needs neither (`gateway.imports`).
    from alembic import command
    from alembic.config import Config

    log = structlog.get_logger("gateway.database")
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["url"] = sqlalchemy_url
    config.attributes["lock_timeout_milliseconds"] = lock_timeout_milliseconds
    for attempt in range(1, attempts_max + 1):
        try:
            return command.upgrade(config, revision)
        except sa.exc.OperationalError as error:
            if not isinstance(error.orig, _IN_THE_WAY):
                raise
            log.warning("migration_waits_for_lock", attempt=attempt, statement=error.statement)
        if attempt < attempts_max:
            pause(LOCK_PAUSE_SECONDS)
    raise MigrationBlocked(
        f"Another session has kept a table locked through {attempts_max} attempts to change the schema. "
        "Find it in pg_stat_activity, end its transaction, and start again."
    )


async def migrate_async(sqlalchemy_url: str) -> None:
    """The same, off the event loop."""
    await asyncio.to_thread(migrate, sqlalchemy_url)
