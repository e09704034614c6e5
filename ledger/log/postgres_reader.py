"""Reading the log from PostgreSQL without blocking anyone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import tuple_row
from psycopg_pool import AsyncConnectionPool

from ledger.errors import LogUnavailable
from ledger.identifiers import CommandKey
from ledger.log.cache import StateCache
from ledger.log.categories import Categories
from ledger.log.encoding import EventRow, OutcomeRow, decode_row
from ledger.log.model import Envelope
from ledger.log.reader import StreamState
from ledger.log.recorder import EVENT_COLUMNS, Snapshot

_HEAD = "SELECT coalesce(max(notification_id), 0) FROM stored_events"
_STATE = f"""
SELECT coalesce(s.version, 0) AS version, s.shape AS name, s.state AS state, ({_HEAD}) AS position
FROM (SELECT %(stream)s::text AS stream) AS wanted LEFT JOIN log_snapshots s USING (stream)
UNION ALL
SELECT originator_version, topic, state, notification_id FROM stored_events
WHERE originator_id = %(stream)s::text AND originator_version > coalesce(
    (SELECT version FROM log_snapshots WHERE stream = %(stream)s::text), 0)
ORDER BY version
"""
"""The snapshot with the log's head, then the events after it. One statement sees one state of the database."""


class PostgresLogReader:
    """The real `LogReader`, on a pool of asynchronous connections."""

    def __init__(self, pool: AsyncConnectionPool[Any], categories: Categories) -> None:
        self._pool = pool
        self._categories = categories

    async def state(self, stream: str) -> StreamState:
        """See `LogReader.state`. Costs the same however long the history is."""
        (version, shape, kept, position), *rows = await self._fetch(_STATE, {"stream": stream})
        codec = self._categories.codec_of(stream)
        if shape is None:
            snapshots, events = [], [EventRow(stream, *row) for row in rows]
        elif codec is not None and codec.shape == shape:
            snapshots = [Snapshot(stream, version, shape, kept)]
            events = [EventRow(stream, *row) for row in rows]
        else:  # from the start; what was appended meanwhile is in it, past the head that was read before
            snapshots = []
            events = await self._rows("originator_id = %s ORDER BY originator_version", (stream,))
        cache = StateCache(self._categories, capacity=1)
        cache.load([stream], snapshots, lambda _: events)
        state, version = cache.view([stream])[stream]
        return StreamState(state, version, position)

    async def events(
        self,
        stream: str,
        *,
        after_version: int = 0,
        up_to_position: int | None = None,
        up_to_time: datetime | None = None,
        limit: int | None = None,
    ) -> Sequence[Envelope]:
        """See `LogReader.events`."""
        where, parameters = "originator_id = %s AND originator_version > %s", [stream, after_version]
        if up_to_time is not None:
            where += (
                " AND notification_id <= (SELECT coalesce(max(last_position), 0) FROM log_batches"
                " WHERE recorded_at <= %s)"
            )
            parameters.append(up_to_time)
        if up_to_position is not None:
            where += " AND notification_id <= %s"
            parameters.append(up_to_position)
        where += " ORDER BY originator_version"
        if limit is not None:
            where += " LIMIT %s"
            parameters.append(limit)
        return [decode_row(row, self._categories) for row in await self._rows(where, parameters)]

    async def read(self, *, after: int, limit: int) -> Sequence[Envelope]:
        """See `LogReader.read`."""
        rows = await self._rows("notification_id > %s ORDER BY notification_id LIMIT %s", (after, limit))
        return [decode_row(row, self._categories) for row in rows]

    async def head(self) -> int:
        """See `LogReader.head`."""
        return int((await self._fetch(_HEAD, ()))[0][0])

    async def outcome(self, key: CommandKey) -> OutcomeRow | None:
        """What a command was answered, or None if it never was."""
        found = await self._fetch(
            "SELECT key, batch, ordinal, body_digest, position, refusal, detail "
            "FROM log_outcomes WHERE key = %s",
            (key,),
        )
        return OutcomeRow(*found[0]) if found else None

    async def _rows(self, where: str, parameters: Sequence[Any]) -> list[EventRow]:
        found = await self._fetch(f"SELECT {EVENT_COLUMNS} FROM stored_events WHERE {where}", parameters)
        return [EventRow(*row) for row in found]

    async def _fetch(
        self, query: str, parameters: Sequence[Any] | Mapping[str, Any]
    ) -> list[tuple[Any, ...]]:
        try:
            async with (
                self._pool.connection() as connection,
                connection.cursor(row_factory=tuple_row) as cursor,
            ):
                await cursor.execute(query.encode(), parameters, prepare=True, binary=True)
                found: list[tuple[Any, ...]] = await cursor.fetchall()
                return found
        except psycopg.OperationalError as error:
            raise LogUnavailable from error
