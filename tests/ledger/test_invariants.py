"""Each thing that must be true of an account is missed when it is not: a check that cannot fail checks nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import msgspec
import pytest

from ledger.domain import holds as holds_
from ledger.domain.account import ACCOUNTS
from ledger.domain.commands import CaptureHold, OpenRefund, PayPeriod, ReleaseHold
from ledger.domain.consideration import NOTHING, Slice, Worth
from ledger.domain.events import CreditsHeld, CreditsMovedIn, DebtIncurred, HoldExpired, HoldMoved
from ledger.domain.invariants import check, check_step
from ledger.domain.lots import Lot
from ledger.domain.state import Account, Schedule
from tests.ledger.samples import MONEY, TERMS
from tests.ledger.subscribing import UNLIMITED
from tests.ledger.world import DAY, DEADLINE, NOON, after, events_of, grant, hold, paid

replace = msgspec.structs.replace


def sound() -> Account:
    """Ten bought credits, four of them held, and one free credit."""
    account: Account = after(ACCOUNTS.initial, grant(10, money=paid(100)), grant(1, "lot_free"), hold(4))
    return account


def with_lot(**changes: Any) -> Account:
    account = sound()
    return replace(account, lots=(replace(account.lots[0], **changes), *account.lots[1:]))


def with_free_lot(**changes: Any) -> Account:
    account = sound()
    return replace(account, lots=(account.lots[0], replace(account.lots[1], **changes)))


def with_hold(**changes: Any) -> Account:
    account = sound()
    held = holds_.get(account.holds, "h1")
    assert held is not None
    return replace(account, holds=holds_.put(account.holds, replace(held, **changes)))


def portion(amount: int, worth: Worth | None = Worth(40, 0, 0, 40), lot_id: str = "lot_1") -> Slice:  # noqa: B008 - frozen
    return Slice(lot_id, amount, "payment", "USD", "card", worth)


def schedule(earned: Worth) -> Schedule:
    return Schedule("lot_s", MONEY, date(2026, 11, 22), 30, earned_days=1, earned=earned)


def with_schedule(earned: Worth) -> Account:
    account = sound()
    return replace(account, status=replace(account.status, schedules=(schedule(earned),)))


PARTS = "lot lot_1 was granted 10 credits but its parts do not add up to that"
NEGATIVE = "lot lot_1 has a negative part"
OVERDRAWN = "lot lot_1 gave out more than its consideration, or less than nothing"
SPOILT: dict[str, tuple[Callable[[], Account], list[str]]] = {
    "a credit too many left": (lambda: with_lot(left=7), [PARTS]),
    "a credit too many spent": (lambda: with_lot(spent=1), [PARTS]),
    "a credit too many withdrawn": (lambda: with_lot(withdrawn=1), [PARTS]),
    "less than nothing left": (lambda: with_lot(left=-1, spent=7), [NEGATIVE]),
    "less than nothing spent": (lambda: with_lot(left=7, spent=-1), [NEGATIVE]),
    "less than nothing withdrawn": (lambda: with_lot(left=7, withdrawn=-1), [NEGATIVE]),
    "less than nothing reversed": (lambda: with_lot(reversed=-1), [NEGATIVE]),
    "more reversed than was spent": (lambda: with_lot(reversed=1), [NEGATIVE]),
    "a credit more held than the slices say": (
        lambda: with_lot(left=5, held=5),
        ["lot lot_1 says 5 credits are held; open slices are 4"],
    ),
    "less than nothing held": (
        lambda: with_lot(left=11, held=-1),
        [NEGATIVE, "lot lot_1 says -1 credits are held; open slices are 4"],
    ),
    "worth out of a lot that nobody paid for": (
        lambda: with_free_lot(out=Worth(1, 0, 0, 0)),
        ["lot lot_free gave out worth that nobody paid"],
    ),
    "more worth out than there was": (lambda: with_lot(out=Worth(101, 0, 0, 40)), [OVERDRAWN]),
    "less worth out than nothing": (lambda: with_lot(out=Worth(40, 0, 0, -1)), [OVERDRAWN]),
    "an empty lot that still carries worth": (
        lambda: with_lot(left=0, spent=6),
        [f"lot lot_1 has nothing left but still carries {Worth(60, 0, 0, 60)}"],
    ),
    "a hold of other credits than its slices": (
        lambda: with_hold(credits=5),
        ["hold h1 is 5 credits but has slices of 4"],
    ),
    "a slice of nothing": (
        lambda: with_hold(slices=(portion(4), portion(0, None))),
        ["a slice of lot lot_1 has 0 credits"],
    ),
    "a slice with less worth than nothing": (
        lambda: with_hold(slices=(portion(4, Worth(-1, 0, 0, 0)),)),
        ["a slice of lot lot_1 has a negative worth"],
    ),
    "a slice of a lot that is gone": (
        lambda: with_hold(credits=6, slices=(portion(4), portion(2, None, "lot_gone"))),
        ["2 credits are held from lot_gone, which is not there"],
    ),
    "a debt below nothing": (lambda: replace(sound(), debt=-1), ["the debt is -1"]),
    "more earned than was paid": (
        lambda: with_schedule(Worth(431, 50, 20, 450, 50)),
        ["schedule lot_s earned more than its money"],
    ),
}


@pytest.mark.parametrize("what", SPOILT)
def test_what_is_wrong_with_a_state_is_said(what: str) -> None:
    make, wrong = SPOILT[what]
    assert check(make()) == wrong


def test_nothing_is_said_of_a_sound_state() -> None:
    assert check(sound()) == []
    assert check(with_schedule(MONEY.worth)) == []
    refund = after(sound(), OpenRefund(refund_id="re_1", lot_id="lot_1", credits=2))
    assert check(refund) == []


def test_credits_held_for_a_refund_are_open_slices_too() -> None:
    account = after(sound(), OpenRefund(refund_id="re_1", lot_id="lot_1", credits=2))
    forgotten = replace(account, status=replace(account.status, refunds=()))
    assert check(forgotten) == ["lot lot_1 says 6 credits are held; open slices are 4"]


def step(before: Account, *commands: Any) -> tuple[Account, Any, Account]:
    [event] = events_of(before, *commands)
    return before, event, ACCOUNTS.evolve(before, event)


def test_an_event_that_does_what_it_says_is_sound() -> None:
    for command in (
        CaptureHold(hold_id="h1"),
        CaptureHold(hold_id="h1", credits=1),
        ReleaseHold(hold_id="h1"),
    ):
        assert check_step(*step(sound(), command)) == []


def test_a_step_that_changes_other_numbers_than_its_event_says_is_named() -> None:
    before = sound()
    debt = DebtIncurred(credits=2, cause="reversal", reference="r")
    assert check_step(before, debt, replace(before, debt=3)) == ["the debt changed by 3, the event says 2"]
    _, released, then = step(before, ReleaseHold(hold_id="h1"))
    assert check_step(before, released, before) == ["credits held changed by 0, the event says -4"]
    _, captured, _ = step(before, CaptureHold(hold_id="h1"))
    wrong = check_step(before, captured, then)
    assert wrong == [
        "credits posted changed by 0, the event says -4",
        f"worth changed by {NOTHING}, the event says {NOTHING - Worth(40, 0, 0, 40)}",
    ]


def test_worth_that_appears_or_vanishes_is_named() -> None:
    before, granted, then = step(sound(), grant(3, "lot_3", money=paid(30)))
    dearer = replace(then, lots=tuple(dear(lot) if lot.terms.lot_id == "lot_3" else lot for lot in then.lots))
    assert check_step(before, granted, then) == []
    assert check_step(before, granted, dearer) == [
        f"worth changed by {Worth(31, 0, 0, 30)}, the event says {Worth(30, 0, 0, 30)}"
    ]


def dear(lot: Lot) -> Lot:
    paid_ = lot.terms.consideration
    assert paid_ is not None
    worth = paid_.worth + Worth(1, 0, 0, 0)
    return replace(lot, terms=replace(lot.terms, consideration=replace(paid_, worth=worth)))


def test_credits_that_move_in_bring_exactly_their_worth() -> None:
    lots = (TERMS, replace(TERMS, lot_id="lot_2", consideration=None))
    event = CreditsMovedIn(from_account="acct_1", credits=1_000, lots=lots)
    assert check_step(ACCOUNTS.initial, event, ACCOUNTS.evolve(ACCOUNTS.initial, event)) == []


def resolved(**changes: Any) -> list[str]:
    """What is wrong with the expiry of the hold, but for these fields."""
    fields = {
        "hold_id": "h1",
        "job_id": "job_h1",
        "credits": 4,
        "deadline": DEADLINE,
        "returned": (portion(4),),
        **changes,
    }
    before, event = sound(), HoldExpired(**fields)
    return check_step(before, event, ACCOUNTS.evolve(before, event))


def test_a_hold_is_resolved_once_wholly_and_with_its_own_slices() -> None:
    assert resolved() == []
    assert "hold h2 was resolved but was not open" in resolved(hold_id="h2")
    others = "hold h1 was resolved with other slices than it held"
    assert others in resolved(returned=(portion(3, Worth(30, 0, 0, 30)),))
    assert others in resolved(returned=(portion(4, Worth(39, 0, 0, 40)),))
    assert others in resolved(returned=(portion(4, lot_id="lot_free"),))
    assert others in resolved(returned=(), revoked=(replace(portion(4), revoked=True),))
    # Cut in another way they are the same credits.
    assert resolved(returned=(portion(1, Worth(10, 0, 0, 10)), portion(3, Worth(30, 0, 0, 30)))) == []


def test_a_capture_spends_what_it_says() -> None:
    before, event, then = step(sound(), CaptureHold(hold_id="h1"))
    assert "hold h1: 3 credits, but the slices are 4" in check_step(before, replace(event, credits=3), then)


def test_a_hold_is_opened_once_and_with_slices_of_all_its_credits() -> None:
    again = CreditsHeld(hold_id="h1", job_id="j", credits=1, deadline=DEADLINE, slices=(portion(1),))
    assert "hold h1 was opened twice" in check_step(sound(), again, sound())
    less = replace(again, hold_id="h2", credits=2)
    assert "hold h2 has slices of 1, not 2" in check_step(sound(), less, sound())


def test_a_hold_that_moves_was_open() -> None:
    moved = HoldMoved(
        hold_id="h1", to_hold_id="h2", from_job_id="a", to_job_id="b", credits=4, deadline=DEADLINE
    )
    assert check_step(sound(), moved, ACCOUNTS.evolve(sound(), moved)) == []
    gone = replace(moved, hold_id="h9")
    assert "hold h9 was resolved but was not open" in check_step(sound(), gone, sound())


def test_money_that_is_scheduled_is_not_worth_of_a_lot() -> None:
    account = ACCOUNTS.initial
    command = PayPeriod(
        subscription_id="sub_1",
        plan=UNLIMITED,
        period_start=NOON,
        period_end=NOON + 30 * DAY,
        lot_id="lot_s",
        consideration=MONEY,
    )
    events = events_of(account, command)
    assert events
    for event in events:
        then = ACCOUNTS.evolve(account, event)
        assert check_step(account, event, then) == []
        account = then
