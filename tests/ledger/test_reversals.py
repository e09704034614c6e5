from __future__ import annotations

import pytest

from ledger.domain.account import ACCOUNTS
from ledger.domain.commands import (
    AdjustCredits,
    CaptureHold,
    ExpireHold,
    ExpireLots,
    ForgiveDebt,
    LoseDispute,
    OpenRefund,
    ReleaseHold,
    ResolveRefund,
    RestoreReversal,
    ReverseCredits,
)
from ledger.domain.consideration import Worth
from ledger.domain.events import CreditsReversed, DebtIncurred, DebtRepaid
from ledger.domain.granting import due_allowance
from ledger.domain.lots import Source
from ledger.domain.refusals import (
    AccountInDebt,
    InsufficientCredits,
    NoDebt,
    ReasonMissing,
    ReversalAlreadyBooked,
    ReversalNotFound,
)
from ledger.domain.state import CLOSED_LOTS_KEPT, Account
from ledger.plans import PLANS
from tests.ledger.world import DAY, HOUR, NOON, after, balance, events_of, funded, grant, hold, paid


def reverse(
    amount: int, *, cause: str = "reversal", lot_id: str = "lot_1", reversal_id: str = "rev_1"
) -> ReverseCredits:
    return ReverseCredits(
        reversal_id=reversal_id,
        lot_id=lot_id,
        credits=amount,
        cause=cause,
        asset="USD",
        rail="card",
        payment_id="pay_1",
        worth=Worth(amount * 10, 0, 0, amount * 10),
    )


def bought(amount: int = 10, lot_id: str = "lot_1", payment_id: str = "pay_1"):
    return grant(amount, lot_id, money=paid(amount * 10, payment_id=payment_id))


def spent(account: Account, amount: int, hold_id: str = "s1") -> Account:
    return after(account, hold(amount, hold_id), CaptureHold(hold_id=hold_id))


def test_a_reversal_before_spending_takes_the_credits_and_leaves_no_debt():
    account = after(ACCOUNTS.initial, bought(), reverse(10))
    assert balance(account) == (0, 0, 0)


def test_a_partial_reversal_takes_unheld_credits_first():
    account = after(ACCOUNTS.initial, bought(), hold(4), reverse(5))
    assert balance(account) == (5, 4, 0)


def test_a_reversal_after_spending_makes_a_debt_kept_apart():
    account = after(spent(after(ACCOUNTS.initial, bought()), 7), reverse(10))
    assert balance(account) == (0, 0, 7)


def test_held_slices_are_revoked_on_release():
    account = after(ACCOUNTS.initial, bought(), hold(4), reverse(10))
    assert balance(account) == (4, 4, 0)
    assert balance(after(account, ReleaseHold(hold_id="h1"))) == (0, 0, 0)


def test_held_slices_become_debt_on_capture():
    account = after(ACCOUNTS.initial, bought(), hold(4), reverse(10))
    captured, incurred = events_of(account, CaptureHold(hold_id="h1"))
    assert captured.slices[0].worth is None
    assert isinstance(incurred, DebtIncurred)
    assert balance(after(account, CaptureHold(hold_id="h1"))) == (0, 0, 4)


def test_of_a_half_revoked_hold_the_paid_half_is_spent_first():
    account = after(ACCOUNTS.initial, bought(), hold(10), reverse(6))
    assert balance(after(account, CaptureHold(hold_id="h1", credits=4))) == (0, 0, 0)
    assert balance(after(account, CaptureHold(hold_id="h1", credits=5))) == (0, 0, 1)


def test_only_what_was_really_spent_is_owed():
    account = after(ACCOUNTS.initial, bought())
    account = after(spent(account, 3), OpenRefund(refund_id="re_1", lot_id="lot_1", credits=2))
    reversed_, *_ = events_of(account, reverse(10))
    assert isinstance(reversed_, CreditsReversed)
    assert (reversed_.left.credits, reversed_.held.credits, reversed_.spent_credits) == (5, 2, 3)


def test_a_lot_long_used_up_still_makes_a_debt():
    account = spent(after(ACCOUNTS.initial, bought()), 10)
    assert account.lots == ()
    assert balance(after(account, reverse(10))) == (0, 0, 10)


def test_credits_that_expired_unused_are_not_owed():
    account = after(ACCOUNTS.initial, grant(10, money=paid(100), expires_at=NOON + HOUR))
    account = spent(account, 3)
    account = after(account, ExpireLots(), now=NOON + HOUR)
    assert balance(after(account, reverse(10), now=NOON + HOUR), NOON + HOUR) == (0, 0, 3)


@pytest.mark.parametrize("swept", [True, False])
def test_a_dispute_of_lapsed_credits_is_the_same_whether_or_not_a_sweep_has_come_by(swept):
    account = after(ACCOUNTS.initial, grant(10, money=paid(100), expires_at=NOON + HOUR))
    account, now = spent(account, 3), NOON + HOUR
    if swept:
        account = after(account, ExpireLots(), now=now)
    account = after(account, reverse(10, cause="dispute"), now=now)
    assert balance(account, now) == (0, 0, 3)
    account = after(account, RestoreReversal(reversal_id="rev_1", lot_id="lot_back"), now=now)
    assert balance(account, now) == (0, 0, 0), "what had lapsed does not come back to life"


def test_two_partial_reversals_never_owe_more_than_was_spent():
    account = spent(after(ACCOUNTS.initial, bought()), 10)
    account = after(account, reverse(6), reverse(6, reversal_id="rev_2"))
    assert account.debt == 10


def test_other_paid_credits_make_up_for_a_debt_at_once_but_free_ones_do_not():
    account = after(spent(after(ACCOUNTS.initial, bought()), 10), bought(6, "lot_2", "pay_2"))
    account = after(account, grant(50, "lot_3", source=Source.PROMOTION))
    *_, repaid = events_of(account, reverse(10))
    assert isinstance(repaid, DebtRepaid)
    assert balance(after(account, reverse(10))) == (50, 0, 4)


def test_while_a_debt_stands_no_hold_opens_and_no_allowance_is_granted():
    account = after(spent(after(ACCOUNTS.initial, bought()), 10), reverse(10))
    account = after(account, grant(50, "lot_3", source=Source.PROMOTION))
    assert account.debt == 10
    with pytest.raises(AccountInDebt):
        events_of(account, hold(1))
    assert due_allowance(account, PLANS["free"], NOON, account_id="acct_1") == []


def test_only_paid_grants_reduce_a_debt():
    account = after(spent(after(ACCOUNTS.initial, bought()), 10), reverse(10), bought(4, "lot_2", "pay_2"))
    assert balance(account) == (0, 0, 6)
    assert balance(after(account, bought(10, "lot_4", "pay_4"))) == (4, 0, 0)


def test_an_open_hold_may_still_be_captured_while_a_debt_stands():
    account = after(
        spent(after(ACCOUNTS.initial, bought()), 6), grant(2, "lot_2", source=Source.PROMOTION), hold(2)
    )
    account = after(account, reverse(10))
    assert account.debt == 6
    assert balance(after(account, CaptureHold(hold_id="h1")))[2] == 6


def test_a_dispute_won_gives_everything_back():
    before = spent(after(ACCOUNTS.initial, bought()), 7)
    account = after(before, reverse(10, cause="dispute"))
    assert balance(account) == (0, 0, 7)
    account = after(account, RestoreReversal(reversal_id="rev_1", lot_id="lot_back"))
    assert balance(account) == balance(before) == (3, 0, 0)


def test_credits_come_back_from_a_dispute_with_the_life_they_had_left():
    account = after(ACCOUNTS.initial, grant(10, money=paid(100), expires_at=NOON + HOUR))
    account = after(account, reverse(10, cause="dispute"))
    account = after(account, RestoreReversal(reversal_id="rev_1", lot_id="lot_back"), now=NOON + 40 * DAY)
    assert account.lots[0].terms.expires_at == NOON + 40 * DAY + HOUR


def test_a_dispute_ends_once():
    account = after(ACCOUNTS.initial, bought(), reverse(10, cause="dispute"))
    with pytest.raises(ReversalAlreadyBooked):
        events_of(account, reverse(10, cause="dispute"))
    lost = after(account, LoseDispute(reversal_id="rev_1"))
    assert lost.status.disputes == ()
    for again in (LoseDispute(reversal_id="rev_1"), RestoreReversal(reversal_id="rev_1", lot_id="lot_back")):
        with pytest.raises(ReversalNotFound):
            events_of(lost, again)


def test_an_adjustment_needs_an_actor_and_a_reason_and_cannot_take_what_is_not_there():
    account = funded(10)
    adjust = AdjustCredits(
        adjustment_id="adj_1", lot_id="lot_a", credits=5, actor="operator:1", reason="goodwill"
    )
    assert balance(after(account, adjust)) == (15, 0, 0)
    take = AdjustCredits(adjustment_id="adj_2", lot_id="", credits=-4, actor="operator:1", reason="mistake")
    assert balance(after(account, take)) == (6, 0, 0)
    with pytest.raises(InsufficientCredits):
        events_of(after(account, hold(8)), take)
    for actor, reason in (("", "why"), ("operator:1", " ")):
        with pytest.raises(ReasonMissing):
            events_of(
                account, AdjustCredits(adjustment_id="a", lot_id="l", credits=1, actor=actor, reason=reason)
            )


def test_a_debt_can_be_forgiven_but_no_more_than_it_is():
    account = after(spent(after(ACCOUNTS.initial, bought()), 10), reverse(10))
    assert after(account, ForgiveDebt(credits=10, actor="operator:1", reason="fraud case closed")).debt == 0
    with pytest.raises(NoDebt):
        events_of(account, ForgiveDebt(credits=11, actor="operator:1", reason="x"))


def test_what_a_capture_makes_owed_is_made_up_for_by_other_paid_credits():
    account = after(ACCOUNTS.initial, bought(), hold(10), reverse(10), bought(6, "lot_2", "pay_2"))
    assert balance(after(account, CaptureHold(hold_id="h1"))) == (0, 0, 4)


def test_paid_credits_that_come_back_while_a_debt_stands_make_up_for_it():
    account = after(spent(after(ACCOUNTS.initial, bought()), 10), bought(6, "lot_2", "pay_2"), hold(6))
    account = after(account, reverse(10))
    assert balance(account) == (6, 6, 10)
    assert balance(after(account, ReleaseHold(hold_id="h1"))) == (0, 0, 4)
    assert balance(after(account, ExpireHold(hold_id="h1"), now=NOON + HOUR), NOON + HOUR) == (0, 0, 4)
    assert balance(after(account, CaptureHold(hold_id="h1", credits=2))) == (0, 0, 6)


def test_a_refund_that_failed_while_a_debt_stands_makes_up_for_it():
    account = after(spent(after(ACCOUNTS.initial, bought()), 10), bought(6, "lot_2", "pay_2"))
    account = after(account, OpenRefund(refund_id="re_1", lot_id="lot_2"), reverse(10))
    assert balance(account) == (6, 6, 10)
    assert balance(after(account, ResolveRefund(refund_id="re_1", outcome="failed"))) == (0, 0, 4)


def a_lot_partly_refunded(account: Account, lot_id: str) -> Account:
    """Ten credits: four refunded by us, six spent. Its number is in its ids."""
    account = after(account, bought(10, lot_id, f"pay_{lot_id}"))
    account = after(account, OpenRefund(refund_id=f"re_{lot_id}", lot_id=lot_id, credits=4))
    account = after(account, ResolveRefund(refund_id=f"re_{lot_id}", outcome="sent"))
    return spent(account, 6, f"s_{lot_id}")


def test_a_lot_that_was_partly_refunded_is_remembered_longer_than_any_number_of_plain_ones():
    account = a_lot_partly_refunded(ACCOUNTS.initial, "lot_1")
    for number in range(3 * CLOSED_LOTS_KEPT):
        account = spent(after(account, bought(1, f"lot_{number}x", f"pay_{number}x")), 1)
    assert len(account.status.closed) == CLOSED_LOTS_KEPT
    assert after(account, reverse(10)).debt == 6


def test_a_lot_forgotten_after_it_was_wholly_spent_is_owed_exactly():
    account = after(spent(after(ACCOUNTS.initial, bought()), 10))
    for number in range(3 * CLOSED_LOTS_KEPT):
        account = spent(after(account, bought(1, f"lot_{number}x", f"pay_{number}x")), 1)
    assert all(closed.lot_id != "lot_1" for closed in account.status.closed)
    assert after(account, reverse(10)).debt == 10


def test_a_lot_really_forgotten_is_never_owed_for_less_than_was_spent_nor_more_than_went_back():
    account = a_lot_partly_refunded(ACCOUNTS.initial, "lot_1")
    for number in range(CLOSED_LOTS_KEPT):
        account = a_lot_partly_refunded(account, f"lot_{number}x")
    assert all(closed.lot_id != "lot_1" for closed in account.status.closed)
    for went_back in (6, 10):
        assert after(account, reverse(went_back)).debt == went_back >= 6
