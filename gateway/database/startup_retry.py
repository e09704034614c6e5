"""At start PostgreSQL may still be on its way: wait for it, for a while, and say so. Redis is not waited for."""

from __future__ import annotations

import time
from collections.abc import Callable

import psycopg
import sqlalchemy as sa
import structlog

from gateway.database.current import is_current
from gateway.database.privileges import refuse_superuser
from gateway.database.schema import migrate

WAIT_SECONDS_MAX = 60.0
PAUSE_SECONDS = 0.1
REPORTED_EVERY_SECONDS = 10.0
CONNECT_SECONDS = 5


class DatabaseAway(Exception):
    """PostgreSQL cannot be reached."""


class NotTheOwner(Exception):
    """There is something to migrate, and this role may not."""


def migrate_when_there(
    database_url: str,
    *,
    production: bool = False,
    wait_seconds_max: float = WAIT_SECONDS_MAX,
    now: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Bring the database to the newest schema as soon as it answers.

    Raises `TooPowerful` if in production the role is a superuser, `NotTheOwner` if there is something to migrate
    and the role may not, and `DatabaseAway` if it has not after `wait_seconds_max`. Why not may change meanwhile (nobody
    listens, it starts up, the database is being created), so every reason is waited for.
    """
    log = structlog.get_logger("gateway.serve")
    began = now()
    returned = -REPORTED_EVERY_SECONDS
    while True:
        try:
            return _migrate(database_url, production=production)
        except (psycopg.OperationalError, sa.exc.OperationalError) as error:
            waited, why = now() - began, _reason(error)
        if waited >= wait_seconds_max:
            raise DatabaseAway(f"PostgreSQL (DATABASE_URL) was not reachable for {waited:.0f} seconds: {why}")
        if waited - returned >= REPORTED_EVERY_SECONDS:
            returned = waited
            log.warning("waiting_for_database", waited_seconds=round(waited), why=why)
        pause(min(PAUSE_SECONDS, wait_seconds_max - waited))


def _migrate(database_url: str, *, production: bool) -> None:
    # An address that swallows everything would hold the migration up for minutes.
    with psycopg.connect(database_url, connect_timeout=CONNECT_SECONDS) as connection:
        if production:
            refuse_superuser(connection)
        current = is_current(connection)
    if current:
        return
    try:
        migrate(database_url.replace("postgresql://", "postgresql+psycopg://", 1))
    except sa.exc.ProgrammingError as error:
        if isinstance(error.orig, psycopg.errors.InsufficientPrivilege):
            raise NotTheOwner(
                "The database needs the newest schema, which its role may not make: "
                "run `llamasketch prepare-database` with the owner's address in DATABASE_OWNER_URL."
            ) from error
        raise


def _reason(error: Exception) -> str:
    """The last line that is no question of libpq's: before it come the addresses that were tried."""
    cause = getattr(error, "orig", None) or error
    lines = [line.strip() for line in str(cause).splitlines()]
    reported = [line for line in lines if line and not line.endswith("?")]
    return reported[-1] if reported else type(cause).__name__
