from __future__ import annotations

import pytest

from ledger.domain.account import ACCOUNTS
from ledger.domain.commands import CaptureHold, OpenRefund, ReleaseHold, ResolveRefund, RestoreReversal
from ledger.domain.events import CreditsMovedIn, CreditsMovedOut, DebtForgiven, DebtIncurred, LotExpired
from ledger.domain.granting import due_allowance
from ledger.domain.lots import Source
from ledger.domain.merging import decide_merge
from ledger.domain.refusals import AccountMerged, AccountNotMergeable
from ledger.domain.state import CLOSED_LOTS_KEPT, Account
from ledger.plans import PLANS
from tests.ledger.test_reversals import bought, reverse, spent
from tests.ledger.world import HOUR, NOON, after, apply, balance, events_of, grant, hold, paid

FREE = PLANS["free"]


def merged(guest: Account, person: Account) -> tuple[Account, Account]:
    out, arrived = decide_merge(guest, person, "acct_guest", "acct_person", NOON)
    return apply(guest, out), apply(person, arrived)


def visitor() -> Account:
    account = apply(ACCOUNTS.initial, due_allowance(ACCOUNTS.initial, FREE, NOON, account_id="acct_guest"))
    return after(account, bought())


def test_paid_lots_move_with_their_money_and_allowances_do_not():
    guest, person = merged(visitor(), ACCOUNTS.initial)
    assert balance(person) == (10, 0, 0)
    assert person.lots[0].terms.consideration == visitor().lots[1].terms.consideration
    assert balance(guest) == (20, 0, 0)


def test_what_is_left_of_a_lot_moves_with_what_is_left_of_its_money():
    _, person = merged(spent(after(ACCOUNTS.initial, bought()), 3), ACCOUNTS.initial)
    [lot] = person.lots
    assert (lot.left, lot.left_worth.net_minor) == (7, 70)


def test_a_guest_is_merged_into_one_account_once():
    guest, person = merged(visitor(), ACCOUNTS.initial)
    assert decide_merge(guest, person, "acct_guest", "acct_person", NOON) == ([], [])
    with pytest.raises(AccountMerged):
        decide_merge(guest, ACCOUNTS.initial, "acct_guest", "acct_other", NOON)
    with pytest.raises(AccountMerged):
        decide_merge(ACCOUNTS.initial, guest, "acct_new", "acct_guest", NOON)
    with pytest.raises(AccountNotMergeable):
        decide_merge(guest, guest, "acct_guest", "acct_guest", NOON)


def test_a_merged_guest_neither_holds_nor_gets_an_allowance():
    guest, _ = merged(visitor(), ACCOUNTS.initial)
    with pytest.raises(AccountMerged) as refused:
        events_of(guest, hold(1))
    assert refused.value.into == "acct_person"
    guest, _ = merged(after(ACCOUNTS.initial, bought()), ACCOUNTS.initial)
    assert due_allowance(guest, FREE, NOON, account_id="acct_guest") == []


def test_a_job_that_runs_during_the_merge_ends_well_and_what_it_frees_follows():
    running = after(ACCOUNTS.initial, bought(), hold(4))
    guest, person = merged(running, ACCOUNTS.initial)
    assert (balance(guest), balance(person)) == ((4, 4, 0), (6, 0, 0))
    assert balance(after(guest, CaptureHold(hold_id="h1"))) == (0, 0, 0)
    guest, person = merged(after(guest, ReleaseHold(hold_id="h1")), person)
    assert (balance(guest), balance(person)) == ((0, 0, 0), (10, 0, 0))


def test_a_debt_goes_with_its_guest_and_the_persons_paid_credits_do_not_vanish():
    owing = after(spent(after(ACCOUNTS.initial, bought()), 10), reverse(10))
    guest, person = merged(owing, ACCOUNTS.initial)
    assert (guest.debt, person.debt) == (0, 10)


def test_what_a_guest_had_spent_is_still_owed_after_the_merge():
    _, person = merged(spent(after(ACCOUNTS.initial, bought()), 7), ACCOUNTS.initial)
    assert balance(after(person, reverse(10))) == (0, 0, 7)


def test_moved_credits_make_up_for_the_persons_debt():
    owing = after(spent(after(ACCOUNTS.initial, bought(4, "lot_9", "pay_9")), 4), reverse(4, lot_id="lot_9"))
    _, person = merged(after(ACCOUNTS.initial, bought()), owing)
    assert balance(person) == (6, 0, 0)


def test_merging_a_guest_without_money_closes_it():
    guest, person = merged(after(ACCOUNTS.initial, grant(5)), ACCOUNTS.initial)
    assert guest.status.merged_into == "acct_person"
    assert person == ACCOUNTS.initial


def test_the_persons_paid_credits_make_up_for_the_guests_debt():
    owing = after(spent(after(ACCOUNTS.initial, bought()), 10), reverse(10))
    _, person = merged(owing, after(ACCOUNTS.initial, bought(6, "lot_6", "pay_6")))
    assert balance(person) == (0, 0, 4)


def test_a_lot_that_a_guest_used_up_is_owed_for_exactly_what_was_spent():
    guest = after(ACCOUNTS.initial, bought(), OpenRefund(refund_id="re_1", lot_id="lot_1", credits=4))
    guest = spent(after(guest, ResolveRefund(refund_id="re_1", outcome="sent")), 6)
    guest, person = merged(guest, ACCOUNTS.initial)
    assert guest.status.closed == ()
    assert balance(after(person, reverse(10))) == (0, 0, 6)


def test_a_reversal_finds_the_first_part_of_a_lot_though_the_rest_came_later():
    guest, person = merged(after(ACCOUNTS.initial, bought(), hold(4)), ACCOUNTS.initial)
    person = spent(person, 6)
    _, person = merged(after(guest, ReleaseHold(hold_id="h1")), person)
    assert balance(person) == (4, 0, 0)
    assert balance(after(person, reverse(10))) == (0, 0, 6)


def test_it_does_so_however_many_lots_the_person_has_used_up_meanwhile():
    guest, person = merged(after(ACCOUNTS.initial, bought(), hold(4)), ACCOUNTS.initial)
    person = spent(person, 6)
    for number in range(3 * CLOSED_LOTS_KEPT):
        person = spent(after(person, bought(1, f"lot_{number}x", f"pay_{number}x")), 1)
    _, person = merged(after(guest, ReleaseHold(hold_id="h1")), person)
    assert balance(after(person, reverse(10))) == (0, 0, 6)


def test_what_a_guest_spends_after_the_merge_is_owed_by_the_person():
    guest, person = merged(after(ACCOUNTS.initial, bought(), hold(10)), ACCOUNTS.initial)
    guest, person = merged(after(guest, CaptureHold(hold_id="h1")), person)
    assert balance(person) == (0, 0, 0)
    assert balance(after(person, reverse(10))) == (0, 0, 10)


def test_a_dispute_follows_its_guest_and_can_be_won_by_the_person():
    guest = after(spent(after(ACCOUNTS.initial, bought()), 7), reverse(10, cause="dispute"))
    guest, person = merged(guest, ACCOUNTS.initial)
    assert (balance(person), guest.status.disputes) == ((0, 0, 7), ())
    person = after(person, RestoreReversal(reversal_id="rev_1", lot_id="lot_back"))
    assert balance(person) == (3, 0, 0)
    assert person.status.disputes == ()


def test_a_dispute_that_began_after_the_merge_is_of_the_person():
    _, person = merged(spent(after(ACCOUNTS.initial, bought()), 7), ACCOUNTS.initial)
    person = after(person, reverse(10, cause="dispute"))
    assert balance(person) == (0, 0, 7)
    assert balance(after(person, RestoreReversal(reversal_id="rev_1", lot_id="lot_b"))) == (3, 0, 0)


def test_what_comes_late_follows_through_an_account_that_was_itself_merged():
    first, second = merged(after(ACCOUNTS.initial, bought(), hold(10)), ACCOUNTS.initial)
    out, arrived = decide_merge(second, ACCOUNTS.initial, "acct_person", "acct_third", NOON)
    second, third = apply(second, out), apply(ACCOUNTS.initial, arrived)
    _, second = merged(after(first, ReleaseHold(hold_id="h1")), second)
    assert balance(second) == (10, 0, 0)
    _, arrived = decide_merge(second, third, "acct_person", "acct_third", NOON)
    assert balance(apply(third, arrived)) == (10, 0, 0)


def test_a_reversal_is_refused_by_a_merged_guest_who_says_where_to_go():
    guest, _ = merged(spent(after(ACCOUNTS.initial, bought()), 7), ACCOUNTS.initial)
    with pytest.raises(AccountMerged) as refused:
        events_of(guest, reverse(10))
    assert refused.value.into == "acct_person"


@pytest.mark.parametrize(("ends", "spent_there"), [("captured", 4), ("released", 0), ("lapsed", 0)])
def test_what_a_guest_held_at_the_merge_is_conserved_and_never_owed_beyond_what_went_back(ends, spent_there):
    """Held then, it counts as spent until it is known; what lapses at the guest stays counted so."""
    late = NOON + 2 * HOUR
    bought_pass = grant(10, money=paid(100), source=Source.PASS, expires_at=NOON + HOUR)
    before = after(ACCOUNTS.initial, bought_pass, hold(4, deadline=late + HOUR))
    guest, person = merged(before, ACCOUNTS.initial)
    now = late if ends == "lapsed" else NOON
    how = CaptureHold(hold_id="h1") if ends == "captured" else ReleaseHold(hold_id="h1")
    ended = events_of(guest, how, now)
    lapsed = [event.expired for event in ended if isinstance(event, LotExpired)]
    assert [(portion.credits, portion.worth.net_minor) for portion in lapsed] == [(4, 40)] * (
        ends == "lapsed"
    )
    guest = apply(guest, ended)
    out, arrived = decide_merge(guest, person, "acct_guest", "acct_person", now)
    guest, person = apply(guest, out), apply(person, arrived)
    assert guest.lots == ()
    came = sum(lot.left for lot in person.lots)
    assert came + spent_there + sum(portion.credits for portion in lapsed) == 10
    worth = sum(lot.left_worth.net_minor for lot in person.lots)
    assert worth + spent_there * 10 + sum(portion.worth.net_minor for portion in lapsed) == 100
    taken_back = after(person, reverse(10), now=now)
    assert taken_back.debt == (0 if ends == "released" else 4)
    assert spent_there <= taken_back.debt <= 10


def test_nothing_but_a_new_debt_of_a_merged_guest_still_follows_it():
    guest, person = merged(ACCOUNTS.initial, ACCOUNTS.initial)
    guest = ACCOUNTS.evolve(guest, DebtIncurred(credits=3, cause="capture", reference="h1"))
    assert (guest.status.closed, guest.status.disputes) == ((), ())
    guest, person = merged(guest, person)
    assert (guest.debt, person.debt) == (0, 3)


def test_what_is_moved_says_from_whom_to_whom_and_why():
    guest = after(visitor(), hold(30))
    out, arrived = decide_merge(
        after(guest, CaptureHold(hold_id="h1"), reverse(10)),
        ACCOUNTS.initial,
        "acct_guest",
        "acct_person",
        NOON,
    )
    assert out == [
        CreditsMovedOut(to_account="acct_person", credits=0, slices=()),
        DebtForgiven(credits=10, actor="system:merge", reason="moved"),
    ]
    assert arrived[0] == DebtIncurred(credits=10, cause="merge", reference="acct_guest")
    assert isinstance(arrived[1], CreditsMovedIn)
    assert arrived[1].from_account == "acct_guest"
