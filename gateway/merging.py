"""Guests who became people: their paid credits come along, also those that arrive later."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from ledger.domain import events as e
from ledger.domain.state import Account
from ledger.errors import LedgerError, Refusal
from ledger.identifiers import AccountId
from ledger.log.model import Envelope
from ledger.log.reader import LogReader
from ledger.service import Ledger
from rails.service import Payments

_FREES_CREDITS = (e.HoldReleased, e.HoldExpired, e.HoldCaptured, e.RefundFailed, e.CreditsMovedIn)


class Guests:
    """Merges guests into people."""

    def __init__(self, ledger: Ledger, reader: LogReader, payments: Payments) -> None:
        self._ledger = ledger
        self._reader = reader
        self._payments = payments
        self._following: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger("gateway.guests")

    async def merged_into(self, guest: AccountId) -> AccountId | None:
        """Whose account this guest's credits went to, None if the guest still owns them."""
        account: Account = (await self._reader.state(guest)).state
        into = account.standing.merged_into
        return AccountId(into) if into else None

    async def merge(self, guest: AccountId, person: AccountId) -> int:
        """Bring a guest's paid credits; returns how many came now.

        Asking again brings what has become free since. A visitor who never did anything has no
        stream to touch, unless an invoice is open that may still be paid; and a guest who went to
        somebody else stays there.
        """
        untouched = (await self._reader.state(guest)).version == 0
        if untouched and not await self._payments.topups_of(guest, limit=1):
            return 0
        try:
            return await self._ledger.merge(guest, person, actor=person)
        except Refusal as refusal:
            self._log.info("guest_not_merged", code=refusal.code, guest=guest)
            return 0

    def follow(self, entries: Sequence[Envelope]) -> None:
        """Look after guests to whom something came back: an invoice paid late, a job that failed."""
        for guest in sorted({entry.stream for entry in entries if _may_leave_credits(entry)}):
            task = asyncio.ensure_future(self._bring_along(AccountId(guest)))
            self._following.add(task)
            task.add_done_callback(self._following.discard)

    async def _bring_along(self, guest: AccountId) -> None:
        try:
            person = await self.merged_into(guest)
            if person is not None:
                await self.merge(guest, person)
        except LedgerError as error:
            self._log.warning("credits_left_with_guest", guest=guest, error=type(error).__name__)


def _may_leave_credits(entry: Envelope) -> bool:
    if isinstance(entry.event, e.CreditsGranted):
        return entry.event.consideration is not None
    return isinstance(entry.event, _FREES_CREDITS)
