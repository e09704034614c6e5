"""An account's state stays small however long it lives."""

from __future__ import annotations

import msgspec

from ledger.domain.account import ACCOUNTS, decide, evolve
from ledger.domain.commands import CaptureHold, ExpireLots
from ledger.domain.consideration import Slice, Worth
from ledger.domain.events import CreditsHeld
from ledger.domain.granting import due_allowance
from ledger.domain.invariants import check, check_step
from ledger.domain.state import CLOSED_LOTS_KEPT, Account
from ledger.plans import PLANS
from tests.ledger.world import DAY, HOUR, NOON, after, apply, funded, grant, hold, paid


def size(account: Account) -> int:
    return len(msgspec.json.encode(account))


def test_the_state_is_the_same_after_ten_and_after_a_thousand_resolved_holds():
    def used(times: int) -> Account:
        account = funded(10_000, paid(10_000))
        for number in range(times):
            account = after(account, hold(1, f"h{number}"), CaptureHold(hold_id=f"h{number}"))
        return account

    assert size(used(1_000)) <= size(used(10)) + 20


def test_years_of_daily_allowances_leave_nothing_behind():
    account = ACCOUNTS.initial
    for day in range(800):
        now = NOON + day * DAY
        account = after(account, ExpireLots(), now=now)
        account = apply(account, due_allowance(account, PLANS["free"], now, account_id="acct_1"))
        account = after(account, hold(1, deadline=now + HOUR), CaptureHold(hold_id="h1"), now=now)
    assert len(account.lots) == 1
    assert size(account) < 600


def test_of_used_up_paid_lots_only_the_newest_are_remembered():
    account = ACCOUNTS.initial
    for number in range(200):
        account = after(account, grant(1, f"lot_{number}", money=paid(1)), hold(1), CaptureHold(hold_id="h1"))
    assert len(account.status.closed) == CLOSED_LOTS_KEPT
    assert account.status.closed[-1].lot_id == "lot_199"


def test_a_wrong_state_is_described_in_words():
    [lot] = funded(10, paid(100)).lots
    broken = msgspec.structs.replace(lot, left=11)
    assert check(Account((broken,))) == [
        "lot lot_1 was granted 10 credits but its parts do not add up to that"
    ]
    held = msgspec.structs.replace(lot, left=8, held=2)
    assert "open slices are 0" in check(Account((held,)))[0]
    assert check(Account(debt=-1)) == ["the debt is -1"]


def test_verify_sees_a_hold_resolved_twice_or_with_other_slices():
    open_ = after(funded(10, paid(100)), hold(4))
    [captured] = decide(open_, CaptureHold(hold_id="h1"), NOON)
    closed = evolve(open_, captured)
    assert "hold h1 was resolved but was not open" in check_step(closed, captured, evolve(closed, captured))
    richer = msgspec.structs.replace(
        captured, slices=(msgspec.structs.replace(captured.slices[0], worth=Worth(99)),)
    )
    assert "hold h1 was resolved with other slices than it held" in check_step(
        open_, richer, evolve(open_, richer)
    )


def test_verify_sees_credits_that_nobody_granted():
    account = funded(10)
    held = CreditsHeld(
        hold_id="h1", job_id="j1", credits=3, deadline=NOON, slices=(Slice("lot_9", 3, "payment"),)
    )
    assert check_step(account, held, evolve(account, held)) != []
