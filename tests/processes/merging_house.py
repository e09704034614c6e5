"""Guests and people over one ledger, and the ways in which a merge of theirs can go wrong."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from ledger.clock import ManualClock
from ledger.domain.state import Account
from ledger.errors import OutcomeUnknown, TooBusy
from ledger.followups.rows import DueRows
from ledger.followups.sweeper import Sweeper, SweepRules
from ledger.identifiers import AccountId
from ledger.log.model import Receipt, Transaction
from ledger.log.postgres_reader import PostgresLogReader
from ledger.log.sequencer import Sequencer
from ledger.log.tables import account_merges
from ledger.plans import NO_PLANS
from ledger.service import Ledger
from processes.guest_merge import GUEST_MERGES, Guests
from rails.store.sql import SqlRailStore
from tests.ledger.world import HOUR, paid
from tests.rails.core.platform import assemble


@dataclass
class FaultyLog:
    """The real log, but for merges: `faults` says what becomes of the next ones."""

    sequencer: Sequencer
    reader: PostgresLogReader
    faults: deque[str] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.state = self.reader.state
        self.events = self.reader.events

    async def submit(self, transaction: Transaction) -> Receipt:
        """`busy`: nothing is decided. `broken`: nor here, by a fault of ours. `unknown`: it is recorded, and
        nobody is told."""
        merges = isinstance(transaction.body, list) and transaction.body[0] == "merge"
        fault = self.faults.popleft() if merges and self.faults else None
        if fault == "busy":
            raise TooBusy
        if fault == "broken":
            raise RuntimeError("a fault of ours")
        receipt = await self.sequencer.submit(transaction)
        if fault == "unknown":
            raise OutcomeUnknown
        return receipt


@dataclass
class House:
    """One process of the platform, as far as guests are concerned."""

    url: str
    engine: AsyncEngine
    clock: ManualClock
    sequencer: Sequencer
    reader: PostgresLogReader

    def __post_init__(self) -> None:
        self.log = FaultyLog(self.sequencer, self.reader)
        self.ledger = Ledger(self.log, self.reader, clock=self.clock, plans=NO_PLANS)
        self.platform = assemble(self.clock, self.log, SqlRailStore(self.engine))
        self.guests = Guests(self.engine, self.ledger, self.reader, self.clock)
        self.rows = DueRows(self.engine, GUEST_MERGES)
        self.sweeper = self.another_sweeper()

    def another_sweeper(self) -> Sweeper:
        """As of another process."""
        return Sweeper(
            GUEST_MERGES,
            self.guests.bring_along,
            engine=self.engine,
            clock=self.clock,
            randomness=random.Random(1),
        )

    async def sweep_all(self) -> None:
        """Sweep until nothing waits, letting leases and waits pass."""
        for _ in range(50):
            await self.sweeper.sweep()
            if not await self.waiting():
                return
            self.clock.advance(SweepRules().lease)
        raise AssertionError(f"still waiting: {await self.waiting()}")

    async def waiting(self) -> list[str]:
        """Guests of whom something is still to be moved."""
        async with self.engine.connect() as connection:
            return list((await connection.execute(sa.select(account_merges.c.account_id))).scalars())

    async def buy(self, account: AccountId, amount: int) -> str:
        """Paid credits, granted to this very account."""
        return await self.ledger.grant(account, amount, consideration=paid(amount * 10))

    async def guest(self, amount: int) -> AccountId:
        """A guest with paid credits."""
        guest = self.ledger.open()
        if amount:
            await self.buy(guest, amount)
        return guest

    async def hold(self, account: AccountId, amount: int) -> Any:
        """A hold for an hour."""
        job_id = f"job_{random.Random().getrandbits(64)}"
        return await self.ledger.hold(account, amount, job_id=job_id, deadline=self.clock() + HOUR)

    async def paid_of(self, account: AccountId) -> int:
        """Paid credits that are available."""
        state: Account = (await self.reader.state(account)).state
        return sum(lot.left for lot in state.lots if lot.terms.consideration is not None)
