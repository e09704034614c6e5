"""Visits accounts to which time has done something that nobody booked: breakage, earned days.

Whoever holds credits books what is overdue on the account by the way. For accounts that nobody
uses, a table says when each is due next: a projection puts in what events tell, and a sweep takes
out what it has visited. An account that is visited too often or twice loses nothing, so that the
table may lag behind, be lost, or be filled anew from the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ledger.clock import Clock
from ledger.domain.due import due_after, next_due
from ledger.errors import LedgerError
from ledger.identifiers import AccountId
from ledger.log.model import Envelope
from ledger.log.reader import LogReader
from ledger.service import Ledger
from projections.tables import account_due

ACCOUNTS_PER_ROUND = 100
EVENTS_PER_ACCOUNT = 100
"""Of each kind and round: an account that has more is due again at once."""
PAUSE_SECONDS = 15.0
BUSY_SECONDS = 0.2
"""Between rounds while more is due: at midnight UTC that is everybody with free images left."""
LEASE = timedelta(minutes=5)
"""How long others leave an account alone that one process visits. Also the wait after a failure."""


class DueProjection:
    """Notes when accounts become due."""

    name = "account_due"

    async def apply(self, connection: AsyncConnection, entries: Sequence[Envelope]) -> None:
        """See `Projection.apply`. Repeating events does no harm."""
        rows: dict[str, dict[str, Any]] = {}
        for entry in entries:
            due_at = due_after(entry.event)
            if due_at is None:
                continue
            earlier = rows.get(entry.stream)
            rows[entry.stream] = {
                "account_id": entry.stream,
                "due_at": due_at if earlier is None else min(due_at, earlier["due_at"]),
                "position": entry.position,
            }
        if not rows:
            return
        statement = insert(account_due)
        sooner = sa.func.least(account_due.c.due_at, statement.excluded.due_at)
        newer = sa.func.greatest(account_due.c.position, statement.excluded.position)
        await connection.execute(
            statement.on_conflict_do_update(
                index_elements=["account_id"], set_={"due_at": sooner, "position": newer}
            ),
            [rows[account_id] for account_id in sorted(rows)],
        )


class _Visit(NamedTuple):
    account_id: str
    due_at: datetime | None
    position: int
    """Of the log, when the account was read."""


class AccountSweeper:
    """Books what is due. Any number of processes may run one."""

    def __init__(
        self,
        engine: AsyncEngine,
        ledger: Ledger,
        reader: LogReader,
        clock: Clock,
        *,
        accounts_per_round: int = ACCOUNTS_PER_ROUND,
    ) -> None:
        self._engine = engine
        self._ledger = ledger
        self._reader = reader
        self._clock = clock
        self._accounts_per_round = accounts_per_round
        self._log = structlog.get_logger("projections.account_sweeper")

    async def run(self) -> None:
        """Sweep until cancelled; a fault is logged and tried again."""
        while True:
            found = 0
            try:
                found = await self.sweep()
            except Exception as error:  # noqa: BLE001 - whatever it is, the next round must come
                self._log.exception("account_sweep_failed", error=type(error).__name__)
            await asyncio.sleep(PAUSE_SECONDS if found < self._accounts_per_round else BUSY_SECONDS)

    async def sweep(self) -> int:
        """Visit the accounts due longest, at most a round of them; returns how many."""
        lease = self._clock() + LEASE
        accounts = await self._claim(lease)
        # At once, so that they share their commits.
        visits = await asyncio.gather(*(self._visit(account_id) for account_id in accounts))
        await self._note([visit for visit in visits if visit is not None], lease)
        return len(accounts)

    async def _claim(self, lease: datetime) -> Sequence[str]:
        due = (
            sa.select(account_due.c.account_id)
            .where(account_due.c.due_at <= self._clock())
            .order_by(account_due.c.due_at)
            .limit(self._accounts_per_round)
            .with_for_update(skip_locked=True)
        )
        claim = (
            sa.update(account_due)
            .where(account_due.c.account_id.in_(due))
            .values(due_at=lease)
            .returning(account_due.c.account_id)
        )
        async with self._engine.begin() as connection:
            return list((await connection.execute(claim)).scalars())

    async def _visit(self, account_id: str) -> _Visit | None:
        try:
            # Holds expire together with their jobs, which others see to.
            await self._ledger.sweep(AccountId(account_id), limit=EVENTS_PER_ACCOUNT, holds=False)
            seen = await self._reader.state(account_id)
        except LedgerError as error:
            self._log.warning("account_not_swept", account=account_id, error=type(error).__name__)
            return None
        return _Visit(account_id, next_due(seen.state), seen.position)

    async def _note(self, visits: Sequence[_Visit], lease: datetime) -> None:
        """When they are due next. Where more happened than was seen, the lease runs out instead."""
        async with self._engine.begin() as connection:
            for visit in sorted(visits):
                mine = sa.and_(
                    account_due.c.account_id == visit.account_id,
                    account_due.c.due_at == lease,
                    account_due.c.position <= visit.position,
                )
                if visit.due_at is None:
                    await connection.execute(sa.delete(account_due).where(mine))
                else:
                    await connection.execute(sa.update(account_due).where(mine).values(due_at=visit.due_at))
