"""What will be refused is refused before a sketch is decoded or stored for it.

A look without the lock: what it lets through is decided by `admission`, and what it refuses would be refused there
in the same words. Where it cannot know (a live frame may take over the hold of the one that waits), it lets through.

The look is at what this process remembers. Only where that says no, or nothing is remembered, is it asked anew: who
can pay and finds a place costs no question.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from generation.domain import fairness, quotas
from generation.domain.errors import (
    AllowanceSharedOut,
    NoWorkerCanServe,
    QueueFull,
    QueueTooLongToHold,
    TooManyInFlight,
)
from generation.domain.fairness import PAID
from generation.domain.quotas import NetworkQuota
from generation.domain.requests import Limits
from generation.jobs.tiers import tier_of
from generation.queueing.queue import JobQueue
from generation.queueing.watch import QueueSummary
from generation.store.batching import Batcher
from ledger.domain.refusals import AccountInDebt, InsufficientCredits
from ledger.domain.state import Account
from ledger.domain.view import plan_in_force, view
from ledger.errors import Refusal
from ledger.identifiers import AccountId
from ledger.log.model import LogWriter
from ledger.log.reader import LogReader

STATES_AT_ONCE = 8
"""Accounts that are new here and are read at the same time: each takes a connection."""
NETWORKS_MAX = 10_000
"""Networks whose free images were all taken when somebody last asked, remembered at a time."""


class RequestOutline(NamedTuple):
    """What is known of a request before its sketch is decoded."""

    account_id: AccountId
    price: int
    networks: Sequence[NetworkQuota]
    live: bool
    graph: str
    pays_apart: bool
    """A payment of its own pays for it: nothing is held."""


class Foresight:
    """Looks ahead for one process."""

    def __init__(self, *, log: LogWriter, reader: LogReader, queue: JobQueue, limits: Limits) -> None:
        self._log = log
        self._reader = reader
        self._queue = queue
        self._limits = limits
        self._shared_out: dict[str, None] = {}
        self._states: Batcher[AccountId, Account] = Batcher(self._load, limit=STATES_AT_ONCE)

    async def look(self, outline: RequestOutline, now: datetime) -> None:
        """Raises the refusal that `admission.admit` would raise for want of a place or of credits; and
        `QueueTooLongToHold`, which only a look can tell."""
        summary = await self._queue.watch.line(outline.graph, now, queue_max=self._limits.queue_max)
        if outline.pays_apart and summary.servable:
            await self._check_wait(outline, summary, now)
        account = self._log.seen(outline.account_id)
        if account is None:
            account = await self._states.get(outline.account_id)
            assert account is not None, "every stream has a state"
        if not any(quota.key in self._shared_out for quota in outline.networks):
            try:
                self._check(outline, account, summary, {}, now)
            except Refusal:
                pass
            else:
                return
        await self._look_anew(outline, now)

    async def _check_wait(self, outline: RequestOutline, summary: QueueSummary, now: datetime) -> None:
        """Nobody's money is held for an image whose turn would come when it had to go back."""
        turn, _ = fairness.turn_of(summary.virtual_time, 0, outline.price, PAID)
        known = await self._queue.watch.estimate(outline.graph, turn.rank, now)
        if known is None or (known.high_seconds or 0) > self._limits.job_seconds:
            raise QueueTooLongToHold(seconds_max=self._limits.job_seconds)

    async def _look_anew(self, outline: RequestOutline, now: datetime) -> None:
        """The same, with everything asked of PostgreSQL."""
        account = (await self._reader.state(outline.account_id)).state
        used = await self._queue.used_today(outline.networks)
        paid_apart = await self._queue.paid_apart(now) if outline.pays_apart else 0
        summary = await self._queue.summary(outline.account_id, outline.graph, now)
        try:
            self._check(outline, account, summary, used, now, paid_apart)
        except AllowanceSharedOut:
            self.shared_out(outline.networks)
            raise
        for quota in outline.networks:
            self._shared_out.pop(quota.key, None)

    async def _load(self, accounts: Sequence[AccountId]) -> Mapping[AccountId, Account]:
        found = await asyncio.gather(*(self._reader.state(account) for account in accounts))
        return {account: read.state for account, read in zip(accounts, found, strict=True)}

    def shared_out(self, networks: Sequence[NetworkQuota]) -> None:
        """Somebody was refused because others of these networks took the free images of today."""
        self._shared_out.update(dict.fromkeys(quota.key for quota in networks))
        while len(self._shared_out) > NETWORKS_MAX:
            del self._shared_out[next(iter(self._shared_out))]

    def _check(
        self,
        outline: RequestOutline,
        account: Account,
        summary: QueueSummary,
        used: Mapping[str, int],
        now: datetime,
        paid_apart: int = 0,
    ) -> None:
        if not summary.servable:
            raise NoWorkerCanServe(graph=outline.graph)
        if max(summary.queued, paid_apart) >= self._limits.queue_max:
            raise QueueFull()
        tier, held = tier_of(account, now), sum(len(bucket) for bucket in account.holds)
        in_flight = max(summary.in_flight, held)
        if in_flight >= tier.in_flight_max:
            raise TooManyInFlight(limit=tier.in_flight_max)
        may_take_over = outline.live and in_flight > 0
        if not (outline.pays_apart or may_take_over):
            _check_credits(outline, account, used, now)


def _check_credits(outline: RequestOutline, account: Account, used: Mapping[str, int], now: datetime) -> None:
    plan = plan_in_force(account, now)
    if plan.overage_limit:
        return
    shown = view(account, plan, now, account_id=outline.account_id)
    if shown.debt:
        raise AccountInDebt(debt=shown.debt)
    if shown.available < outline.price:
        raise InsufficientCredits(wanted=outline.price, available=shown.available)
    if shown.available - shown.claimable >= outline.price:
        return  # what is booked already pays for it, whatever the network has left
    cap = quotas.exhausted(outline.networks, used, outline.price)
    if cap is not None:
        raise AllowanceSharedOut(cap=cap)
