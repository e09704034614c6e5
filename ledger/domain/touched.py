"""The invariants at run time: what one event changed in an account is checked before it is kept.

`ledger.domain.invariants` says what must be true, and `verify` asks it of whole accounts. Here the
same is asked only of the lots, holds, refunds and schedules that are other objects than before: states
share what did not change, so that the cost does not grow with what an account has open. A hold of one
lot, its capture, its return and a grant, nearly all that happens, have a shorter way still; whatever it
does not know to be right takes the long one, which also says what is wrong.

The shorter way relies on the state before, which was checked when it was made: of a lot it looks at the
change. Every microsecond of it is one under the log's lock: so a hold and a capture call nothing that can
be avoided, and what did not change is compared by identity (another object that is equal takes the long way). Where a
slice carries no tax, the tax that has gone out is the same as before, and so no more than there is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

from ledger.domain import holds as holds_
from ledger.domain.consideration import Slice, Worth
from ledger.domain.events import CreditsGranted, CreditsHeld, HoldCaptured, HoldExpired, HoldReleased
from ledger.domain.invariants import Part, check_conservation, check_part
from ledger.domain.lots import Lot
from ledger.domain.state import Account
from ledger.log.model import Event, Violation

T = TypeVar("T")
_REST = slice(1, None)
"""All but the first; made once."""


def check_touched(before: Account, event: Event, after: Account) -> Violation | None:
    """See `Category.check`. None if nothing is wrong."""
    if type(event) is CreditsHeld:
        plain = _is_plain_hold(before, event, after)
    elif type(event) is HoldCaptured:
        plain = _is_plain_capture(before, event, after)
    elif type(event) is HoldReleased or type(event) is HoldExpired:
        plain = _is_plain_return(before, event, after)
    else:
        plain = type(event) is CreditsGranted and _is_plain_grant(before, event, after)
    return None if plain else _check(before, event, after)


def _check(before: Account, event: Event, after: Account) -> Violation | None:
    """The long way."""
    was, now = _differing(before, after)
    wrong = check_part(now) + check_conservation(before, event, after, was, now) + _check_held(was, now)
    if after.debt < 0:
        wrong.append(f"the debt is {after.debt}")
    return Violation(tuple(wrong), was, now) if wrong else None


def _differing(before: Account, after: Account) -> tuple[Part, Part]:
    """What of each state is not in the other."""
    lots_before, lots = _only_in_one(before.lots, after.lots)
    holds_before, holds = holds_.differing(before.holds, after.holds)
    refunds_before, refunds = _only_in_one(before.status.refunds, after.status.refunds)
    schedules_before, schedules = _only_in_one(before.status.schedules, after.status.schedules)
    return (
        Part(lots_before, holds_before, refunds_before, schedules_before),
        Part(lots, holds, refunds, schedules),
    )


def _only_in_one(before: Sequence[T], after: Sequence[T]) -> tuple[Sequence[T], Sequence[T]]:
    return ((), ()) if before is after else (_beyond(before, after), _beyond(after, before))


def _beyond(these: Sequence[T], others: Sequence[T]) -> Sequence[T]:
    """What is here and not there, the second of two if there is one there."""
    there = Counter(map(id, others))
    beyond = []
    for each in these:
        there[id(each)] -= 1
        if there[id(each)] < 0:
            beyond.append(each)
    return beyond


def _check_held(was: Part, now: Part) -> list[str]:
    """As much more is held in each lot as there is more in its slices."""
    more: Counter[str] = Counter()
    for part, sign in ((now, 1), (was, -1)):
        for lot in part.lots:
            more[lot.terms.lot_id] += sign * lot.held
        for portion in part.slices():
            more[portion.lot_id] -= sign * portion.credits
    return [
        f"the credits held in lot {lot_id} and its open slices drifted apart by {by}"
        for lot_id, by in more.items()
        if by
    ]


def _is_plain_hold(before: Account, event: CreditsHeld, after: Account) -> bool:  # noqa: C901 - one look, no calls
    """Whether a hold of one slice was opened, and nothing else was touched. (Of money, as `_has_gone_out`.)"""
    lots_before, lots, slices = before.lots, after.lots, event.slices
    few, many, hold_id = before.holds, after.holds, event.hold_id
    try:
        (portion,) = slices
        old, new = lots_before[0], lots[0]
        if few:
            hold = holds_.the_one_more(few, many, hold_id)
        else:
            (only,) = many
            (_,) = only
            hold = only[hold_id]
    except (ValueError, LookupError):
        return False
    if old is new:
        pair = _the_one_that_differs(lots_before, lots)
        if pair is None:
            return False
        old, new = pair
    elif lots_before[_REST] != lots[_REST]:
        return False
    credits_, left, terms = portion.credits, new.left, new.terms
    if hold is None or hold.slices is not slices or hold.credits != credits_ or credits_ != event.credits:
        return False
    if credits_ <= 0 or left < 0 or left != old.left - credits_ or new.held != old.held + credits_:
        return False
    if new.spent is not old.spent or new.withdrawn is not old.withdrawn or new.reversed is not old.reversed:
        return False
    if terms is not old.terms or terms.lot_id != portion.lot_id:
        return False
    if before.status is not after.status or before.debt is not after.debt:
        return False
    gone, money, out, now = portion.worth, terms.consideration, old.out, new.out
    if gone is None or money is None:
        return gone is None and money is None and now is out
    whole, net, fee, usd = money.worth, gone.net_minor, gone.fee_minor, gone.usd_minor
    now_net, now_fee, now_usd = now.net_minor, now.fee_minor, now.usd_minor
    if net < 0 or fee < 0 or usd < 0:
        return False
    if now_net != out.net_minor + net or now_fee != out.fee_minor + fee or now_usd != out.usd_minor + usd:
        return False
    if now_net > whole.net_minor or now_fee > whole.fee_minor or now_usd > whole.usd_minor:
        return False
    if gone.tax_minor or gone.tax_usd_minor:
        if not _tax_has_gone_out(out, gone, now, whole):
            return False
    elif now.tax_minor != out.tax_minor or now.tax_usd_minor != out.tax_usd_minor:
        return False
    return left > 0 or now == whole


def _tax_has_gone_out(out: Worth, gone: Worth, now: Worth, whole: Worth) -> bool:
    """Of the tax in a lot, what a slice carries, and no more than there is."""
    tax, usd, now_tax, now_usd = gone.tax_minor, gone.tax_usd_minor, now.tax_minor, now.tax_usd_minor
    return (
        tax >= 0
        and usd >= 0
        and now_tax == out.tax_minor + tax
        and now_usd == out.tax_usd_minor + usd
        and now_tax <= whole.tax_minor
        and now_usd <= whole.tax_usd_minor
    )


def _is_plain_capture(before: Account, event: HoldCaptured, after: Account) -> bool:
    """Whether all of a hold of one slice was spent out of a lot that stays open, and nothing else was touched."""
    lots_before, lots, slices = before.lots, after.lots, event.slices
    few, many, hold_id = after.holds, before.holds, event.hold_id
    try:
        (portion,) = slices
        old, new = lots_before[0], lots[0]
        if few:
            hold = holds_.the_one_more(few, many, hold_id)
        else:
            (only,) = many
            (_,) = only
            hold = only[hold_id]
    except (ValueError, LookupError):
        return False
    if old is new:
        pair = _the_one_that_differs(lots_before, lots)
        if pair is None:
            return False
        old, new = pair
    elif lots_before[_REST] != lots[_REST]:
        return False
    credits_, held, terms = portion.credits, new.held, new.terms
    return (
        hold is not None
        and hold.slices is slices
        and hold.credits == credits_
        and credits_ > 0
        and credits_ == event.credits
        and held >= 0
        and held == old.held - credits_
        and new.spent == old.spent + credits_
        and new.left is old.left
        and new.withdrawn is old.withdrawn
        and new.reversed is old.reversed
        and new.out is old.out
        and terms is old.terms
        and terms.lot_id == portion.lot_id
        and not portion.revoked
        and before.status is after.status
        and before.debt is after.debt
        and not (event.returned or event.revoked or event.overage)
    )


def _is_plain_return(before: Account, event: HoldReleased | HoldExpired, after: Account) -> bool:
    """Whether all of a hold of one slice came back to its lot, and nothing else was touched."""
    slices, pair = event.returned, _the_one_that_differs(before.lots, after.lots)
    if pair is None or len(slices) != 1:
        return False
    portion, (old, new), few, many = slices[0], pair, after.holds, before.holds
    if few:
        hold = holds_.the_one_more(few, many, event.hold_id)
    else:
        hold = many[0].get(event.hold_id) if len(many) == 1 == len(many[0]) else None
    return (
        new.held >= 0
        and portion.credits > 0
        and portion.credits == event.credits
        and new.held == old.held - portion.credits
        and new.left == old.left + portion.credits
        and new.spent is old.spent
        and new.withdrawn is old.withdrawn
        and new.reversed is old.reversed
        # The other way round: what came back is what would go out again.
        and _has_gone_out(new, portion, old)
        and not new.out.is_negative_somewhere()
        and new.terms is old.terms
        and new.terms.lot_id == portion.lot_id
        and before.status is after.status
        and before.debt is after.debt
        and not event.revoked
        and not portion.revoked
        and hold is not None
        and hold.slices is slices
        and hold.credits == event.credits
    )


def _is_plain_grant(before: Account, event: CreditsGranted, after: Account) -> bool:
    """Whether one untouched lot was added, with the credits and the money of the event, and nothing else."""
    old, lots, was, now = before.lots, after.lots, before.status, after.status
    if len(lots) != len(old) + 1 or before.holds is not after.holds or before.debt != after.debt:
        return False
    if was is not now and (was.refunds is not now.refunds or was.schedules is not now.schedules):
        return False
    place = 0
    while place < len(old) and old[place] is lots[place]:
        place += 1
    terms, money = lots[place].terms, event.consideration
    return (
        old[place:] == lots[place + 1 :]
        and lots[place] == Lot(terms, event.credits)
        and terms.credits == event.credits > 0
        and terms.spent_before >= 0
        and terms.consideration == money
        and (money is None or not money.worth.is_negative_somewhere())
    )


def _the_one_that_differs(before: tuple[Lot, ...], after: tuple[Lot, ...]) -> tuple[Lot, Lot] | None:
    """A lot before and after, if it is all in which the lots differ; else None."""
    for place, pair in enumerate(zip(before, after)):  # noqa: B905 - what is beyond is compared with its length
        if pair[0] is not pair[1]:
            return pair if before[place + 1 :] == after[place + 1 :] else None
    return None


def _has_gone_out(old: Lot, portion: Slice, new: Lot) -> bool:
    """Whether a slice's worth, and nothing else, went out of what a lot still carried: all of it with the last credit.

    What had gone out before is not looked at.
    """
    gone, money = portion.worth, old.terms.consideration
    out, now = old.out, new.out
    if gone is None or money is None:
        return gone is None and money is None and now is out
    whole, net, fee, usd = money.worth, gone.net_minor, gone.fee_minor, gone.usd_minor
    return (
        net >= 0
        and fee >= 0
        and usd >= 0
        and now.net_minor == out.net_minor + net
        and now.fee_minor == out.fee_minor + fee
        and now.usd_minor == out.usd_minor + usd
        and now.net_minor <= whole.net_minor
        and now.fee_minor <= whole.fee_minor
        and now.usd_minor <= whole.usd_minor
        and _tax_has_gone_out(out, gone, now, whole)
        and (new.left > 0 or now == whole)
    )
