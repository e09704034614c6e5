"""The ledger by itself: credit accounts on an event log, without rails, jobs or pages.

Everything is asynchronous and returns after COMMIT. Every writing call takes an optional
command key: the same call with the same key gives the first answer again and does nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from ledger.clock import Clock
from ledger.domain import applying
from ledger.domain import commands as c
from ledger.domain.account import ACCOUNTS
from ledger.domain.consideration import Consideration
from ledger.domain.events import EVENT_NAMES
from ledger.domain.lots import Source
from ledger.domain.movements import Movement, movement
from ledger.domain.state import Account
from ledger.domain.view import AccountView, plan_in_force, view
from ledger.identifiers import AccountId, CommandKey, HoldId, Identifiers, LotId
from ledger.log.model import Envelope, LogWriter, Receipt, Transaction, UnitOfWork
from ledger.log.reader import LogReader
from ledger.plans import PLANS, Plan

ACTOR = "system:ledger"
PAGE_EVENTS = 1_000
"""Events read at a time when an account is rebuilt for a moment in the past."""


class StatementLine(msgspec.Struct, frozen=True, kw_only=True):
    """One change of an account's balance, with the balances after it as booked."""

    position: int
    recorded_at: datetime
    occurred_at: datetime
    event: str
    """The stored name of the event, for example `ledger.hold_captured.v1`."""
    movement: Movement
    posted_after: int
    held_after: int
    debt_after: int


class Ledger:
    """Credit accounts: grant, hold, capture, release, read.

    Writing raises a `Refusal` of `ledger.domain.refusals` when the answer is no,
    `IdempotencyConflict` when a key is used again for something else, and `LogUnavailable`,
    `TooBusy` or `OutcomeUnknown` of `ledger.errors` when there is no answer.
    """

    def __init__(
        self,
        writer: LogWriter,
        reader: LogReader,
        *,
        clock: Clock,
        identifiers: Identifiers | None = None,
        plans: Mapping[str, Plan] = PLANS,
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._clock = clock
        self._ids = identifiers or Identifiers(clock)
        self._plans = plans

    def open(self) -> AccountId:
        """A fresh account id. An account begins with its first event; nothing is written."""
        return self._ids.account()

    async def grant(
        self,
        account_id: AccountId,
        amount: int,
        *,
        consideration: Consideration | None = None,
        source: Source = Source.PAYMENT,
        expires_at: datetime | None = None,
        priority: int | None = None,
        reference: str = "",
        key: CommandKey | None = None,
        actor: str = ACTOR,
    ) -> LotId:
        """Grant `amount` credits as a lot; paid ones first make up for a debt."""
        command = c.GrantCredits(
            lot_id=self._ids.lot(),
            credits=amount,
            source=source,
            expires_at=expires_at,
            priority=priority,
            consideration=consideration,
            reference=reference,
        )
        body = ["grant", account_id, msgspec.structs.replace(command, lot_id="")]

        def decide(uow: UnitOfWork) -> str:
            return applying.grant_in(uow, account_id, command).lot_id

        return LotId(str((await self._submit((account_id,), body, decide, key, actor)).result))

    async def hold(
        self,
        account_id: AccountId,
        amount: int,
        *,
        job_id: str,
        deadline: datetime,
        key: CommandKey | None = None,
        actor: str = ACTOR,
    ) -> HoldId:
        """Reserve `amount` credits until `deadline`. Raises `InsufficientCredits`, `AccountInDebt`."""
        command = c.HoldCredits(
            hold_id=self._ids.hold(),
            job_id=job_id,
            credits=amount,
            deadline=deadline,
        )
        body = ["hold", account_id, job_id, amount, deadline]

        def decide(uow: UnitOfWork) -> str:
            return applying.hold_in(uow, account_id, command, self._plans).hold_id

        return HoldId(str((await self._submit((account_id,), body, decide, key, actor)).result))

    async def capture(
        self,
        account_id: AccountId,
        hold_id: HoldId,
        amount: int | None = None,
        *,
        overage_limit: int = 0,
        key: CommandKey | None = None,
        actor: str = ACTOR,
    ) -> int:
        """Spend a hold: all of it, less (the rest returns), or more up to `overage_limit` beyond it.

        Returns the credits spent. Raises `HoldNotOpen`, `HoldPastDeadline`, `OverageNotAllowed`.
        """
        command = c.CaptureHold(hold_id=hold_id, credits=amount, overage_limit=overage_limit)

        def decide(uow: UnitOfWork) -> int:
            return applying.capture_in(uow, account_id, command).credits

        body = ["capture", account_id, command]
        return int((await self._submit((account_id,), body, decide, key, actor)).result)

    async def release(
        self,
        account_id: AccountId,
        hold_id: HoldId,
        *,
        reason: str = "",
        key: CommandKey | None = None,
        actor: str = ACTOR,
    ) -> int:
        """Let a hold go; returns its credits. Raises `HoldNotOpen`."""
        command = c.ReleaseHold(hold_id=hold_id, reason=reason)

        def decide(uow: UnitOfWork) -> int:
            return applying.release_in(uow, account_id, command).credits

        body = ["release", account_id, command]
        return int((await self._submit((account_id,), body, decide, key, actor)).result)

    async def act(
        self,
        account_id: AccountId,
        command: c.Command,
        *,
        key: CommandKey | None = None,
        actor: str = ACTOR,
        keeps_refusals: bool = True,
    ) -> Receipt:
        """Any other command of `ledger.domain.commands`: refunds, reversals, plans, adjustments.

        With a key, the command must be the same when repeated, the ids in it included. The result are the
        stored names of the events. `keeps_refusals` as in `Transaction`.
        """
        body = ["act", account_id, c.NAMES[type(command)], command]

        def decide(uow: UnitOfWork) -> list[str]:
            return [EVENT_NAMES[type(event)] for event in applying.act_in(uow, account_id, command)]

        return await self._submit((account_id,), body, decide, key, actor, keeps_refusals=keeps_refusals)

    async def merge(
        self,
        guest_id: AccountId,
        account_id: AccountId,
        *,
        key: CommandKey | None = None,
        actor: str = ACTOR,
    ) -> int:
        """Move a guest's paid credits to an account, once; returns how many. Raises `AccountMerged`."""

        def decide(uow: UnitOfWork) -> int:
            return applying.merge_in(uow, guest_id, account_id)

        body = ["merge", guest_id, account_id]
        receipt = await self._submit((guest_id, account_id), body, decide, key, actor)
        return int(receipt.result)

    async def sweep(
        self, account_id: AccountId, *, limit: int = 100, holds: bool = True, actor: str = ACTOR
    ) -> int:
        """Book what time has done: late holds, lapsed lots, earned days; at most `limit` of each.

        Holds that stand for jobs are better expired together with them: `holds=False` leaves
        them. Returns the events booked.
        """

        def decide(uow: UnitOfWork) -> int:
            return applying.sweep_in(uow, account_id, limit, holds=holds)

        body = ["sweep", account_id, limit, holds]
        return int((await self._submit((account_id,), body, decide, None, actor)).result)

    async def account(
        self,
        account_id: AccountId,
        *,
        at_position: int | None = None,
        at_time: datetime | None = None,
        including: int | None = None,
    ) -> AccountView:
        """The account now, as of a position of the log, or as it was recorded at a time. Whoever needs it as it is
        now or was lately, but `including` all up to a position, is given what this process remembers if it does.

        A position alone is shown at the instant of the last event up to it, so that the answer
        never changes.
        """
        if at_position is None and at_time is None:
            account = None if including is None else self._writer.seen(account_id, including)
            if account is None:
                account = (await self._reader.state(account_id)).state
            now = self._clock()
            return view(account, plan_in_force(account, now, self._plans), now, account_id=account_id)
        account, last = await self._rebuild(account_id, at_position, at_time)
        now = at_time or last or self._clock()
        return view(account, plan_in_force(account, now, self._plans), now, account_id=account_id)

    async def _rebuild(
        self, account_id: AccountId, at_position: int | None, at_time: datetime | None
    ) -> tuple[Account, datetime | None]:
        account, version, last = ACCOUNTS.initial, 0, None
        while True:
            page = await self._page(account_id, version, at_position, at_time)
            for envelope in page:
                account = ACCOUNTS.evolve(account, envelope.event)
                version, last = envelope.version, envelope.recorded_at
            if len(page) < PAGE_EVENTS:
                return account, last

    async def _page(
        self, account_id: AccountId, after: int, at_position: int | None, at_time: datetime | None
    ) -> Sequence[Envelope]:
        return await self._reader.events(
            account_id,
            after_version=after,
            up_to_position=at_position,
            up_to_time=at_time,
            limit=PAGE_EVENTS,
        )

    async def statement(self, account_id: AccountId) -> list[StatementLine]:
        """Every change of the balance, oldest first, from the events themselves."""
        lines: list[StatementLine] = []
        version = posted = held = debt = 0
        while True:
            page = await self._page(account_id, version, None, None)
            for envelope in page:
                version = envelope.version
                change = movement(envelope.event)
                if change is None:
                    continue
                posted, held, debt = posted + change.posted, held + change.held, debt + change.debt
                lines.append(
                    StatementLine(
                        position=envelope.position,
                        recorded_at=envelope.recorded_at,
                        occurred_at=envelope.occurred_at,
                        event=envelope.name,
                        movement=change,
                        posted_after=posted,
                        held_after=held,
                        debt_after=debt,
                    )
                )
            if len(page) < PAGE_EVENTS:
                return lines

    def _submit(
        self,
        streams: Sequence[str],
        body: Any,
        decide: Callable[[UnitOfWork], Any],
        key: CommandKey | None,
        actor: str,
        *,
        keeps_refusals: bool = True,
    ) -> Awaitable[Receipt]:
        return self._writer.submit(
            Transaction(
                key=key or self._ids.command(),
                actor=actor,
                body=body,
                streams=streams,
                decide=decide,
                keeps_refusals=keeps_refusals,
            )
        )
