"""Short words for accounts in tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from ledger.domain.account import ACCOUNTS, decide, evolve
from ledger.domain.commands import Command, GrantCredits, HoldCredits
from ledger.domain.consideration import Consideration, Worth
from ledger.domain.invariants import check_step
from ledger.domain.lots import Source
from ledger.domain.state import Account
from ledger.domain.touched import check_touched
from ledger.log.model import Event
from ledger.money import USD

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
DEADLINE = NOON + 5 * MINUTE


def events_of(account: Account, command: Command, now: datetime = NOON) -> list[Event]:
    return decide(account, command, now)


def apply(account: Account, events: list[Event]) -> Account:
    """Fold events and check every invariant on the way."""
    for event in events:
        then = evolve(account, event)
        assert check_step(account, event, then) == []
        assert check_touched(account, event, then) is None
        account = then
    return account


def after(account: Account, *commands: Command, now: datetime = NOON) -> Account:
    for command in commands:
        account = apply(account, decide(account, command, now))
    return account


def paid(
    minor: int, *, tax: int = 0, fee: int = 0, payment_id: str = "pay_1", rail: str = "card"
) -> Consideration:
    worth = Worth(minor - tax - fee, tax, fee, minor - tax, tax)
    return Consideration(asset=USD, worth=worth, rail=rail, payment_id=payment_id)


def grant(
    amount: int,
    lot_id: str = "lot_1",
    *,
    money: Consideration | None = None,
    source: Source = Source.PAYMENT,
    expires_at: datetime | None = None,
    priority: int | None = None,
) -> GrantCredits:
    return GrantCredits(
        lot_id=lot_id,
        credits=amount,
        source=source,
        expires_at=expires_at,
        priority=priority,
        consideration=money,
    )


def hold(
    amount: int, hold_id: str = "h1", *, deadline: datetime = DEADLINE, only_lot: str | None = None
) -> HoldCredits:
    return HoldCredits(
        hold_id=hold_id, job_id=f"job_{hold_id}", credits=amount, deadline=deadline, only_lot=only_lot
    )


def funded(amount: int = 10, money: Consideration | None = None) -> Account:
    return after(ACCOUNTS.initial, grant(amount, money=money))


def balance(account: Account, now: datetime = NOON) -> tuple[int, int, int]:
    """(posted, held, debt)."""
    return account.posted(now), account.held(), account.debt
