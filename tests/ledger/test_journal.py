from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain import events as e
from ledger.domain import journal
from ledger.domain.account import ACCOUNTS
from ledger.domain.commands import CaptureHold, ExpireLots, RestoreReversal
from ledger.domain.consideration import Consideration, Slice, Worth
from ledger.domain.journal import CREDIT, postings
from ledger.domain.lots import ClosedLot, LotTerms
from ledger.domain.movements import movement
from ledger.domain.state import Account, Dispute
from ledger.money import ASSETS, Asset
from ledger.plans import Plan
from tests.ledger.samples import SAMPLES
from tests.ledger.test_reversals import reverse
from tests.ledger.world import HOUR, NOON, after, apply, events_of, grant, hold, paid

amounts = st.integers(0, 10**12)
codes = st.sampled_from(sorted(ASSETS))
rails = st.sampled_from(["card", "lightning", "liquid"])
texts = st.sampled_from(["a", "b", ""])
worths = st.builds(Worth, amounts, amounts, amounts, amounts, amounts)
slices = st.builds(Slice, texts, amounts, st.just("payment"), codes, rails, st.none() | worths, st.booleans())
considerations = st.builds(
    Consideration, asset=st.sampled_from(sorted(ASSETS.values())), worth=worths, rail=rails, payment_id=texts
)
terms = st.builds(
    LotTerms,
    lot_id=texts,
    source=st.just("payment"),
    credits=amounts,
    granted_at=st.just(NOON),
    priority=st.just(1),
    consideration=st.none() | considerations,
)
BY_TYPE: dict[Any, st.SearchStrategy[Any]] = {
    int: amounts,
    str: texts,
    datetime: st.just(datetime(2026, 1, 1, tzinfo=UTC)),
    datetime | None: st.none(),
    date: st.just(date(2026, 1, 1)),
    Worth: worths,
    Slice: slices,
    Slice | None: st.none() | slices,
    tuple[Slice, ...]: st.lists(slices, max_size=3).map(tuple),
    Consideration: considerations,
    Consideration | None: st.none() | considerations,
    LotTerms | None: st.none(),
    Plan | None: st.none(),
    tuple[LotTerms, ...]: st.lists(terms, max_size=2).map(tuple),
    tuple[e.RevokedHold, ...]: st.just(()),
    tuple[ClosedLot, ...]: st.just(()),
    tuple[Dispute, ...]: st.just(()),
}


def anything(kind: type[Any]) -> st.SearchStrategy[Any]:
    fields = {
        name: BY_TYPE[hint] for name, hint in get_type_hints(kind).items() if name in kind.__struct_fields__
    }
    for name in ("asset", "rail"):
        if name in fields:
            fields[name] = codes if name == "asset" else rails
    return st.builds(kind, **fields)


@given(st.sampled_from(sorted(e.EVENTS)).flatmap(lambda name: anything(e.EVENTS[name])))
def test_every_event_books_to_zero_in_every_asset_and_in_dollars(event):
    sums: Counter[Asset] = Counter()
    for posting in postings(event):
        sums[posting.asset] += posting.amount_minor
    assert not any(sums.values())
    assert sum(posting.usd_minor for posting in postings(event)) == 0


def test_every_kind_of_event_is_booked_or_said_to_move_nothing():
    """A new kind fails here until somebody has decided which."""
    kinds = set(e.EVENTS.values())
    assert journal._RULES.keys() | journal.MOVES_NOTHING == kinds
    assert not journal._RULES.keys() & journal.MOVES_NOTHING


@given(st.sampled_from(sorted(e.EVENTS)).flatmap(lambda name: anything(e.EVENTS[name])))
def test_what_is_said_to_move_nothing_changes_neither_credits_nor_money(event):
    if type(event) in journal.MOVES_NOTHING:
        assert movement(event) is None
        before = after(Account(), grant(10, money=MONEY), hold(4))
        then = ACCOUNTS.evolve(before, event)
        assert (then.lots, then.debt, then.held()) == (before.lots, before.debt, before.held())


@given(st.sampled_from(sorted(e.EVENTS)).flatmap(lambda name: anything(e.EVENTS[name])))
def test_the_journal_books_the_credits_that_the_statement_shows(event):
    sums: Counter[str] = Counter()
    for posting in postings(event):
        if posting.asset == CREDIT:
            sums[posting.account] += posting.amount_minor
    available, held = sums["Equity:Credits:Available"], sums["Equity:Credits:Held"]
    change = movement(event)
    posted, held_, debt = (0, 0, 0) if change is None else (change.posted, change.held, change.debt)
    if type(event) in AS_GIVEN:  # the others carry their credits twice; any two numbers are not an event
        assert (available + held, held, sums["Equity:Credits:Debt"]) == (posted, held_, debt)


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_each_account_and_asset_appears_once_per_event(name):
    keys = [(posting.account, posting.asset) for posting in postings(SAMPLES[name])]
    assert len(keys) == len(set(keys))


def books(events) -> dict[str, int]:
    sums: Counter[str] = Counter()
    for event in events:
        for posting in postings(event):
            if posting.asset != CREDIT:
                sums[posting.account] += posting.amount_minor
    return {account: amount for account, amount in sums.items() if amount}


def lived(*commands, now=NOON) -> tuple[Account, list]:
    account, events = Account(), []
    for command in commands:
        new = events_of(account, command, now)
        account, events = apply(account, new), events + new
    return account, events


MONEY = paid(1_200, tax=200, fee=30)
AS_GIVEN = {
    e.CreditsGranted,
    e.CreditsHeld,
    e.LotExpired,
    e.DebtIncurred,
    e.DebtForgiven,
    e.CreditsReversed,
    e.RefundOpened,
    e.RefundSent,
    e.RefundFailed,
    e.CreditsWithdrawn,
    e.CreditsMovedOut,
    e.CreditsMovedIn,
}


def test_sold_credits_are_deferred_revenue_without_tax():
    _, events = lived(grant(100, money=MONEY))
    assert books(events) == {
        "Liabilities:Clearing:Card": 1_200,
        "Liabilities:Deferred:Card": -1_000,
        "Liabilities:Tax:Card": -200,
    }


def test_used_credits_are_income_and_lapsed_ones_breakage():
    account, events = lived(
        grant(100, money=MONEY, expires_at=NOON + HOUR), hold(40), CaptureHold(hold_id="h1", credits=30)
    )
    events += events_of(account, ExpireLots(), NOON + HOUR)
    assert books(events) == {
        "Liabilities:Clearing:Card": 1_200,
        "Liabilities:Tax:Card": -200,
        "Income:Images:Card": -300,
        "Income:Breakage:Card": -700,
    }


def test_a_hold_books_no_money():
    _, events = lived(grant(100, money=MONEY), hold(40))
    assert books(events) == books(events[:1])


def test_a_reversal_takes_back_what_was_deferred_and_loses_what_was_used():
    _, events = lived(grant(10, money=paid(100)), hold(4), CaptureHold(hold_id="h1"), reverse(10))
    assert books(events) == {"Income:Images:Card": -40, "Expenses:Reversals:Card": 40}


def test_a_dispute_won_makes_up_for_the_loss():
    account, events = lived(
        grant(10, money=paid(100)), hold(4), CaptureHold(hold_id="h1"), reverse(10, cause="dispute")
    )
    account = after(account)
    events += events_of(account, RestoreReversal(reversal_id="rev_1", lot_id="lot_back"))
    assert books(events) == {
        "Liabilities:Clearing:Card": 100,
        "Liabilities:Deferred:Card": -60,
        "Income:Images:Card": -40,
        "Expenses:Reversals:Card": 40,
        "Income:Recovered:Card": -40,
    }
