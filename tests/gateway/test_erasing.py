"""What is erased with a person, and what stays: decided for every table that names an account."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from gateway.commands.erase import erase_person
from gateway.database.schema import METADATA
from generation.images.object_store import DiskStore, LinkSigner
from tests.gateway.conftest import Open
from tests.gateway.stack import operator_of

ACCOUNT, OTHER = "acct_erased", "acct_other"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
KEPT: Mapping[str, str] = {
    "account_due": "work to be done",
    "account_feed": "a place in the stream of events",
    "account_merges": "work to be done",
    "auto_topup_stops": "work to be done",
    "balances": "credits, as the log says",
    "ended_sessions": "a token that was ended opens nothing again",
    "fair_shares": "whose turn it is in the queue",
    "job_funding": "a payment for one image, until it has ended",
    "job_queue": "a waiting job ends as failed, and is counted back",
    "merged_accounts": "whose the credits are",
    "rail_link_openings": "places that are bounded",
    "rail_openings": "places that are bounded",
    "rail_payments": "money that comes late still finds its payment",
    "rail_subscriptions": "an invoice that is paid late still finds its plan; the links to its pages go",
    "rail_uses": "what was used beyond a plan is compared with what the rail bills",
    "session_epochs": "their tokens are ended",
    "statement_entries": "credits, as the log says",
    "stream_owners": "whose an image was, without the image",
    "worker_failures": "evidence against workers",
}
"""Why its rows stay. All of them hold ids, amounts, times and digests alone."""


def tables() -> Mapping[str, tuple[sa.Table, str]]:
    """Every table that names an account, and the column that does."""
    return {
        table.name: (table, column)
        for metadata in METADATA
        for table in metadata.tables.values()
        for column in ("account_id", "principal")
        if column in table.columns
    }


def value_of(column: sa.Column[Any], account_id: str) -> Any:
    """Something that this column may hold, another for each account."""
    kind = column.type
    if isinstance(kind, sa.DateTime):
        return NOON
    if isinstance(kind, postgresql.JSONB | sa.JSON):
        return {}
    if isinstance(kind, sa.Boolean):
        return False
    if isinstance(kind, sa.Integer | sa.Numeric):
        return len(account_id)
    if isinstance(kind, sa.LargeBinary):
        return account_id.encode()
    if isinstance(kind, sa.ARRAY):
        return []
    return account_id


def row_of(table: sa.Table, account_column: str, account_id: str) -> Mapping[str, Any]:
    wanted = {
        column.name: column
        for column in table.columns
        if column.name == account_column or not column.nullable
    }
    return {name: value_of(column, account_id) for name, column in wanted.items()}


def store_in(folder: Path) -> DiskStore:
    return DiskStore(folder, LinkSigner(b"a secret of sixteen", lambda: NOON), "http://llamasketch.test")


async def test_of_every_table_that_names_an_account_its_rows_go_or_it_is_said_why_they_stay(
    make_database: Callable[..., str], migrated: str, tmp_path: Path
) -> None:
    url = make_database(migrated).replace("postgresql://", "postgresql+psycopg://", 1)
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        for table, column in tables().values():
            for account_id in (ACCOUNT, OTHER):
                await connection.execute(sa.insert(table).values(row_of(table, column, account_id)))
    await erase_person(url, store_in(tmp_path), ACCOUNT)
    async with engine.connect() as connection:
        stay = {name for name in tables() if await naming(connection, name, ACCOUNT)}
        others = {name for name in tables() if await naming(connection, name, OTHER)}
    await engine.dispose()
    assert stay == KEPT.keys()
    assert others == tables().keys(), "somebody else's were erased"


async def naming(connection: AsyncConnection, name: str, account_id: str) -> int:
    """How many rows of a table name this account."""
    table, column = tables()[name]
    query = sa.select(sa.func.count()).select_from(table).where(table.c[column] == account_id)
    return int((await connection.execute(query)).scalar_one())


async def test_no_token_opens_what_was_erased_nor_the_pages_of_operators(
    open_gateway: Open, tmp_path: Path
) -> None:
    async with open_gateway() as gateway:
        person, guest = await operator_of(gateway), await gateway.visitor()
        accounts = [(await client.get("/v1/account")).json()["id"] for client in (person, guest)]
        assert (await person.get("/v1/operator/payments")).status_code == 200
        for account_id in accounts:
            await erase_person(gateway.services.base.settings.sqlalchemy_url, store_in(tmp_path), account_id)
        await gateway.services.identity.sessions.refresh()
        assert (await guest.get("/v1/account")).status_code == 401
        assert (await person.get("/v1/account")).json()["id"] not in accounts, "their sign-in is new here"
        assert (await person.get("/v1/operator/payments")).status_code == 403
