"""What must be true of every account: of all of it for `verify`, of what an event touched at run time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from ledger.domain import holds as holds_
from ledger.domain.consideration import NOTHING, Consideration, Slice, Worth, total
from ledger.domain.events import (
    CreditsGranted,
    CreditsHeld,
    CreditsMovedIn,
    CreditsMovedOut,
    CreditsReversed,
    CreditsWithdrawn,
    DebtRepaid,
    HoldCaptured,
    HoldExpired,
    HoldMoved,
    HoldReleased,
    LotExpired,
    RefundSent,
)
from ledger.domain.holds import Hold
from ledger.domain.lots import Lot, owable
from ledger.domain.movements import movement
from ledger.domain.state import Account, Refund, Schedule
from ledger.log.model import Event


class Part(NamedTuple):
    """What of an account is looked at: all that is open, or only what one event changed."""

    lots: Sequence[Lot]
    holds: Sequence[Hold]
    refunds: Sequence[Refund]
    schedules: Sequence[Schedule]

    def slices(self) -> list[Slice]:
        """Everything held."""
        slices = [portion for hold in self.holds for portion in hold.slices]
        return slices + [portion for refund in self.refunds for portion in refund.held]


def whole(account: Account) -> Part:
    """All that is open in an account."""
    status = account.status
    return Part(account.lots, [*holds_.each(account.holds)], status.refunds, status.schedules)


def check(account: Account) -> list[str]:
    """What is wrong with a state, as sentences; empty if nothing is."""
    return _check_whole(whole(account), account.debt)


def _check_whole(part: Part, debt: int) -> list[str]:
    wrong = check_part(part)
    held = _held_by_lot(part.slices())
    for lot in part.lots:
        slices = held.pop(lot.terms.lot_id, 0)
        if lot.held != slices:
            wrong.append(f"lot {lot.terms.lot_id} says {lot.held} credits are held; open slices are {slices}")
    wrong.extend(
        f"{credits_} credits are held from {lot_id}, which is not there" for lot_id, credits_ in held.items()
    )
    if debt < 0:
        wrong.append(f"the debt is {debt}")
    return wrong


def check_part(part: Part) -> list[str]:
    """What is wrong with each lot, slice, hold and schedule, taken by itself."""
    wrong: list[str] = []
    for portion in part.slices():
        if portion.credits <= 0:
            wrong.append(f"a slice of lot {portion.lot_id} has {portion.credits} credits")
        if portion.worth is not None and portion.worth.is_negative_somewhere():
            wrong.append(f"a slice of lot {portion.lot_id} has a negative worth")
    for lot in part.lots:
        wrong.extend(_check_lot(lot))
    wrong.extend(
        f"hold {hold.hold_id} is {hold.credits} credits but has slices of {total(hold.slices)}"
        for hold in part.holds
        if total(hold.slices) != hold.credits
    )
    wrong.extend(
        f"schedule {schedule.schedule_id} earned more than its money"
        for schedule in part.schedules
        if (schedule.consideration.worth - schedule.earned).is_negative_somewhere()
    )
    return wrong


def _held_by_lot(slices: Sequence[Slice]) -> Counter[str]:
    held: Counter[str] = Counter()
    for portion in slices:
        held[portion.lot_id] += portion.credits
    return held


def _check_lot(lot: Lot) -> list[str]:
    wrong: list[str] = []
    name = f"lot {lot.terms.lot_id}"
    if lot.left + lot.held + lot.spent + lot.withdrawn != lot.terms.credits:
        wrong.append(f"{name} was granted {lot.terms.credits} credits but its parts do not add up to that")
    if min(lot.left, lot.held, lot.spent, lot.withdrawn, lot.reversed) < 0 or owable(lot) < 0:
        wrong.append(f"{name} has a negative part")
    paid = lot.terms.consideration
    if paid is None:
        if lot.out != NOTHING:
            wrong.append(f"{name} gave out worth that nobody paid")
        return wrong
    if lot.out.is_negative_somewhere() or lot.left_worth.is_negative_somewhere():
        wrong.append(f"{name} gave out more than its consideration, or less than nothing")
    if lot.left == 0 and lot.left_worth != NOTHING:
        wrong.append(f"{name} has nothing left but still carries {lot.left_worth}")
    return wrong


def check_step(before: Account, event: Event, after: Account) -> list[str]:
    """What is wrong with one event, given the states around it: `check(after)` and conservation."""
    now = whole(after)
    wrong = _check_whole(now, after.debt)
    return wrong + check_conservation(before, event, after, whole(before), now)


def check_conservation(before: Account, event: Event, after: Account, was: Part, now: Part) -> list[str]:
    """Whether one event changed credits, debt, money and holds by what it says, and by nothing else.

    `was` and `now` are of `before` and `after`: all of them, or all in which they differ.
    """
    wrong: list[str] = []
    moved = movement(event)
    reported = (moved.posted, moved.held, moved.debt) if moved is not None else (0, 0, 0)
    (posted, held), (posted_before, held_before) = _booked(now.lots), _booked(was.lots)
    changed = (posted - posted_before, held - held_before, after.debt - before.debt)
    for what, change, by_event in zip(
        ("credits posted", "credits held", "the debt"), changed, reported, strict=True
    ):
        if change != by_event:
            wrong.append(f"{what} changed by {change}, the event says {by_event}")
    wrong.extend(_check_resolution(before, event))
    wrong.extend(_check_worth(was, event, now))
    return wrong


def _booked(lots: Sequence[Lot]) -> tuple[int, int]:
    """Credits posted and credits held."""
    held = sum(lot.held for lot in lots)
    return sum(lot.left for lot in lots) + held, held


def _check_resolution(before: Account, event: Event) -> list[str]:
    """One resolution per hold; all of it and nothing else; never opened twice."""
    resolved: tuple[Slice, ...] | None
    match event:
        case CreditsHeld():
            if holds_.get(before.holds, event.hold_id) is not None:
                return [f"hold {event.hold_id} was opened twice"]
            if total(event.slices) != event.credits:
                return [f"hold {event.hold_id} has slices of {total(event.slices)}, not {event.credits}"]
            return []
        case HoldCaptured():
            resolved = (*event.slices, *event.returned, *event.revoked)
            spent = total(event.slices) + total(event.overage)
        case HoldReleased() | HoldExpired():
            resolved, spent = (*event.returned, *event.revoked), event.credits
        case HoldMoved():
            resolved, spent = None, event.credits
        case _:
            return []
    hold = holds_.get(before.holds, event.hold_id)
    if hold is None:
        return [f"hold {event.hold_id} was resolved but was not open"]
    wrong = []
    if spent != event.credits:
        wrong.append(f"hold {event.hold_id}: {event.credits} credits, but the slices are {spent}")
    if resolved is not None and _by_lot(resolved) != _by_lot(hold.slices):
        wrong.append(f"hold {event.hold_id} was resolved with other slices than it held")
    return wrong


def _by_lot(slices: tuple[Slice, ...]) -> dict[tuple[str, bool], tuple[int, Worth]]:
    sums: dict[tuple[str, bool], tuple[int, Worth]] = {}
    for portion in slices:
        amount, worth = sums.get((portion.lot_id, portion.revoked), (0, NOTHING))
        sums[portion.lot_id, portion.revoked] = (amount + portion.credits, worth + (portion.worth or NOTHING))
    return sums


def _check_worth(before: Part, event: Event, after: Part) -> list[str]:
    """No worth appears but with a grant, and none vanishes but through the event's own slices."""
    change = _worth_open(after) - _worth_open(before)
    expected = NOTHING
    match event:
        case CreditsGranted(consideration=paid):
            expected = _worth_of(paid)
        case CreditsMovedIn(lots=lots):
            for terms in lots:
                expected = expected + _worth_of(terms.consideration)
        case _:
            for portion in _leaving(event):
                expected = expected - (portion.worth or NOTHING)
    return [] if change == expected else [f"worth changed by {change}, the event says {expected}"]


def _worth_of(paid: Consideration | None) -> Worth:
    return NOTHING if paid is None else paid.worth


def _worth_open(part: Part) -> Worth:
    worth = NOTHING
    for lot in part.lots:
        worth = worth + lot.left_worth
    for portion in part.slices():
        worth = worth + (portion.worth or NOTHING)
    return worth


_LEAVING: dict[type[Event], tuple[str, ...]] = {
    HoldCaptured: ("slices", "overage"),
    LotExpired: ("expired",),
    DebtRepaid: ("slices",),
    CreditsReversed: ("left", "held"),
    RefundSent: ("slices",),
    CreditsWithdrawn: ("slices",),
    CreditsMovedOut: ("slices",),
}
"""The fields of each event whose slices leave the account for good."""


def _leaving(event: Event) -> list[Slice]:
    leaving: list[Slice] = []
    for name in _LEAVING.get(type(event), ()):
        value = getattr(event, name)
        if isinstance(value, Slice):
            leaving.append(value)
        elif value is not None:
            leaving.extend(value)
    return leaving
