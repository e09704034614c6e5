from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ledger.domain.account import ACCOUNTS, decide, evolve
from ledger.domain.commands import CaptureHold, Command, GrantCredits, HoldCredits, ReleaseHold
from ledger.domain.refusals import HoldNotOpen, HoldPastDeadline, InsufficientCredits
from ledger.domain.state import Account

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
LATER = NOON + timedelta(minutes=5)


def after(account: Account, *commands: Command, now: datetime = NOON) -> Account:
    for command in commands:
        for event in decide(account, command, now):
            account = evolve(account, event)
    return account


def hold(hold_id: str, amount: int) -> HoldCredits:
    return HoldCredits(hold_id=hold_id, job_id=f"job_{hold_id}", credits=amount, deadline=LATER)


def funded(amount: int) -> Account:
    return after(ACCOUNTS.initial, GrantCredits(lot_id="lot_1", credits=amount))


def test_a_hold_reserves_and_a_capture_spends() -> None:
    held = after(funded(10), hold("h1", 3))
    assert (held.posted(NOON), held.held(), held.available(NOON)) == (10, 3, 7)
    spent = after(held, CaptureHold(hold_id="h1"))
    assert (spent.posted(NOON), spent.held(), spent.available(NOON)) == (7, 0, 7)


def test_a_released_hold_costs_nothing() -> None:
    account = funded(10)
    assert after(account, hold("h1", 3), ReleaseHold(hold_id="h1")) == account


def test_a_hold_beyond_what_is_available_is_refused() -> None:
    with pytest.raises(InsufficientCredits) as refused:
        decide(after(funded(10), hold("h1", 8)), hold("h2", 3), NOON)
    assert refused.value.details == {"wanted": 3, "available": 2}


def test_a_late_capture_is_refused() -> None:
    with pytest.raises(HoldPastDeadline):
        decide(after(funded(10), hold("h1", 3)), CaptureHold(hold_id="h1"), LATER)


def test_a_second_resolution_is_refused() -> None:
    account = after(funded(10), hold("h1", 3), CaptureHold(hold_id="h1"))
    for again in (CaptureHold(hold_id="h1"), ReleaseHold(hold_id="h1")):
        with pytest.raises(HoldNotOpen):
            decide(account, again, NOON)
