"""Each thing that the run-time check is for, broken by itself, in the events that have a short way and a long one.

`test_touched` compares the check with `verify` on states drawn at random; here each breach has a name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from ledger.domain import holds
from ledger.domain.account import ACCOUNTS, decide, evolve
from ledger.domain.commands import CaptureHold, ExpireHold, GrantCredits, ReleaseHold
from ledger.domain.consideration import Worth
from ledger.domain.lots import Lot, Source
from ledger.domain.state import Account, with_lots
from ledger.domain.touched import check_touched
from ledger.log.model import Event
from tests.ledger.world import DEADLINE, NOON, after, grant, hold, paid

replace = msgspec.structs.replace
MONEY = {
    "a gift": None,
    "bought": paid(1_000, fee=31),
    "bought with tax": paid(1_000, tax=90, fee=31),
}
COMMANDS: dict[str, Any] = {
    "a hold": hold(2, "new"),
    "a capture": CaptureHold(hold_id="h0"),
    "a release": ReleaseHold(hold_id="h0"),
    "an expiry": ExpireHold(hold_id="h0"),
}
PARTS = ("net_minor", "tax_minor", "fee_minor", "usd_minor", "tax_usd_minor")


def steps(what: str, money: str, others: int) -> tuple[Account, Event, Account]:
    """One event on the lot used first, with another lot beside it and so many other holds."""
    account = after(
        ACCOUNTS.initial,
        grant(
            50, "lot_first", money=MONEY[money], source=Source.PAYMENT if MONEY[money] else Source.PROMOTION
        ),
        grant(50, "lot_later", money=paid(700, fee=20, payment_id="pay_2"), priority=90),
        *(hold(2, f"h{number}") for number in range(others + (what != "a hold"))),
    )
    command = COMMANDS[what]
    now = DEADLINE if isinstance(command, ExpireHold) else NOON
    (event,) = decide(account, command, now)
    return account, event, evolve(account, event)


def lot(place: int, **by: int) -> Callable[[Account], Account]:
    """Numbers of a lot that are off by so much."""

    def spoil(account: Account) -> Account:
        changed = replace(
            account.lots[place], **{name: getattr(account.lots[place], name) + n for name, n in by.items()}
        )
        return with_lots(account, (*account.lots[:place], changed, *account.lots[place + 1 :]))

    return spoil


def out(place: int, part: str, by: int) -> Callable[[Account], Account]:
    """Worth that has gone out of a lot, off by so much in one part."""

    def spoil(account: Account) -> Account:
        mine: Lot = account.lots[place]
        changed = replace(mine, out=replace(mine.out, **{part: getattr(mine.out, part) + by}))
        return with_lots(account, (*account.lots[:place], changed, *account.lots[place + 1 :]))

    return spoil


def terms(**changes: Any) -> Callable[[Account], Account]:
    def spoil(account: Account) -> Account:
        first, *others = account.lots
        return with_lots(account, (replace(first, terms=replace(first.terms, **changes)), *others))

    return spoil


def a_lot_more(account: Account) -> Account:
    return with_lots(account, (*account.lots, account.lots[0]))


def no_lots(account: Account) -> Account:
    return with_lots(account, ())


def another_hold(account: Account) -> Account:
    portion = replace(decide(account, hold(1, "never"), NOON)[0].slices[0])
    held = holds.Hold("never", "job_1", 1, DEADLINE, (portion,))
    return replace(account, holds=holds.put(account.holds, held))


BREACHES: dict[str, Callable[[Account], Account]] = {
    "credits appear": lot(0, left=1),
    "credits vanish": lot(0, left=-1),
    "credits vanish that were held": lot(0, held=-1),
    "credits are held by nobody": lot(0, left=-1, held=1),
    "held credits come free": lot(0, left=1, held=-1),
    "credits are spent by nobody": lot(0, left=-1, spent=1),
    "spent credits come back": lot(0, left=1, spent=-1),
    "credits are withdrawn by nobody": lot(0, left=-1, withdrawn=1),
    "more is left than was granted": lot(0, left=100),
    "less than nothing is left": lot(0, left=-100),
    "less than nothing is held": lot(0, held=-100),
    "spent credits are taken back by nobody": lot(0, reversed=99),
    "another lot changes, too": lot(1, left=-1),
    "another lot's held credits change, too": lot(1, held=1),
    "another lot's money changes, too": out(1, "net_minor", 1),
    "a lot appears": a_lot_more,
    "all lots vanish": no_lots,
    "a hold appears": another_hold,
    "all holds vanish, or one that never was": lambda account: replace(
        account, holds=() if account.holds else another_hold(account).holds
    ),
    "a debt appears": lambda account: replace(account, debt=account.debt + 1),
    "a debt below nothing": lambda account: replace(account, debt=-1),
    "a lot grows": terms(credits=51),
    **{f"{part} appears": out(0, part, 1) for part in PARTS},
    **{f"{part} vanishes": out(0, part, -1) for part in PARTS},
    **{f"more {part} than was paid": out(0, part, 5_000) for part in PARTS},
}


@pytest.mark.parametrize("others", [0, 3, 40])
@pytest.mark.parametrize("money", MONEY)
@pytest.mark.parametrize("what", COMMANDS)
def test_each_breach_is_found_in_each_event(what: str, money: str, others: int) -> None:
    before, event, then = steps(what, money, others)
    assert check_touched(before, event, then) is None
    missed = [name for name, spoil in BREACHES.items() if check_touched(before, event, spoil(then)) is None]
    assert missed == []


@pytest.mark.parametrize("money", MONEY)
@pytest.mark.parametrize("part", PARTS)
def test_a_hold_whose_slice_carries_what_its_lot_does_not_have_is_found(part: str, money: str) -> None:
    """The event and the state agree; it is the money that is not there, or less than nothing."""
    before, event, _ = steps("a hold", money, 0)
    assert isinstance(event, msgspec.Struct)
    (portion,) = event.slices
    for worth in (Worth(**{part: 5_000}), Worth(**{part: -5_000})):
        lie = replace(event, slices=(replace(portion, worth=worth),))
        assert check_touched(before, lie, evolve(before, lie)) is not None


@pytest.mark.parametrize("money", [None, paid(500, tax=20, fee=3)])
@pytest.mark.parametrize(
    "breach",
    {
        "fewer": lambda lot: replace(lot, left=lot.left - 1),
        "more": lambda lot: replace(lot, left=lot.left + 1),
        "spent already": lambda lot: replace(lot, left=lot.left - 1, spent=1),
        "without money": lambda lot: replace(lot, out=Worth(1)),
        "other terms": lambda lot: replace(lot, terms=replace(lot.terms, credits=6)),
    }.values(),
)
def test_a_grant_of_something_else_than_it_says_is_found(money: Any, breach: Callable[[Lot], Lot]) -> None:
    before = after(ACCOUNTS.initial, grant(50, "lot_first"))
    command = GrantCredits(
        lot_id="lot_new", credits=5, source=Source.PAYMENT if money else Source.PROMOTION, consideration=money
    )
    (event,) = decide(before, command, NOON)
    then = evolve(before, event)
    spoilt = tuple(breach(one) if one.terms.lot_id == "lot_new" else one for one in then.lots)
    assert check_touched(before, event, then) is None
    assert check_touched(before, event, with_lots(then, spoilt)) is not None
