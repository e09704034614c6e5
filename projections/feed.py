"""What moved for whom: the durable part of `GET /v1/events`, in the order of the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ledger.log.model import Envelope
from projections.tables import account_feed, stream_owners
from projections.writing import Driver, driver_of, found, inserting, put

OWNERS_MAX = 20_000
"""Streams whose owners are kept in memory."""
_OWNERS = b"SELECT stream, account_id FROM stream_owners WHERE stream = ANY(%s)"
_PUT_OWNERS = inserting(stream_owners, on_conflict="ON CONFLICT DO NOTHING")
_PUT_FEED = inserting(account_feed, on_conflict="ON CONFLICT DO NOTHING")
TOPICS: Mapping[str, str] = {"acct": "account", "job": "generation", "pay": "topup"}


class Moved(NamedTuple):
    """One entry of an account's feed."""

    position: int
    topic: str
    stream: str


class FeedProjection:
    """Keeps `account_feed`. A job's or payment's first event names its account."""

    name = "feed"

    def __init__(self) -> None:
        self._touched: set[str] = set()
        self._owners: dict[str, str] = {}
        """Of the newest streams."""

    async def apply(self, connection: AsyncConnection, entries: Sequence[Envelope]) -> None:
        """See `Projection.apply`."""
        driver = await driver_of(connection)
        owners = await self._owners_of(driver, entries)
        rows = [
            {"account_id": owner, "position": entry.position, "topic": topic, "stream": entry.stream}
            for entry in entries
            if (topic := TOPICS.get(entry.stream.partition("_")[0])) is not None
            and (owner := owners.get(entry.stream)) is not None
        ]
        if rows:
            await put(driver, _PUT_FEED, rows)
        self._touched.update(str(row["account_id"]) for row in rows)

    def take_touched(self) -> set[str]:
        """The accounts that moved since the last call."""
        touched, self._touched = self._touched, set()
        return touched

    async def _owners_of(self, driver: Driver, entries: Sequence[Envelope]) -> Mapping[str, str]:
        """By stream, for those that have an owner. Who owns a stream never changes."""
        owners = {entry.stream: entry.stream for entry in entries if entry.stream.startswith("acct_")}
        named = {
            entry.stream: str(account)
            for entry in entries
            if entry.version == 1 and (account := getattr(entry.event, "account_id", None))
        }
        if named:
            rows = [{"stream": stream, "account_id": account} for stream, account in named.items()]
            await put(driver, _PUT_OWNERS, rows)
        owners |= named
        unknown = {entry.stream for entry in entries} - owners.keys()
        owners |= {stream: known for stream in unknown if (known := self._owners.get(stream)) is not None}
        if missing := sorted(unknown - owners.keys()):
            owners |= dict(await found(driver, _OWNERS, missing))
        self._remember(named)
        return owners

    def _remember(self, named: Mapping[str, str]) -> None:
        """A new job soon has more events."""
        self._owners.update(named)
        while len(self._owners) > OWNERS_MAX:
            del self._owners[next(iter(self._owners))]


_of_accounts = account_feed.c.account_id == sa.any_(sa.bindparam("accounts", type_=ARRAY(sa.Text())))
_later = account_feed.c.position > sa.bindparam("after", type_=sa.BigInteger())
_AFTER = (
    sa.select(account_feed.c.position, account_feed.c.topic, account_feed.c.stream)
    .where(_of_accounts, _later)
    .order_by(account_feed.c.position)
    .limit(sa.bindparam("most", type_=sa.Integer()))
)
_NEWEST = (
    sa.select(account_feed.c.account_id, sa.func.max(account_feed.c.position))
    .where(_of_accounts, _later)
    .group_by(account_feed.c.account_id)
)


class Feeds:
    """Questions to the feed."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def after(self, accounts: Sequence[str], position: int, limit: int) -> Sequence[Moved]:
        """What moved for these accounts past a position, oldest first."""
        known = {"accounts": list(accounts), "after": position, "most": limit}
        async with self._engine.connect() as connection:
            return [Moved(*row) for row in await connection.execute(_AFTER, known)]

    async def newest(self, accounts: Sequence[str], *, after: int) -> Mapping[str, int]:
        """The last position at which each of these accounts moved, for those that did past `after`."""
        known = {"accounts": list(accounts), "after": after}
        async with self._engine.connect() as connection:
            return {str(row[0]): int(row[1]) for row in await connection.execute(_NEWEST, known)}
