"""Tables for tests that need few of them: the log's, and those of one side. (Services migrate instead.)"""

from __future__ import annotations

import sqlalchemy as sa

from ledger.log.tables import create_log_tables


def create_tables(url: str, *more: sa.MetaData) -> None:
    """The tables of the log and these, in an empty database; no connection is left open."""
    create_log_tables(url)
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))
    for tables in more:
        tables.create_all(engine)
    engine.dispose()


def database_name(url: str) -> str:
    """The name to copy it by: `make_database(template=database_name(url))`."""
    return url.rpartition("/")[2]
