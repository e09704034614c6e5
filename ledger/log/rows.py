"""Rows of other packages' tables as SQL: read under lock by key, written many at a time as JSON.

PostgreSQL itself turns the JSON into the columns' types (`json_populate_recordset`), so that one
statement with one parameter writes any number of rows of any table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import msgspec
import sqlalchemy as sa

from ledger.log.model import SideTable

_encode = msgspec.json.Encoder().encode


@lru_cache(maxsize=256)
def reading(side: SideTable) -> str:
    """Locks and reads the rows with the keys of its one parameter, in key order; all columns."""
    key, table = _quoted(side.key_column), _quoted(side.table.name)
    columns = ", ".join(_quoted(column.name) for column in side.table.columns)
    return f"SELECT {columns} FROM {table} WHERE {key} = ANY($1::text[]) ORDER BY {key} FOR UPDATE"


@lru_cache(maxsize=256)
def putting(side: SideTable, columns: tuple[str, ...]) -> str:
    """Inserts or replaces the rows of its one parameter, which have exactly these columns."""
    key, table = _quoted(side.key_column), _quoted(side.table.name)
    names = ", ".join(map(_quoted, columns))
    others = ", ".join(
        f"{_quoted(name)} = excluded.{_quoted(name)}" for name in columns if name != side.key_column
    )
    conflict = f"UPDATE SET {others}" if others else "NOTHING"
    return (
        f"INSERT INTO {table} ({names}) SELECT {names} "
        f"FROM json_populate_recordset(NULL::{table}, convert_from($1::bytea, 'UTF8')::json) "
        f"ON CONFLICT ({key}) DO {conflict}"
    )


@lru_cache(maxsize=256)
def deleting(side: SideTable) -> str:
    """Deletes the rows with the keys of its one parameter."""
    return f"DELETE FROM {_quoted(side.table.name)} WHERE {_quoted(side.key_column)} = ANY($1::text[])"


def encode_rows(side: SideTable, rows: Iterable[Mapping[str, Any]]) -> bytes:
    """The parameter of `putting`."""
    binary = [column.name for column in side.table.columns if isinstance(column.type, sa.LargeBinary)]
    if not binary:
        return _encode(list(rows))
    return _encode(
        [{name: _hex(value) if name in binary else value for name, value in row.items()} for row in rows]
    )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _hex(value: bytes | None) -> str | None:
    return None if value is None else "\\x" + value.hex()
