"""Steps on accounts for other packages to compose into their own transactions.

Each takes the `UnitOfWork` of a running transaction whose `streams` include the account, appends
events to it and returns the one that matters. Refusals pass through and undo the whole
transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TypeVar

import msgspec

from ledger.domain import granting, merging, subscriptions
from ledger.domain import holds as holds_
from ledger.domain.account import decide
from ledger.domain.commands import (
    CaptureHold,
    Command,
    EarnRevenue,
    ExpireHold,
    ExpireLots,
    GrantCredits,
    HoldCredits,
    MoveHold,
    ReleaseHold,
)
from ledger.domain.events import (
    CreditsGranted,
    CreditsHeld,
    HoldCaptured,
    HoldExpired,
    HoldMoved,
    HoldReleased,
)
from ledger.domain.state import Account
from ledger.domain.view import plan_in_force
from ledger.log.model import Event, UnitOfWork
from ledger.plans import PLANS, Plan

E = TypeVar("E", bound=Event)

HOUSEKEEPING_LIMIT = 32
"""Events of overdue bookkeeping that a hold carries along at most."""


def sweep_in(uow: UnitOfWork, account_id: str, limit: int = 100, *, holds: bool = True) -> int:
    """Book late holds, lapsed lots and earned days, at most `limit` of each; returns the events booked.

    Without `holds` they are left to those who expire them together with what they stand for.
    """
    booked = 0
    account: Account = uow.state(account_id)
    for hold in holds_.due(account.holds, uow.now, limit) if holds else ():
        booked += len(act_in(uow, account_id, ExpireHold(hold_id=hold.hold_id)))
    booked += len(act_in(uow, account_id, ExpireLots(limit=limit)))
    return booked + len(act_in(uow, account_id, EarnRevenue(limit=limit)))


def act_in(uow: UnitOfWork, account_id: str, command: Command) -> list[Event]:
    """Any account command: append its events and return them."""
    events = decide(uow.state(account_id), command, uow.now)
    uow.append(account_id, events)
    return events


def hold_in(
    uow: UnitOfWork, account_id: str, command: HoldCredits, plans: Mapping[str, Plan] = PLANS
) -> CreditsHeld:
    """Hold credits; first book what has lapsed or been earned, and grant today's allowance if it is due.

    `CreditsHeld.allowance_credits` of the result says how many came from the daily allowance.
    Raises `InsufficientCredits(wanted, available)`, `AccountInDebt(debt)` and the like.
    """
    account: Account = uow.state(account_id)
    plan = plan_in_force(account, uow.now, plans)
    overdue = housekeeping(account, uow.now)
    if command.allowance:
        overdue += granting.due_allowance(account, plan, uow.now, account_id=account_id)
    if overdue:
        uow.append(account_id, overdue)
    if plan.overage_limit and not command.overage_limit:
        lot_id = command.overage_lot or f"lot_{command.hold_id.removeprefix('hold_')}"
        command = msgspec.structs.replace(command, overage_limit=plan.overage_limit, overage_lot=lot_id)
    return _of_type(act_in(uow, account_id, command), CreditsHeld)


def housekeeping(account: Account, now: datetime) -> list[Event]:
    """Breakage and earned days that are due and not booked."""
    events: list[Event] = [*granting.due_lot_expiries(account, now, HOUSEKEEPING_LIMIT)]
    if account.status.schedules:
        events.extend(subscriptions.due_earnings(account, now, HOUSEKEEPING_LIMIT))
    return events


def capture_in(uow: UnitOfWork, account_id: str, command: CaptureHold) -> HoldCaptured:
    """Spend a hold. Raises `HoldNotOpen`, `HoldPastDeadline`."""
    return _of_type(act_in(uow, account_id, command), HoldCaptured)


def release_in(uow: UnitOfWork, account_id: str, command: ReleaseHold) -> HoldReleased:
    """Let a hold go. Raises `HoldNotOpen`."""
    return _of_type(act_in(uow, account_id, command), HoldReleased)


def expire_in(uow: UnitOfWork, account_id: str, command: ExpireHold) -> HoldExpired:
    """Close a hold whose deadline has passed. Raises `HoldNotOpen`, `HoldNotDue`."""
    return _of_type(act_in(uow, account_id, command), HoldExpired)


def move_in(uow: UnitOfWork, account_id: str, command: MoveHold) -> HoldMoved:
    """Let a hold serve another job. Raises `HoldNotOpen`, `HoldPastDeadline`."""
    return _of_type(act_in(uow, account_id, command), HoldMoved)


def grant_in(uow: UnitOfWork, account_id: str, command: GrantCredits) -> CreditsGranted:
    """Grant a lot; paid credits make up for a debt first. Raises `LotAlreadyGranted`, `InvalidAmount`."""
    return _of_type(act_in(uow, account_id, command), CreditsGranted)


def merge_in(uow: UnitOfWork, guest_id: str, account_id: str) -> int:
    """Merge a guest into an account (both declared as streams); returns the credits that moved.

    Raises `AccountMerged(into)` if the guest already belongs to another account.
    """
    guest, person = uow.state(guest_id), uow.state(account_id)
    out, arrived = merging.decide_merge(guest, person, guest_id, account_id, uow.now)
    if out and not guest.status.merged_into:
        uow.put(merging.MERGED, {"account_id": guest_id, "into_account": account_id})
    uow.append(guest_id, out)
    uow.append(account_id, arrived)
    return sum(getattr(event, "credits", 0) for event in out[:1])


def _of_type(events: list[Event], kind: type[E]) -> E:
    for event in events:
        if isinstance(event, kind):
            return event
    raise AssertionError(f"no {kind.__name__} among the events")
