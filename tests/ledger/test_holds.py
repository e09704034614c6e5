from __future__ import annotations

import pytest

from ledger.domain import holds
from ledger.domain.account import ACCOUNTS
from ledger.domain.commands import CaptureHold, ExpireHold, MoveHold, ReleaseHold
from ledger.domain.events import HoldCaptured, HoldExpired, HoldMoved
from ledger.domain.refusals import (
    DeadlinePassed,
    HoldAlreadyOpen,
    HoldNotDue,
    HoldNotOpen,
    HoldPastDeadline,
    InsufficientCredits,
    InvalidAmount,
    OverageNotAllowed,
)
from tests.ledger.world import DEADLINE, MINUTE, NOON, after, balance, events_of, funded, grant, hold, paid


def test_a_hold_reserves_and_a_capture_spends():
    held = after(funded(10), hold(3))
    assert balance(held) == (10, 3, 0)
    assert held.available(NOON) == 7
    assert balance(after(held, CaptureHold(hold_id="h1"))) == (7, 0, 0)


def test_a_released_hold_costs_nothing():
    account = funded(10, paid(10))
    assert after(account, hold(3), ReleaseHold(hold_id="h1")) == account


def test_capturing_a_part_returns_the_rest():
    account = after(funded(10, paid(10)), hold(5), CaptureHold(hold_id="h1", credits=2))
    assert balance(account) == (8, 0, 0)


def test_a_hold_beyond_what_is_available_is_refused_with_both_numbers():
    with pytest.raises(InsufficientCredits) as refused:
        events_of(after(funded(10), hold(8)), hold(3, "h2"))
    assert refused.value.details == {"wanted": 3, "available": 2}


def test_a_hold_may_take_everything():
    assert balance(after(funded(10), hold(10))) == (10, 10, 0)


def test_capturing_more_needs_an_explicit_limit():
    account = after(funded(10), hold(3))
    with pytest.raises(OverageNotAllowed):
        events_of(account, CaptureHold(hold_id="h1", credits=5))
    with pytest.raises(OverageNotAllowed):
        events_of(account, CaptureHold(hold_id="h1", credits=5, overage_limit=1))
    [captured] = events_of(account, CaptureHold(hold_id="h1", credits=5, overage_limit=2))
    assert isinstance(captured, HoldCaptured)
    assert sum(portion.credits for portion in captured.overage) == 2
    assert balance(after(account, CaptureHold(hold_id="h1", credits=5, overage_limit=2))) == (5, 0, 0)


def test_overage_comes_out_of_what_is_available_and_never_out_of_other_holds():
    account = after(funded(10), hold(3), hold(6, "h2"))
    with pytest.raises(InsufficientCredits):
        events_of(account, CaptureHold(hold_id="h1", credits=5, overage_limit=10))


def test_a_late_capture_is_refused_by_name_even_before_the_sweep():
    account = after(funded(), hold(3))
    for late in (DEADLINE, DEADLINE + MINUTE):
        with pytest.raises(HoldPastDeadline):
            events_of(account, CaptureHold(hold_id="h1"), late)


@pytest.mark.parametrize("first", [CaptureHold(hold_id="h1"), ReleaseHold(hold_id="h1")])
@pytest.mark.parametrize(
    "second", [CaptureHold(hold_id="h1"), ReleaseHold(hold_id="h1"), ExpireHold(hold_id="h1")]
)
def test_a_second_resolution_is_refused_by_name_without_the_state_remembering(first, second):
    account = after(funded(), hold(3), first)
    assert account.holds == ()
    with pytest.raises(HoldNotOpen):
        events_of(account, second)


def test_a_hold_that_never_was_cannot_be_captured():
    with pytest.raises(HoldNotOpen):
        events_of(funded(), CaptureHold(hold_id="nobody"))


def test_a_hold_expires_by_time_and_gives_everything_back():
    account = after(funded(10, paid(7)), hold(3))
    with pytest.raises(HoldNotDue):
        events_of(account, ExpireHold(hold_id="h1"), DEADLINE - MINUTE)
    [expired] = events_of(account, ExpireHold(hold_id="h1"), DEADLINE)
    assert isinstance(expired, HoldExpired)
    assert after(account, ExpireHold(hold_id="h1"), now=DEADLINE) == funded(10, paid(7))


def test_sweeping_takes_the_oldest_deadlines_first_and_no_more_than_asked():
    account = funded(10)
    for number in range(5):
        account = after(account, hold(1, f"h{number}", deadline=DEADLINE - number * MINUTE))
    assert [late.hold_id for late in holds.due(account.holds, DEADLINE, 3)] == ["h4", "h3", "h2"]
    assert holds.due(account.holds, NOON, 3) == []


def test_a_hold_moves_to_another_job_without_its_credits_being_free_in_between():
    account = after(funded(3), hold(3))
    move = MoveHold(hold_id="h1", to_hold_id="h2", job_id="job_new", deadline=DEADLINE + MINUTE)
    [moved] = events_of(account, move)
    assert isinstance(moved, HoldMoved)
    assert (moved.from_job_id, moved.to_job_id) == ("job_h1", "job_new")
    account = after(account, move)
    assert balance(account) == (3, 3, 0)
    with pytest.raises(HoldNotOpen):
        events_of(account, CaptureHold(hold_id="h1"))
    captured = after(account, CaptureHold(hold_id="h2"), now=DEADLINE)
    assert balance(captured, DEADLINE) == (0, 0, 0)


def test_a_hold_can_keep_its_id_when_it_moves():
    account = after(funded(3), hold(3))
    move = MoveHold(hold_id="h1", to_hold_id="h1", job_id="job_new", deadline=DEADLINE)
    moved = after(account, move)
    found = holds.get(moved.holds, "h1")
    assert found is not None
    assert found.job_id == "job_new"


def test_a_late_hold_cannot_move_nor_onto_an_open_one():
    account = after(funded(3), hold(1), hold(1, "h2"))
    late = MoveHold(hold_id="h1", to_hold_id="h3", job_id="j", deadline=DEADLINE + MINUTE)
    with pytest.raises(HoldPastDeadline):
        events_of(account, late, DEADLINE)
    with pytest.raises(HoldAlreadyOpen):
        events_of(account, MoveHold(hold_id="h1", to_hold_id="h2", job_id="j", deadline=DEADLINE))
    with pytest.raises(DeadlinePassed):
        events_of(account, MoveHold(hold_id="h1", to_hold_id="h1", job_id="j", deadline=NOON))


def test_a_hold_id_is_open_once():
    with pytest.raises(HoldAlreadyOpen):
        events_of(after(funded(), hold(1)), hold(1))


def test_a_hold_needs_a_deadline_in_the_future_and_a_sensible_amount():
    with pytest.raises(DeadlinePassed):
        events_of(funded(), hold(1, deadline=NOON))
    for amount in (0, -1):
        with pytest.raises(InvalidAmount):
            events_of(funded(), hold(amount))
        with pytest.raises(InvalidAmount):
            events_of(after(funded(), hold(2)), CaptureHold(hold_id="h1", credits=amount))


def test_a_thousand_open_holds_are_found_again_whatever_their_ids():
    account = after(ACCOUNTS.initial, grant(1_000))
    for number in range(1_000):
        account = after(account, hold(1, f"hold_{number}"))
    assert account.held() == len(list(holds.each(account.holds))) == 1_000
    for number in range(1_000):
        account = after(account, ReleaseHold(hold_id=f"hold_{number}"))
    assert account == after(ACCOUNTS.initial, grant(1_000))
