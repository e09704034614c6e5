"""What the API's role may do in the database: read and write rows, but change no table and no past event."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg
from psycopg import sql

APPEND_ONLY = ("stored_events", "log_batches", "log_outcomes")
"""The log: what stands in it, nobody who serves requests can change or delete."""
_TOO_MUCH = ("rolsuper", "rolcreaterole", "rolbypassrls", "rolreplication")
_POWERS = sql.SQL("SELECT {} FROM pg_roles WHERE rolname = current_user").format(
    sql.SQL(", ").join(map(sql.Identifier, _TOO_MUCH))
)
_READ_ONLY_VERSIONS = "alembic_version"


class TooPowerful(Exception):
    """The database role may do more than a server should be able to do."""


def refuse_superuser(connection: psycopg.Connection[Any]) -> None:
    """Raise `TooPowerful` if whoever is connected could change roles, read files or bypass every rule."""
    row = connection.execute(_POWERS).fetchone() or ()
    powers = [name.removeprefix("rol") for name, has in zip(_TOO_MUCH, row, strict=False) if has]
    if powers:
        raise TooPowerful(
            f"DATABASE_URL: in production its role must not have {', '.join(powers)}: "
            "make one for the API with `llamasketch prepare-database`"
        )


def make_role(owner_url: str, role_url: str) -> str:
    """Make or mend the role that `role_url` names, as the owner of the tables. Returns its name.

    Raises `ValueError` if both are the same role, or the address names no role or password.
    """
    parts = urlsplit(role_url)
    name, password = unquote(parts.username or ""), unquote(parts.password or "")
    if not name or not password:
        raise ValueError("DATABASE_URL names no role with a password")
    with psycopg.connect(owner_url) as connection:
        (owner, database) = connection.execute("SELECT current_user, current_database()").fetchone() or (
            "",
            "",
        )
        if name == owner:
            raise ValueError("DATABASE_URL and DATABASE_OWNER_URL name the same role")
        known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,)).fetchone()
        for statement in _statements(name, password, database, known=known is not None):
            connection.execute(statement)
    return name


def _statements(name: str, password: str, database: str, *, known: bool) -> list[sql.Composed]:
    role = sql.Identifier(name)
    rights = "LOGIN NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS"
    log = sql.SQL(", ").join(map(sql.Identifier, APPEND_ONLY))
    return [
        sql.SQL("{} ROLE {} " + rights + " PASSWORD {}").format(
            sql.SQL("ALTER" if known else "CREATE"), role, sql.Literal(password)
        ),
        sql.SQL("GRANT CONNECT, TEMPORARY ON DATABASE {} TO {}").format(sql.Identifier(database), role),
        sql.SQL("GRANT USAGE ON SCHEMA public TO {}").format(role),
        sql.SQL("REVOKE CREATE ON SCHEMA public FROM PUBLIC, {}").format(role),
        sql.SQL("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {}").format(role),
        sql.SQL("GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {}").format(role),
        sql.SQL("REVOKE UPDATE, DELETE, TRUNCATE ON {} FROM {}").format(log, role),
        sql.SQL("REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON {} FROM {}").format(
            sql.Identifier(_READ_ONLY_VERSIONS), role
        ),
        # What later migrations of this owner add.
        sql.SQL(
            "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {}"
        ).format(role),
        sql.SQL("ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO {}").format(
            role
        ),
    ]
