"""What must be true of every account, checked by `verify` after each replayed event."""

from __future__ import annotations

from collections import Counter

from ledger.domain import holds as holds_
from ledger.domain.consideration import NOTHING, Consideration, Slice, Worth, total
from ledger.domain.events import (
    CreditsGranted,
    CreditsHeld,
    CreditsMovedIn,
    HoldCaptured,
    HoldExpired,
    HoldMoved,
    HoldReleased,
)
from ledger.domain.lots import Lot, owable
from ledger.domain.movements import movement
from ledger.domain.state import Account
from ledger.log.model import Event


def check(account: Account) -> list[str]:
    """What is wrong with a state, as sentences; empty if nothing is."""
    wrong: list[str] = []
    held: Counter[str] = Counter()
    for piece in _open_slices(account):
        if piece.credits <= 0:
            wrong.append(f"a slice of lot {piece.lot_id} has {piece.credits} credits")
        if piece.worth is not None and piece.worth.is_negative_somewhere():
            wrong.append(f"a slice of lot {piece.lot_id} has a negative worth")
        held[piece.lot_id] += piece.credits
    for lot in account.lots:
        wrong.extend(_check_lot(lot, held.pop(lot.terms.lot_id, 0)))
    wrong.extend(
        f"{credits_} credits are held from {lot}, which is not there" for lot, credits_ in held.items()
    )
    wrong.extend(
        f"hold {hold.hold_id} is {hold.credits} credits but has slices of {total(hold.slices)}"
        for hold in holds_.each(account.holds)
        if total(hold.slices) != hold.credits
    )
    if account.debt < 0:
        wrong.append(f"the debt is {account.debt}")
    wrong.extend(
        f"schedule {schedule.schedule_id} earned more than its money"
        for schedule in account.standing.schedules
        if (schedule.consideration.worth - schedule.earned).is_negative_somewhere()
    )
    return wrong


def _open_slices(account: Account) -> list[Slice]:
    slices = [piece for hold in holds_.each(account.holds) for piece in hold.slices]
    return slices + [piece for refund in account.standing.refunds for piece in refund.held]


def _check_lot(lot: Lot, held: int) -> list[str]:
    wrong: list[str] = []
    name = f"lot {lot.terms.lot_id}"
    if lot.left + lot.held + lot.spent + lot.withdrawn != lot.terms.credits:
        wrong.append(f"{name} was granted {lot.terms.credits} credits but its parts do not add up to that")
    if min(lot.left, lot.held, lot.spent, lot.withdrawn, lot.reversed) < 0 or owable(lot) < 0:
        wrong.append(f"{name} has a negative part")
    if lot.held != held:
        wrong.append(f"{name} says {lot.held} credits are held; open slices are {held}")
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
    wrong = check(after)
    moved = movement(event)
    posted, held, debt = (moved.posted, moved.held, moved.debt) if moved is not None else (0, 0, 0)
    if _booked(after) - _booked(before) != posted:
        wrong.append(f"credits posted changed by {_booked(after) - _booked(before)}, the event says {posted}")
    if after.held() - before.held() != held:
        wrong.append(f"credits held changed by {after.held() - before.held()}, the event says {held}")
    if after.debt - before.debt != debt:
        wrong.append(f"the debt changed by {after.debt - before.debt}, the event says {debt}")
    wrong.extend(_check_resolution(before, event))
    wrong.extend(_check_worth(before, event, after))
    return wrong


def _booked(account: Account) -> int:
    return sum(lot.left + lot.held for lot in account.lots)


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
    for piece in slices:
        amount, worth = sums.get((piece.lot_id, piece.revoked), (0, NOTHING))
        sums[piece.lot_id, piece.revoked] = (amount + piece.credits, worth + (piece.worth or NOTHING))
    return sums


def _check_worth(before: Account, event: Event, after: Account) -> list[str]:
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
            for piece in _leaving(event):
                expected = expected - (piece.worth or NOTHING)
    return [] if change == expected else [f"worth changed by {change}, the event says {expected}"]


def _worth_of(paid: Consideration | None) -> Worth:
    return NOTHING if paid is None else paid.worth


def _worth_open(account: Account) -> Worth:
    worth = NOTHING
    for lot in account.lots:
        worth = worth + lot.left_worth
    for piece in _open_slices(account):
        worth = worth + (piece.worth or NOTHING)
    return worth


_LEAVING = {
    "HoldCaptured": ("slices", "overage"),
    "LotExpired": ("expired",),
    "DebtRepaid": ("slices",),
    "CreditsReversed": ("left", "held"),
    "RefundSent": ("slices",),
    "CreditsWithdrawn": ("slices",),
    "CreditsMovedOut": ("slices",),
}
"""The fields of each event whose slices leave the account for good."""


def _leaving(event: Event) -> list[Slice]:
    leaving: list[Slice] = []
    for name in _LEAVING.get(type(event).__name__, ()):
        value = getattr(event, name)
        if isinstance(value, Slice):
            leaving.append(value)
        elif value is not None:
            leaving.extend(value)
    return leaving
