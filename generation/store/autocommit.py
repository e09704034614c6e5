"""Connections for single questions, which need no BEGIN before and no ROLLBACK after them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine


class Autocommit:
    """Switches connections of an engine's pool while they are used.

    An engine with this option would switch them inside `connect()`. psycopg gives way to other tasks there now and
    then, and who is cancelled at that moment leaves the connection to the garbage collector.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncConnection]:
        """A connection on which each statement stands for itself."""
        async with self._engine.connect() as connection:
            try:
                await connection.execution_options(isolation_level="AUTOCOMMIT")
            except BaseException:
                # It may be switched already, and nothing would switch it back: the next user wants a transaction.
                await connection.invalidate()
                raise
            yield connection
