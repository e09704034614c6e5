"""When time will next do something to an account."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import msgspec

from ledger.domain.account import ACCOUNTS
from ledger.domain.commands import ExpireHold
from ledger.domain.due import due_after, next_due
from ledger.domain.events import CreditsMovedIn, EarningScheduled
from tests.ledger.samples import MONEY, SAMPLES, TERMS
from tests.ledger.world import DAY, DEADLINE, HOUR, NOON, after, grant, hold

replace = msgspec.structs.replace
SCHEDULED = EarningScheduled(
    schedule_id="lot_5", consideration=MONEY, first_day=date(2026, 11, 22), days=2, plan="unlimited"
)


def test_a_grant_falls_due_when_it_expires() -> None:
    granted = SAMPLES["ledger.credits_granted.v1"]
    assert due_after(granted) == granted.expires_at
    assert due_after(replace(granted, expires_at=None)) is None


def test_lots_that_moved_in_fall_due_when_the_first_of_them_expires() -> None:
    lots = tuple(replace(TERMS, expires_at=expires_at) for expires_at in (None, NOON + DAY, NOON + HOUR))
    moved = CreditsMovedIn(from_account="acct_1", credits=30, lots=lots)
    assert due_after(moved) == NOON + HOUR
    assert due_after(replace(moved, lots=lots[:1])) is None
    assert due_after(replace(moved, lots=())) is None


def test_money_earned_by_the_day_falls_due_when_its_first_day_ends() -> None:
    assert due_after(SCHEDULED) == datetime(2026, 11, 23, tzinfo=UTC)


def test_other_events_make_nothing_due() -> None:
    dated = {"ledger.credits_granted.v1", "ledger.credits_moved_in.v1", "ledger.earning_scheduled.v1"}
    assert [name for name, event in SAMPLES.items() if due_after(event) is not None] == sorted(dated)


def test_an_account_is_due_at_the_first_of_its_expiries_and_days() -> None:
    account = after(ACCOUNTS.initial, grant(5, "lot_1", expires_at=NOON + DAY), grant(5, "lot_2"))
    assert next_due(account, NOON) == NOON + DAY
    earlier = after(account, grant(5, "lot_3", expires_at=NOON + HOUR))
    assert next_due(earlier, NOON) == NOON + HOUR
    assert next_due(ACCOUNTS.evolve(account, SCHEDULED), NOON) == datetime(2026, 11, 23, tzinfo=UTC)
    assert next_due(ACCOUNTS.initial, NOON) is None


def test_what_is_held_falls_due_with_its_lot_and_then_when_its_hold_is_resolved() -> None:
    lapses_at = NOON + timedelta(minutes=6)
    held = after(ACCOUNTS.initial, grant(5, expires_at=lapses_at), hold(5))
    assert next_due(held, NOON) == lapses_at
    assert next_due(held, lapses_at) is None
    assert next_due(after(held, ExpireHold(hold_id="h1"), now=DEADLINE), DEADLINE) == lapses_at
