"""The run-time check says what `verify` would say, of any state that differs by one event and one fault."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from ledger.domain import holds
from ledger.domain.account import ACCOUNTS, decide, evolve
from ledger.domain.commands import (
    AdjustCredits,
    CaptureHold,
    ExpireHold,
    GrantCredits,
    OpenRefund,
    ReleaseHold,
    ReverseCredits,
)
from ledger.domain.consideration import Slice, Worth
from ledger.domain.invariants import check_step
from ledger.domain.lots import Source
from ledger.domain.state import Account, with_lots, with_status
from ledger.domain.touched import check_touched
from ledger.log.model import Event
from tests.ledger.world import DEADLINE, NOON, after, grant, hold, paid

replace = msgspec.structs.replace


def busy(open_holds: int) -> Account:
    """Lots of three kinds, one of them used up soon, and holds that are open."""
    account = after(
        ACCOUNTS.initial,
        grant(30, "lot_paid", money=paid(1_000, tax=90, fee=31)),
        grant(open_holds * 2 + 5, "lot_gift", source=Source.PROMOTION),
        grant(7, "lot_other", money=paid(333, fee=10, payment_id="pay_2")),
        OpenRefund(refund_id="r1", lot_id="lot_other"),
    )
    account = after(account, *(hold(2, f"h{number}x{number % 10}") for number in range(open_holds)))
    return after(account, hold(2, "h_paid", only_lot="lot_paid"))


COMMANDS: list[Any] = [
    hold(1, "new"),
    hold(9, "new"),
    hold(33, "new"),
    CaptureHold(hold_id="h0x0"),
    CaptureHold(hold_id="h0x0", credits=1),
    CaptureHold(hold_id="h0x0", credits=3, overage_limit=5),
    ReleaseHold(hold_id="h0x0"),
    ReleaseHold(hold_id="h_paid"),
    ExpireHold(hold_id="h0x0"),
    CaptureHold(hold_id="h_paid"),
    GrantCredits(lot_id="lot_new", credits=5, consideration=paid(50)),
    GrantCredits(lot_id="lot_new", credits=5, source=Source.PROMOTION),
    AdjustCredits(adjustment_id="a1", credits=3, actor="operator:1", reason="a gift", lot_id="lot_a"),
    ReverseCredits(
        reversal_id="d1",
        lot_id="lot_paid",
        credits=30,
        cause="dispute",
        asset="USD",
        rail="card",
        payment_id="pay_1",
        worth=paid(1_000, tax=90, fee=31).worth,
    ),
]


def a_lot(chance: random.Random, account: Account) -> Account:
    if not account.lots:
        return account
    place = chance.randrange(len(account.lots))
    lot = account.lots[place]
    field = chance.choice(["left", "held", "spent", "withdrawn", "reversed", "out"])
    by = chance.choice([-40, -1, 1, 40])
    changed = lot.out + Worth(by) if field == "out" else getattr(lot, field) + by
    return with_lots(
        account, (*account.lots[:place], replace(lot, **{field: changed}), *account.lots[place + 1 :])
    )


def a_lot_is_lost(chance: random.Random, account: Account) -> Account:
    place = chance.randrange(len(account.lots))
    return with_lots(account, (*account.lots[:place], *account.lots[place + 1 :]))


def a_hold(chance: random.Random, account: Account) -> Account:
    open_ = list(holds.each(account.holds))
    if not open_:
        return account
    one = chance.choice(open_)
    if chance.random() < 0.5:
        return replace(account, holds=holds.remove(account.holds, one.hold_id))
    return replace(account, holds=holds.put(account.holds, replace(one, credits=one.credits + 1)))


def the_debt(chance: random.Random, account: Account) -> Account:
    return replace(account, debt=account.debt + chance.choice([-2, 1]))


def a_refund_is_lost(_: random.Random, account: Account) -> Account:
    return with_status(account, replace(account.status, refunds=()))


FAULTS: list[Callable[[random.Random, Account], Account]] = [
    a_lot,
    a_lot_is_lost,
    a_hold,
    the_debt,
    a_refund_is_lost,
]


def steps(open_holds: int, command: Any) -> list[tuple[Account, Event, Account]]:
    account = busy(open_holds)
    now = DEADLINE if isinstance(command, ExpireHold) else NOON
    found = []
    for event in decide(account, command, now):
        then = evolve(account, event)
        found.append((account, event, then))
        account = then
    return found


@pytest.mark.parametrize("open_holds", [1, 3, 8, 9, 40])
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
def test_what_is_right_passes_and_whatever_is_wrong_is_found(open_holds: int, command: Any) -> None:
    chance = random.Random(open_holds)
    for before, event, then in steps(open_holds, command):
        assert check_touched(before, event, then) is None
        for fault in FAULTS * 12:
            spoilt = fault(chance, then)
            found = check_touched(before, event, spoilt)
            assert (found is not None) == (check_step(before, event, spoilt) != []), fault


PARTS = ("net_minor", "tax_minor", "fee_minor", "usd_minor", "tax_usd_minor")


def lies(event: Any) -> list[Event]:
    """The event with one thing untrue in it, which whoever folds it takes for a fact."""
    untrue = (
        [replace(event, credits=event.credits + by) for by in (-1, 1)] if hasattr(event, "credits") else []
    )
    if hasattr(event, "hold_id"):
        untrue.append(replace(event, hold_id="h_paid" if event.hold_id != "h_paid" else "h0x0"))
        untrue.append(replace(event, hold_id="h_nobody"))
    if getattr(event, "consideration", None) is not None:
        worth = event.consideration.worth
        for part in PARTS:
            lower = replace(worth, **{part: getattr(worth, part) - 5_000})
            untrue.append(replace(event, consideration=replace(event.consideration, worth=lower)))
    for name in ("slices", "returned", "revoked", "overage"):
        portions = getattr(event, name, None)
        if portions:
            first, *others = portions
            untrue += [replace(event, **{name: (portion, *others)}) for portion in lies_about(first)]
            untrue.append(replace(event, **{name: (first, *portions)}))
        elif portions is not None:
            untrue.append(replace(event, **{name: (Slice("lot_gift", 1, "promotion"),)}))
    return untrue


def lies_about(portion: Slice) -> list[Slice]:
    worth = portion.worth or Worth()
    return [
        replace(portion, credits=portion.credits + 1),
        replace(portion, credits=-portion.credits),
        replace(portion, lot_id="lot_other"),
        replace(portion, revoked=True),
        replace(portion, worth=None),
        *(
            replace(portion, worth=replace(worth, **{part: getattr(worth, part) + by}))
            for part in PARTS
            for by in (-5_000, -1, 1, 5_000)
        ),
    ]


@pytest.mark.parametrize("open_holds", [1, 9])
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
def test_an_untrue_event_that_is_folded_as_it_stands_is_found(open_holds: int, command: Any) -> None:
    found = 0
    for before, event, _ in steps(open_holds, command):
        for lie in lies(event):
            then = evolve(before, lie)
            wrong = check_step(before, lie, then)
            assert (check_touched(before, lie, then) is not None) == (wrong != []), lie
            found += wrong != []
    assert found > 3 or isinstance(command, GrantCredits | AdjustCredits | ReverseCredits)


def test_a_slice_with_more_worth_than_its_lot_still_carries_is_found() -> None:
    before = after(ACCOUNTS.initial, grant(30, "lot_paid", money=paid(1_000)))
    (event,) = decide(before, hold(1), NOON)
    for part in ("net_minor", "usd_minor", "tax_minor"):
        lie = replace(event, slices=(replace(event.slices[0], worth=Worth(**{part: 1_001})),))
        violation = check_touched(before, lie, evolve(before, lie))
        assert violation is not None
        assert "more than its consideration" in violation.why[0]


def test_a_return_with_more_worth_than_had_gone_out_is_found() -> None:
    before = after(ACCOUNTS.initial, grant(30, "lot_paid", money=paid(1_000)), hold(1))
    (event,) = decide(before, ReleaseHold(hold_id="h1"), NOON)
    more = replace(event.returned[0], worth=Worth(500, 0, 0, 500, 0))
    held = next(holds.each(before.holds))
    spoilt = replace(before, holds=holds.put((), replace(held, slices=(more,))))
    lie = replace(event, returned=(more,))
    assert check_touched(spoilt, lie, evolve(spoilt, lie)) is not None


def test_a_violation_names_what_was_touched_and_nothing_else() -> None:
    [(before, event, then)] = steps(9, ReleaseHold(hold_id="h0x0"))
    gift = next(lot for lot in then.lots if lot.terms.lot_id == "lot_gift")
    spoilt = with_lots(then, tuple(replace(lot, left=0) if lot is gift else lot for lot in then.lots))
    violation = check_touched(before, event, spoilt)
    assert violation is not None
    assert [lot.terms.lot_id for lot in violation.before.lots] == ["lot_gift"]
    assert [lot.left for lot in violation.after.lots] == [0]
    assert [hold.hold_id for hold in violation.before.holds] == ["h0x0"]
    assert violation.after.holds == []
    assert any("lot_gift was granted" in why for why in violation.why)


@pytest.mark.parametrize("many", [1, 8, 9, 100])
def test_holds_can_be_opened_found_and_closed_in_any_number(many: int) -> None:
    account = after(ACCOUNTS.initial, grant(many))
    account = after(account, *(hold(1, f"hold_{n:x}") for n in range(many)))
    assert {h.hold_id for h in holds.each(account.holds)} == {f"hold_{n:x}" for n in range(many)}
    order = list(range(many))
    random.Random(many).shuffle(order)
    for number in order:
        assert holds.get(account.holds, f"hold_{number:x}") is not None
        account = after(account, ReleaseHold(hold_id=f"hold_{number:x}"))
    assert account.holds == ()
