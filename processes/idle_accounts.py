"""Visits accounts to which time has done something that nobody booked: breakage, earned days.

Whoever holds credits books what is overdue on the account by the way. For accounts that nobody uses,
a table says when each is due next: `projections.due` puts in what events tell, and the sweep takes out
what it has visited. An account that is visited too often or twice loses nothing, so that the table may
lag behind, be lost, or be filled anew from the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from ledger.clock import Clock
from ledger.domain.due import next_due
from ledger.followups.backoff import Backoff
from ledger.followups.rows import FollowUps
from ledger.followups.sweeper import SweepRules
from ledger.identifiers import AccountId
from ledger.log.reader import LogReader
from ledger.log.tables import account_due
from ledger.service import Ledger

IDLE_ACCOUNTS = FollowUps(kind="idle_account", table=account_due)
EVENTS_PER_ACCOUNT = 100
"""Of each kind and visit: an account that has more is due again at once."""
RULES = SweepRules(
    # Many, so that they share their commits: at midnight UTC everybody with free images left is due.
    at_once=100,
    pause_seconds=15.0,
    lease=timedelta(minutes=5),
    # Nobody waits for it: an account that cannot be swept is left alone for a while.
    backoff=Backoff(first_milliseconds=60_000, longest_milliseconds=3_600_000),
)


class IdleAccounts:
    """Books what is due on one account."""

    def __init__(self, ledger: Ledger, reader: LogReader, clock: Clock) -> None:
        self._clock = clock
        self._ledger = ledger
        self._reader = reader

    async def visit(self, row: Mapping[str, Any]) -> datetime | None:
        """The work of one row; returns when the account is due next, None if time does nothing to it.

        Raises a `LedgerError` if the log does not answer.
        """
        # Holds expire together with their jobs, which others see to.
        account_id = AccountId(row["account_id"])
        await self._ledger.sweep(account_id, limit=EVENTS_PER_ACCOUNT, holds=False)
        return next_due((await self._reader.state(account_id)).state, self._clock())
