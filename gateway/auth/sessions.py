"""Which tokens have been ended before their time: signed out here, or everywhere.

Every process keeps them in memory and reads every second what has changed, so a request costs no question to the
database. What one process ends, it knows at once; every other one within `STALE_SECONDS_MAX` while PostgreSQL
answers. While it does not, nobody's account can be read either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.auth.identity import Credential
from gateway.database.tables import ended_sessions, session_epochs
from ledger.clock import Clock
from ledger.identifiers import AccountId

REREAD_SECONDS = 1.0
STALE_SECONDS_MAX = 2.0
"""Within this, what one process has ended is ended in all."""
_OVERLAP = timedelta(seconds=30)
"""Read again each time: a change is dated when it is made, and seen when it is committed."""
_BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Change:
    account_id: AccountId
    digest: bytes | None
    until: datetime
    """Of one token: when it would have ended by itself. Of an account: before when all of its tokens are ended."""


def ending_all(account_id: str, now: datetime | sa.ColumnElement[datetime]) -> sa.Executable:
    """The statement that ends every token of an account that was issued until now."""
    row = insert(session_epochs).values(account_id=account_id, ended_before=now)
    newest = sa.func.greatest(session_epochs.c.ended_before, row.excluded.ended_before)
    changed = {"ended_before": newest, "changed_at": sa.func.clock_timestamp()}
    return row.on_conflict_do_update(index_elements=["account_id"], set_=changed)


class Sessions:
    """The ended tokens, in memory and in PostgreSQL."""

    def __init__(self, engine: AsyncEngine, clock: Clock, ended: Callable[[AccountId], None]) -> None:
        """`ended` is called in this process with the account whose tokens just ended: open streams look again."""
        self._engine = engine
        self._clock = clock
        self._on_end = ended
        self._ended: dict[bytes, datetime] = {}
        self._before: dict[AccountId, datetime] = {}
        self._read_until = _BEGINNING
        self._log = structlog.get_logger("gateway.auth.sessions")

    def is_ended(self, account_id: AccountId, credential: Credential) -> bool:
        """Whether this token counts no more."""
        before = self._before.get(account_id)
        return credential.digest in self._ended or (before is not None and credential.issued_at <= before)

    def ended_before(self, account_id: AccountId) -> datetime | None:
        """Until when all tokens of an account were ended, if they ever were."""
        return self._before.get(account_id)

    async def end(self, account_id: AccountId, credential: Credential) -> None:
        """End one token."""
        now = self._clock()
        row = insert(ended_sessions).values(
            digest=credential.digest, account_id=account_id, expires_at=credential.expires_at
        )
        async with self._engine.begin() as connection:
            # A token that is too old to be used needs no row.
            await connection.execute(ended_sessions.delete().where(ended_sessions.c.expires_at < now))
            await connection.execute(row.on_conflict_do_nothing())
        self._apply(_Change(account_id, credential.digest, credential.expires_at))

    async def end_all(self, account_id: AccountId) -> datetime:
        """End every token of an account that was issued until now; returns that moment."""
        now = self._clock()
        async with self._engine.begin() as connection:
            await connection.execute(ending_all(account_id, now))
        self._apply(_Change(account_id, None, now))
        return now

    async def refresh(self) -> None:
        """Read what has changed since the last time; the first time, everything."""
        since = self._read_until - _OVERLAP
        tokens = sa.select(
            ended_sessions.c.account_id, ended_sessions.c.digest, ended_sessions.c.expires_at.label("until")
        ).where(ended_sessions.c.changed_at > since)
        accounts = sa.select(
            session_epochs.c.account_id,
            sa.cast(sa.null(), sa.LargeBinary).label("digest"),
            session_epochs.c.ended_before.label("until"),
        ).where(session_epochs.c.changed_at > since)
        async with self._engine.connect() as connection:
            read_at = (await connection.execute(sa.select(sa.func.clock_timestamp()))).scalar_one()
            rows = (await connection.execute(sa.union_all(tokens, accounts))).all()
        self._read_until = read_at
        for row in rows:
            digest = None if row.digest is None else bytes(row.digest)
            self._apply(_Change(AccountId(row.account_id), digest, row.until))
        self._forget_expired()

    async def run(self) -> None:
        """Go on reading for ever."""
        while True:
            await asyncio.sleep(REREAD_SECONDS)
            try:
                await self.refresh()
            except (sa.exc.SQLAlchemyError, OSError) as error:
                self._log.warning("sessions_not_read", error=type(error).__name__)

    def _apply(self, change: _Change) -> None:
        if change.digest is not None:
            news = change.digest not in self._ended
            self._ended[change.digest] = change.until
        else:
            news = change.until > self._before.get(change.account_id, _BEGINNING)
            self._before[change.account_id] = max(
                change.until, self._before.get(change.account_id, _BEGINNING)
            )
        if news:
            self._on_end(change.account_id)

    def _forget_expired(self) -> None:
        now = self._clock()
        for digest in [digest for digest, until in self._ended.items() if until < now]:
            del self._ended[digest]
