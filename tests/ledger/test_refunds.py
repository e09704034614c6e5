from __future__ import annotations

import pytest

from ledger.domain.account import ACCOUNTS
from ledger.domain.commands import ExpireLots, OpenRefund, ResolveRefund
from ledger.domain.events import DebtRepaid, LotExpired, RefundFailed, RefundOpened
from ledger.domain.lots import Source
from ledger.domain.refusals import (
    InsufficientCredits,
    InvalidAmount,
    LotDisputed,
    LotNotFound,
    LotNotRefundable,
    RefundAlreadyOpen,
    RefundNotOpen,
    RefundTooLarge,
)
from tests.ledger.test_reversals import reverse, spent
from tests.ledger.world import HOUR, NOON, after, balance, events_of, funded, grant, hold, paid

REFUND = OpenRefund(refund_id="re_1", lot_id="lot_1")
SENT, FAILED, UNKNOWN = (
    ResolveRefund(refund_id="re_1", outcome=how) for how in ("sent", "failed", "unknown")
)


def bought():
    return funded(10, paid(100, tax=20, fee=3))


def test_a_refund_first_holds_the_unspent_credits():
    account = after(spent(bought(), 4), REFUND)
    assert balance(account) == (6, 6, 0)
    with pytest.raises(InsufficientCredits):
        events_of(account, hold(1))


def test_by_default_a_refund_is_all_that_was_paid_for_the_unspent_credits():
    [opened] = events_of(spent(bought(), 4), REFUND)
    assert isinstance(opened, RefundOpened)
    assert opened.amount_minor == opened.held.worth.gross_minor == 61


def test_a_refund_is_at_most_what_those_credits_cost():
    account = bought()
    with pytest.raises(RefundTooLarge) as refused:
        events_of(account, OpenRefund(refund_id="re_1", lot_id="lot_1", credits=5, amount_minor=52))
    largest = refused.value.largest_minor
    [opened] = events_of(
        account, OpenRefund(refund_id="re_1", lot_id="lot_1", credits=5, amount_minor=largest)
    )
    assert opened.amount_minor == largest
    with pytest.raises(InvalidAmount):
        events_of(account, OpenRefund(refund_id="re_1", lot_id="lot_1", amount_minor=0))


def test_sent_takes_the_credits():
    assert balance(after(bought(), REFUND, SENT)) == (0, 0, 0)


def test_failed_gives_them_back_as_they_were():
    assert after(bought(), REFUND, FAILED) == bought()


def test_unknown_keeps_them_held_until_somebody_knows():
    account = after(bought(), REFUND, UNKNOWN, UNKNOWN)
    assert balance(account) == (10, 10, 0)
    assert balance(after(account, SENT)) == (0, 0, 0)
    assert balance(after(account, FAILED)) == (10, 0, 0)


def test_a_refund_is_resolved_once():
    account = after(bought(), REFUND, SENT)
    for again in (SENT, FAILED, UNKNOWN):
        with pytest.raises(RefundNotOpen):
            events_of(account, again)


def test_a_refund_is_opened_once():
    with pytest.raises(RefundAlreadyOpen):
        events_of(after(bought(), REFUND), REFUND)


def test_what_is_held_or_spent_cannot_be_refunded():
    account = after(bought(), hold(4))
    [opened] = events_of(account, REFUND)
    assert opened.held.credits == 6
    with pytest.raises(LotNotFound):
        events_of(account, OpenRefund(refund_id="re_1", lot_id="lot_1", credits=7))
    with pytest.raises(LotNotFound):
        events_of(spent(bought(), 10), REFUND)


def test_free_credits_cannot_be_refunded():
    account = after(ACCOUNTS.initial, grant(5, source=Source.PROMOTION))
    with pytest.raises(LotNotRefundable):
        events_of(account, REFUND)


def test_a_disputed_payment_is_not_refunded():
    account = after(bought(), reverse(5, cause="dispute"))
    with pytest.raises(LotDisputed):
        events_of(account, REFUND)


def test_a_dispute_during_a_refund_revokes_what_the_refund_holds():
    account = after(bought(), REFUND, reverse(10, cause="dispute"))
    assert balance(account) == (10, 10, 0)
    assert balance(after(account, FAILED)) == (0, 0, 0)
    assert balance(after(account, SENT)) == (0, 0, 0)


def test_credits_of_a_failed_refund_expire_if_their_lot_has():
    account = after(ACCOUNTS.initial, grant(5, money=paid(50), expires_at=NOON + HOUR), REFUND)
    assert events_of(account, ExpireLots(), NOON + HOUR) == []
    _, lapsed = events_of(account, FAILED, NOON + HOUR)
    assert isinstance(lapsed, LotExpired)
    assert balance(after(account, FAILED, now=NOON + HOUR), NOON + HOUR) == (0, 0, 0)


def test_what_a_failed_refund_gives_back_makes_up_for_a_debt_that_came_meanwhile():
    account = after(bought(), REFUND, grant(5, "lot_2", money=paid(50, payment_id="pay_2")))
    account = after(spent(account, 5), reverse(5, lot_id="lot_2"))
    assert balance(account) == (10, 10, 5)
    failed, repaid = events_of(account, FAILED)
    assert isinstance(failed, RefundFailed)
    assert isinstance(repaid, DebtRepaid)
    assert (repaid.credits, repaid.slices[0].lot_id) == (5, "lot_1")
    assert balance(after(account, FAILED)) == (5, 0, 0)
