"""`llamasketch prepare-database`: newest schema, and a role for the API that can do no more than it needs."""

from __future__ import annotations

import psycopg
import sqlalchemy as sa
import typer

from gateway.commands import stack
from gateway.database.privileges import make_role
from gateway.database.schema import migrate

OWNER = "DATABASE_OWNER_URL"


def run_prepare_database() -> int:
    """Migrate as the owner, then make or mend the role of DATABASE_URL. May be run again at any time."""
    owner = stack.environment().get(OWNER)
    if not owner:
        stack.fail(f"{OWNER} is not set: the address with which tables may be made.")
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
