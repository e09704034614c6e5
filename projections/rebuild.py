"""A fresh replay of the read models: compared with those that are kept, or put in their place.

The projections' own code writes into temporary tables of the same names, in one snapshot of the
database, up to the position that the kept ones have reached. Both must then be equal, row by row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import sqlalchemy as sa
from psycopg.rows import tuple_row
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from ledger.log.categories import Categories
from ledger.log.encoding import EventRow, decode_row
from ledger.log.findings import Progress, silent
from ledger.log.model import Envelope
from ledger.log.recorder import EVENT_COLUMNS
from projections.accounts import AccountProjection
from projections.feed import FeedProjection
from projections.runner import Projection
from projections.tables import account_feed, balances, positions, statement_entries, stream_owners

PAGE = 2_000
DIFFERENCES_MAX = 20
TABLES: dict[str, tuple[sa.Table, ...]] = {
    AccountProjection.name: (balances, statement_entries),
    FeedProjection.name: (stream_owners, account_feed),
}


class Difference(NamedTuple):
    """A row that a fresh replay does not give, or gives otherwise."""

    table: str
    key: str
    position: int | None
    why: str


class Rebuilt(NamedTuple):
    """What a comparison found."""

    position: int
    """Up to where the read models reach that were compared."""
    differences: list[Difference]


async def compare_with_fresh_replay(
    sqlalchemy_url: str, categories: Categories, *, progress: Progress = silent
) -> Rebuilt:
    """Replay the log into fresh read models and compare. Writers and readers go on meanwhile."""
    engine = create_async_engine(sqlalchemy_url, isolation_level="REPEATABLE READ")
    try:
        async with engine.connect() as connection:
            kept = str((await connection.execute(sa.text("SELECT current_schema()"))).scalar_one())
            for table in (table for tables in TABLES.values() for table in tables):
                await connection.execute(
                    sa.text(f"CREATE TEMPORARY TABLE {table.name} (LIKE {kept}.{table.name} INCLUDING ALL)")
                )
            await connection.commit()  # the snapshot is taken by the next statement
            reached = await _replay(connection, categories, progress)
            differences = [
                difference
                for tables in TABLES.values()
                for table in tables
                for difference in await _compare(connection, kept, table)
            ]
            await connection.rollback()
    finally:
        await engine.dispose()
    return Rebuilt(
        reached, sorted(differences, key=lambda found: (found.position is None, found.position or 0))
    )


async def _replay(connection: AsyncConnection, categories: Categories, progress: Progress) -> int:
    rows = await connection.execute(sa.select(positions.c.projection, positions.c.position))
    reached = {name: position for name, position in rows if name in TABLES}
    projections: Sequence[Projection] = (AccountProjection(), FeedProjection())
    position, end = 0, max(reached.values(), default=0)
    while position < end:
        entries = await _page(connection, categories, position, end)
        if not entries:
            break
        for projection in projections:
            until = reached.get(projection.name, 0)
            await projection.apply(connection, [entry for entry in entries if entry.position <= until])
        position = entries[-1].position
        progress("events projected", position, end)
    return end


async def _page(connection: AsyncConnection, categories: Categories, after: int, end: int) -> list[Envelope]:
    raw = await connection.get_raw_connection()
    driver = raw.driver_connection
    assert driver is not None
    async with driver.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(
            f"SELECT {EVENT_COLUMNS} FROM stored_events "
            "WHERE notification_id > %s AND notification_id <= %s ORDER BY notification_id LIMIT %s",
            (after, end, PAGE),
            binary=True,
        )
        return [decode_row(EventRow(*row), categories) async for row in cursor]


async def _compare(connection: AsyncConnection, kept: str, table: sa.Table) -> list[Difference]:
    name, columns = table.name, ", ".join(column.name for column in table.columns)
    order = ", ".join(column.name for column in table.primary_key.columns)
    if "position" in table.c:
        order = f"position, {order}"

    def missing_from(there: str, here: str) -> sa.TextClause:
        return sa.text(
            f"SELECT * FROM (SELECT {columns} FROM {there}.{name} EXCEPT SELECT {columns} FROM {here}.{name}) "
            f"AS difference ORDER BY {order} LIMIT {DIFFERENCES_MAX}"
        )

    extra = list((await connection.execute(missing_from(kept, "pg_temp"))).mappings())
    lacking = list((await connection.execute(missing_from("pg_temp", kept))).mappings())
    keys = [column.name for column in table.primary_key.columns]
    found = [_difference(name, keys, row, "is not what a fresh replay gives") for row in extra]
    known = {difference.key for difference in found}
    also = [_difference(name, keys, row, "is missing; a fresh replay gives it") for row in lacking]
    return found + [difference for difference in also if difference.key not in known]


def _difference(table: str, keys: Iterable[str], row: sa.RowMapping, why: str) -> Difference:
    key = "/".join(str(row[name]) for name in keys)
    return Difference(table, key, row.get("position"), f"the row {key} of {table} {why}")


async def rebuild(sqlalchemy_url: str, categories: Categories, *, progress: Progress = silent) -> int:
    """Write the read models anew, in one transaction, up to where they are; returns that position.

    For rows that are wrong, or that newer code would write otherwise. The kept rows can be read
    meanwhile, but for balances; whoever keeps them waits and then goes on from the same position.
    """
    engine = create_async_engine(sqlalchemy_url, isolation_level="READ COMMITTED")
    names = [table.name for tables in TABLES.values() for table in tables]
    try:
        async with engine.begin() as connection:
            # A runner reads balances before it writes: it must not begin on rows that are about to go.
            await connection.execute(sa.text(f"LOCK TABLE {balances.name} IN ACCESS EXCLUSIVE MODE"))
            await connection.execute(sa.text(f"LOCK TABLE {', '.join(names)} IN EXCLUSIVE MODE"))
            for name in names:
                await connection.execute(sa.text(f"DELETE FROM {name}"))
            return await _replay(connection, categories, progress)
    finally:
        await engine.dispose()
