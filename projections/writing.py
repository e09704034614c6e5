"""Rows of read models, any number of a table in one prepared statement.

They are sent as JSON that PostgreSQL turns into columns (`json_populate_recordset`), through the driver's own connection:
building a statement anew for each page would cost more than what it does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import psycopg
import sqlalchemy as sa
from psycopg.rows import tuple_row
from sqlalchemy.ext.asyncio import AsyncConnection

Row = Mapping[str, Any]
Driver = psycopg.AsyncConnection[Any]

_encode = msgspec.json.Encoder().encode


async def driver_of(connection: AsyncConnection) -> Driver:
    """The driver's connection. What it does is a part of the transaction that `connection` is in."""
    driver = (await connection.get_raw_connection()).driver_connection
    assert isinstance(driver, psycopg.AsyncConnection)
    return driver


def inserting(table: sa.Table, columns: Sequence[str] = (), *, on_conflict: str = "") -> bytes:
    """A statement for `put`: inserts rows that have these columns, or all of the table's."""
    names = ", ".join(columns or table.columns.keys())
    rows = f"json_populate_recordset(NULL::{table.name}, %s::json)"
    return f"INSERT INTO {table.name} ({names}) SELECT {names} FROM {rows} {on_conflict}".encode()


async def put(driver: Driver, statement: bytes, rows: Sequence[Row]) -> None:
    """Write rows by a statement of `inserting`."""
    await driver.execute(statement, (_encode(rows).decode(),), prepare=True)


async def found(driver: Driver, query: bytes, wanted: Sequence[str]) -> list[tuple[Any, ...]]:
    """The rows of a query with one parameter, an array of texts."""
    async with driver.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(query, (list(wanted),), prepare=True, binary=True)
        rows: list[tuple[Any, ...]] = await cursor.fetchall()
        return rows
