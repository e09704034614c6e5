"""A pool of connections that tells those who get none why: all are in use, or the database is away."""

from __future__ import annotations

from typing import Any, Final

from psycopg_pool import AsyncConnectionPool, PoolTimeout

from ledger.errors import TooBusy


class ReadingPool(AsyncConnectionPool[Any]):
    """As `AsyncConnectionPool`, but who waits in vain while others use every connection gets `TooBusy`.

    `psycopg_pool` raises `PoolTimeout` for that and for a database that cannot be reached, and it is an
    `OperationalError` like any lost connection: a crowd would be told that the database is away.
    """

    OPENING_MAX: Final = 1
    """Connections that a pool opens at a time because of need: counted in its size, of use to nobody yet."""

    _lent = 0

    async def getconn(self, timeout: float | None = None) -> Any:
        """See `AsyncConnectionPool.getconn`. Raises `TooBusy` where none came free, `PoolTimeout` where none is."""
        try:
            connection = await super().getconn(timeout)
        except PoolTimeout as error:
            if self._lent >= max(1, self.get_stats()["pool_size"] - self.OPENING_MAX):
                raise TooBusy from error
            raise
        self._lent += 1
        return connection

    async def putconn(self, conn: Any) -> None:
        """See `AsyncConnectionPool.putconn`."""
        self._lent -= 1
        await super().putconn(conn)
