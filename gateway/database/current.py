"""Whether a database has the newest schema, asked without loading what would migrate it: at nearly every start it has."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg

MIGRATIONS = Path(__file__).parent / "migrations"


def newest_revision() -> str:
    """The revision of the last migration, by the numbers that begin the names of their files."""
    names = (re.match(r"(\d{4})_", path.name) for path in (MIGRATIONS / "versions").glob("*.py"))
    return max(name[1] for name in names if name is not None)


def is_current(connection: psycopg.Connection) -> bool:
    """Whether nothing is to be migrated, as far as this role may see."""
    there = connection.execute("SELECT to_regclass('alembic_version')").fetchone()
    if there is None or there[0] is None:
        return False
    try:
        found = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    except psycopg.errors.InsufficientPrivilege:
        connection.rollback()
        return False
    return found == [(newest_revision(),)]
