"""At start PostgreSQL may still be on its way: wait for it, for a while, and say so. Redis is not waited for."""

from __future__ import annotations

import time
from collections.abc import Callable

import psycopg
import sqlalchemy as sa
import structlog

from gateway.schema import migrate

PATIENCE_SECONDS = 60.0
PAUSE_SECONDS = 0.5
TOLD_EVERY_SECONDS = 10.0
CONNECT_SECONDS = 5


class DatabaseAway(Exception):
    """PostgreSQL cannot be reached."""


def migrate_when_there(
    database_url: str,
    *,
    patience_seconds: float = PATIENCE_SECONDS,
    now: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Bring the database to the newest schema as soon as it answers.

    Raises `DatabaseAway` if it has not after `patience_seconds`. Why not may change meanwhile (nobody
    listens, it starts up, the database is being created), so every reason is waited for.
    """
    log = structlog.get_logger("gateway.serve")
    began = now()
    told = -TOLD_EVERY_SECONDS
    while True:
        try:
            return _migrate(database_url)
        except (psycopg.OperationalError, sa.exc.OperationalError) as error:
            waited, why = now() - began, _reason(error)
        if waited >= patience_seconds:
            raise DatabaseAway(f"PostgreSQL (DATABASE_URL) was not reachable for {waited:.0f} seconds: {why}")
        if waited - told >= TOLD_EVERY_SECONDS:
            told = waited
            log.warning("waiting_for_database", waited_seconds=round(waited), why=why)
        pause(min(PAUSE_SECONDS, patience_seconds - waited))


def _migrate(database_url: str) -> None:
    # An address that swallows everything would hold the migration up for minutes.
    psycopg.connect(database_url, connect_timeout=CONNECT_SECONDS).close()
    migrate(database_url.replace("postgresql://", "postgresql+psycopg://", 1))


def _reason(error: Exception) -> str:
    """The last line that is no question of libpq's: before it come the addresses that were tried."""
    cause = getattr(error, "orig", None) or error
    lines = [line.strip() for line in str(cause).splitlines()]
    said = [line for line in lines if line and not line.endswith("?")]
    return said[-1] if said else type(cause).__name__
