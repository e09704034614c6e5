"""Guests who became people: their paid credits come along, also those that arrive later.

Two things cause a merge: a guest signs in, and something happens to a guest whose account was merged
before (an invoice paid late, a job that failed). Either writes a row of `account_merges` first, the
second one in the transaction of its event (`ledger.domain.merging.note_what_is_left`). The row stays
until everything has been moved.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from ledger.clock import Clock
from ledger.domain.refusals import AccountMerged, AccountNotMergeable
from ledger.domain.state import Account
from ledger.errors import LogUnavailable, OutcomeUnknown, TooBusy
from ledger.followups.rows import Claimed, DueRows, FollowUps, claimed, problem_of, version_of_row
from ledger.identifiers import AccountId
from ledger.log.reader import LogReader
from ledger.log.tables import account_merges
from ledger.service import Ledger
from rails.domain.crediting import MERGES_MAX, TooManyMerges

GUEST_MERGES = FollowUps(kind="guest_merge", table=account_merges)
LEASE = timedelta(minutes=2)
"""How long sweepers leave a guest alone whose merge is tried by the request that asked for it."""
_NO_ANSWER = (LogUnavailable, OutcomeUnknown, TooBusy)


class Guests:
    """Merges guests into people."""

    def __init__(self, engine: AsyncEngine, ledger: Ledger, reader: LogReader, clock: Clock) -> None:
        self._engine = engine
        self._rows = DueRows(engine, GUEST_MERGES)
        self._ledger = ledger
        self._reader = reader
        self._clock = clock
        self._log = structlog.get_logger("processes.guest_merge")

    async def merged_into(self, guest: AccountId) -> AccountId | None:
        """Whose account this guest's credits went to, None if the guest still owns them."""
        account: Account = (await self._reader.state(guest)).state
        into = account.status.merged_into
        return AccountId(into) if into else None

    async def merge(self, guest: AccountId, person: AccountId) -> int:
        """Bring a guest's paid credits; returns how many came now.

        The request is stored first. If the log does not answer, or fails on this guest, nothing comes now
        and a sweeper brings them: nobody is kept from signing in by it. Asking again brings what has become
        free since. A guest who went to somebody else, or is about to, stays there.
        """
        # Also a visitor who has done nothing yet: whether they have is decided under the log's lock alone. A
        # top-up or an image may be on its way there now, and its money must find that the guest has moved.
        claim, into = await self._ask_for(guest, person)
        if into != person:
            self._log.info("guest_goes_to_somebody_else", guest=guest)
            return 0
        try:
            moved = await self._ledger.merge(guest, person, actor=person)
        except _NO_ANSWER as error:
            self._log.warning("guest_not_merged_yet", guest=guest, error=type(error).__name__)
            if claim is not None:
                await self._rows.failed(claim, self._clock(), problem_of(error))
            return 0
        except AccountMerged:
            # The guest, or the account it should go to, has gone to another one: the sweeper follows.
            if claim is not None:
                await self._rows.again(claim, self._clock())
            return 0
        except AccountNotMergeable:
            moved = 0
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the guest, the person may sign in
            self._log.exception("guest_not_merged", guest=guest, error=type(error).__name__)
            if claim is not None:
                await self._rows.failed(claim, self._clock(), problem_of(error))
            return 0
        if claim is not None:
            await self._rows.done(claim)
        return moved

    async def _ask_for(self, guest: AccountId, person: AccountId) -> tuple[Claimed | None, str]:
        """Store the request, claimed for this request; returns the claim and whose account it will be.

        Without a claim a row was there before: it stands, and a sweeper sees to it.
        """
        row = {"account_id": guest, "into_account": person, "due_at": self._clock() + LEASE}
        arguments = insert(account_merges).values(row).on_conflict_do_nothing()
        earlier = sa.select(account_merges.c.into_account).where(account_merges.c.account_id == guest)
        async with self._engine.begin() as connection:
            found = await connection.execute(arguments.returning(*account_merges.c, version_of_row()))
            fresh = found.mappings().one_or_none()
            if fresh is not None:
                return claimed(fresh), person
            return None, (await connection.execute(earlier)).scalar_one_or_none() or person

    async def bring_along(self, row: Mapping[str, Any]) -> None:
        """The work of one row: move everything that can be moved. May be done twice.

        Raises what `Ledger.merge` raises when there is no answer, or `TooManyMerges`.
        """
        guest, into = AccountId(row["account_id"]), AccountId(row["into_account"])
        for _ in range(MERGES_MAX):
            try:
                moved = await self._ledger.merge(guest, into, actor=into)
            except AccountMerged as elsewhere:
                # Either the guest went there before, or the one it should go to did.
                into = AccountId(elsewhere.into)
            except AccountNotMergeable:
                return
            else:
                self._log.info("guest_merged", guest=guest, credits=moved)
                return
        raise TooManyMerges
