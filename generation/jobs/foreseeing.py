"""What will be refused is refused before a sketch is decoded or stored for it.

A look without the lock: what it lets through is decided by `admission`, and what it refuses would be refused there
in the same words. Where it cannot know (a live frame may take over the hold of the one that waits), it lets through.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from generation.domain import quotas
from generation.domain.errors import AllowanceSharedOut, NoWorkerCanServe, QueueFull, TooManyInFlight
from generation.domain.fairness import Tier
from generation.domain.quotas import NetworkQuota
from generation.domain.requests import Limits
from generation.queueing.queue import JobQueue
from ledger.domain.refusals import AccountInDebt, InsufficientCredits
from ledger.domain.view import AccountView
from ledger.identifiers import AccountId
from ledger.plans import PLANS


class RequestOutline(NamedTuple):
    """What is known of a request before its sketch is decoded."""

    account_id: AccountId
    account: AccountView
    tier: Tier
    price: int
    networks: Sequence[NetworkQuota]
    live: bool
    graph: str
    pays_apart: bool
    """A payment of its own pays for it: nothing is held."""


async def foresee(queue: JobQueue, outline: RequestOutline, now: datetime, limits: Limits) -> None:
    """Raises the refusal that `admission.admit` would raise for want of a place or of credits."""
    summary = await queue.summary(outline.account_id, outline.graph, now)
    if not summary.servable:
        raise NoWorkerCanServe(graph=outline.graph)
    if summary.queued >= limits.queue_max:
        raise QueueFull()
    if outline.pays_apart and await queue.paid_apart(now) >= limits.queue_max:
        raise QueueFull()
    if summary.in_flight >= outline.tier.in_flight_max:
        raise TooManyInFlight(limit=outline.tier.in_flight_max)
    may_take_over = outline.live and summary.in_flight > 0
    if outline.pays_apart or may_take_over or PLANS[outline.account.plan].overage_limit:
        return
    await _affordable(queue, outline)


async def _affordable(queue: JobQueue, outline: RequestOutline) -> None:
    account = outline.account
    if account.debt:
        raise AccountInDebt(debt=account.debt)
    if account.available < outline.price:
        raise InsufficientCredits(wanted=outline.price, available=account.available)
    if account.available - account.claimable >= outline.price:
        return  # what is booked already pays for it, whatever the network has left
    cap = quotas.exhausted(outline.networks, await queue.used_today(outline.networks), outline.price)
    if cap is not None:
        raise AllowanceSharedOut(cap=cap)
