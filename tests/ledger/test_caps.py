"""Warnings at 80 and 100 % of an allowance, and what may be spent beyond it."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.account import ACCOUNTS
from ledger.domain.commands import BillOverage, CaptureHold, HoldCredits, ReleaseHold
from ledger.domain.events import UsageWarned
from ledger.domain.refusals import InsufficientCredits, NothingToBill
from tests.ledger.subscribing import (
    END,
    PRO,
    START,
    STARTER,
    UNLIMITED,
    change,
    pay,
    subscribed,
    use,
    with_allowance,
)
from tests.ledger.world import DAY, DEADLINE, HOUR, NOON, after, apply, events_of, grant, hold, paid


def test_the_marks_of_80_and_100_percent_are_given_once_each():
    account = with_allowance(ACCOUNTS.initial)
    account, marks = use(account, 15)
    assert marks == []
    account, marks = use(account, 1)
    assert marks == [80]
    account, marks = use(account, 3)
    assert marks == []
    account, marks = use(account, 1)
    assert marks == [100]
    account = with_allowance(account, now=NOON + DAY)
    account, marks = use(account, 20, NOON + DAY)
    assert marks == [80, 100]


def test_what_is_held_over_midnight_counts_toward_neither_day():
    """The day that it was granted for is over; of the new day's allowance nothing has been used."""
    held = after(with_allowance(ACCOUNTS.initial), hold(20, deadline=NOON + DAY))
    midnight = datetime(2026, 11, 23, tzinfo=UTC)
    account = after(with_allowance(held, now=midnight), CaptureHold(hold_id="h1"), now=midnight)
    assert (account.usage.period, account.usage.used, account.usage.warned_percent) == ("2026-11-23", 0, 0)
    assert use(account, 20, midnight)[1] == [80, 100]
    before_the_next_grant = events_of(held, CaptureHold(hold_id="h1"), midnight)
    assert [e.period for e in before_the_next_grant if isinstance(e, UsageWarned)] == ["2026-11-22"] * 2


def test_the_old_periods_credits_used_in_their_grace_do_not_warn_of_the_new_ones():
    renewed = after(subscribed(STARTER), pay(STARTER, END, END + 31 * DAY), now=END + HOUR)
    account, marks = use(renewed, 2_000, END + 2 * HOUR)
    assert (marks, account.available(END + 2 * HOUR)) == ([], 2_000)
    account, marks = use(account, 1_600, END + 3 * HOUR)
    assert marks == [80]


def test_what_is_left_of_a_smaller_plan_does_not_warn_of_the_daily_allowance_of_a_larger_one():
    account = with_allowance(after(subscribed(STARTER), change(STARTER, UNLIMITED)), UNLIMITED)
    without = msgspec.structs.replace(hold(900, deadline=NOON + HOUR), allowance=False)
    account = after(account, without)
    assert not [e for e in events_of(account, CaptureHold(hold_id="h1")) if isinstance(e, UsageWarned)]


@given(
    st.integers(1, 2_000),
    st.integers(0, 29),
    st.lists(st.integers(1, 900), min_size=1, max_size=12),
)
def test_each_mark_is_given_once_and_once_more_only_for_a_larger_allowance(first, day, amounts):
    account, marks = use(subscribed(STARTER), first)
    assert marks == [mark for mark in (80, 100) if first * 100 >= 2_000 * mark]
    account = after(account, change(STARTER, PRO), now=START + day * DAY)
    whole, used = account.usage.granted, first
    # What the smaller allowance was warned of and the larger one has not reached will come again.
    given_already = {mark for mark in marks if used * 100 >= whole * mark}
    for amount in amounts:
        if amount > whole - used:
            break
        account, marks = use(account, amount)
        used += amount
        assert not given_already & set(marks)
        given_already |= set(marks)
    assert given_already == {mark for mark in (80, 100) if used * 100 >= whole * mark}


def test_bought_credits_do_not_count_against_the_allowance():
    account = after(with_allowance(ACCOUNTS.initial), grant(100, money=paid(100)))
    account, marks = use(account, 20)
    assert marks == [80, 100]
    _, marks = use(account, 100)
    assert marks == []


def overdraft(amount: int, hold_id: str, limit: int) -> HoldCredits:
    return HoldCredits(
        hold_id=hold_id,
        job_id="j",
        credits=amount,
        deadline=DEADLINE,
        overage_lot=f"lot_{hold_id}",
        overage_limit=limit,
    )


def test_without_overage_an_empty_plan_is_a_hard_cut_off():
    account, _ = use(with_allowance(ACCOUNTS.initial), 20)
    with pytest.raises(InsufficientCredits):
        events_of(account, hold(1))


def test_a_plan_with_overage_goes_on_up_to_its_limit_and_is_billed():
    account, _ = use(with_allowance(ACCOUNTS.initial), 18)
    account = after(account, overdraft(5, "o1", 10), CaptureHold(hold_id="o1"))
    assert account.status.overage_owed == 3
    account = after(account, overdraft(7, "o2", 10), CaptureHold(hold_id="o2"))
    with pytest.raises(InsufficientCredits):
        events_of(account, overdraft(1, "o3", 10))
    with pytest.raises(NothingToBill):
        events_of(account, BillOverage(credits=11, consideration=paid(11)))
    assert after(account, BillOverage(credits=10, consideration=paid(10))).status.overage_owed == 0


def test_a_hold_can_leave_the_daily_allowance_alone():
    account = after(with_allowance(ACCOUNTS.initial), grant(2, money=paid(2)))
    without = msgspec.structs.replace(hold(2), allowance=False)
    [held] = events_of(account, without)
    assert held.allowance_credits == 0
    with pytest.raises(InsufficientCredits) as refused:
        events_of(account, msgspec.structs.replace(without, credits=3))
    assert refused.value.available == 2


def test_what_is_captured_beyond_the_hold_counts_towards_the_warnings():
    account = after(with_allowance(ACCOUNTS.initial), hold(15))
    events = events_of(account, CaptureHold(hold_id="h1", credits=17, overage_limit=2))
    assert [event.percent for event in events if isinstance(event, UsageWarned)] == [80]
    assert apply(account, events).usage.used == 17


@pytest.mark.parametrize("amount", [5, 2])
def test_what_was_held_beyond_the_plan_and_not_used_is_owed_by_nobody(amount: int) -> None:
    account, _ = use(with_allowance(ACCOUNTS.initial), 18)
    held = after(account, overdraft(7, "o1", 10))
    assert (held.status.overage_owed, held.usage.overage) == (5, 5)
    released = after(held, ReleaseHold(hold_id="o1"))
    assert (released.status.overage_owed, released.usage.overage, released.available(NOON)) == (0, 0, 2)
    part = after(held, CaptureHold(hold_id="o1", credits=amount))
    assert part.status.overage_owed == amount - 2
    assert part.available(NOON) == 0


def test_what_is_owed_of_an_earlier_period_counts_toward_the_limit() -> None:
    account, _ = use(with_allowance(ACCOUNTS.initial), 20)
    account = after(account, overdraft(8, "o1", 10), CaptureHold(hold_id="o1"))
    tomorrow = NOON + DAY
    account = with_allowance(account, now=tomorrow)
    later = DEADLINE + DAY
    beyond = msgspec.structs.replace(overdraft(23, "o2", 10), deadline=later)
    with pytest.raises(InsufficientCredits):
        events_of(account, beyond, tomorrow)
    within = msgspec.structs.replace(overdraft(22, "o2", 10), deadline=later)
    assert apply(account, events_of(account, within, tomorrow)).status.overage_owed == 10
