"""`llamasketch prepare-database`: newest schema, and a role for the API that can do no more than it needs."""

from __future__ import annotations

import psycopg
import sqlalchemy as sa
import typer

from gateway.commands import stack
from gateway.database.privileges import make_role
from gateway.database.schema import migrate

OWNER = "DATABASE_OWNER_URL"
WANTED = {
    OWNER: "the address with which tables may be made",
    stack.DATABASE: "the address of the API, whose role is made",
}


def run_prepare_database() -> int:
    """Migrate as the owner, then make or mend the role of DATABASE_URL. May be run again at any time."""
    environ = stack.environment()
    missing = [f"WRONG: {name} is missing: {what}" for name, what in WANTED.items() if not environ.get(name)]
    if missing:
        stack.fail("\n".join(missing))
    owner = environ[OWNER]
    try:
        migrate(stack.sqlalchemy_url(owner))
        name = make_role(owner, stack.database_url())
    except ValueError as error:
        stack.fail(f"{error}.")
    except (psycopg.OperationalError, sa.exc.OperationalError):
        stack.fail("The database does not answer.")
    except (psycopg.errors.InsufficientPrivilege, sa.exc.ProgrammingError):
        stack.fail(f"The role of {OWNER} may not make tables and roles.")
    typer.echo(f"The database has the newest schema, and the role {name} may read and write its rows.")
    return 0
