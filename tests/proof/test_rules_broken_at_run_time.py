"""Rules broken on purpose while the sequencer runs: what they would have done is not kept, and harms nobody else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from ledger.domain import account as account_rules
from ledger.domain import commands as c
from ledger.domain import events as e
from ledger.domain import holding, holds, lots
from ledger.domain.applying import act_in
from ledger.domain.consideration import Slice, Worth
from ledger.domain.state import Account, with_lots
from ledger.errors import InvariantViolated
from ledger.identifiers import CommandKey
from ledger.log.model import Receipt, Transaction
from tests.ledger.world import paid
from tests.proof.harness import EPOCH, Harness

BAD = "h_bad"
"""The hold that the broken rules deal with; all others are treated as ever."""
Patch = pytest.MonkeyPatch
replace = msgspec.structs.replace


def after_bad(patch: Patch, kind: type[Any], spoil: Callable[[Account, Account, Any], Account]) -> None:
    """Spoil what an event of the bad hold leaves."""
    real = account_rules._EVOLVERS[kind]

    def evolve(account: Account, event: Any) -> Account:
        then = real(account, event)
        return spoil(account, then, event) if event.hold_id == BAD else then

    patch.setitem(account_rules._EVOLVERS, kind, evolve)


def first_lot(account: Account, **changes: Any) -> Account:
    first, *others = account.lots
    return with_lots(account, (replace(first, **changes), *others))


def a_hold_takes_twice(patch: Patch) -> None:
    def twice(_: Account, then: Account, event: e.CreditsHeld) -> Account:
        return first_lot(then, left=then.lots[0].left - event.credits)

    after_bad(patch, e.CreditsHeld, twice)


def a_hold_is_forgotten(patch: Patch) -> None:
    after_bad(patch, e.CreditsHeld, lambda before, then, _: replace(then, holds=before.holds))


def a_hold_closes_another_one(patch: Patch) -> None:
    after_bad(
        patch, e.CreditsHeld, lambda _, then, __: replace(then, holds=holds.remove(then.holds, "h_open"))
    )


def a_hold_takes_more_than_there_is(patch: Patch) -> None:
    def decide(account: Account, command: c.HoldCredits, now: Any) -> list[Any]:
        [event] = real(account, replace(command, credits=1), now)
        if command.hold_id != BAD:
            return [event]
        many = account.lots[0].left + 1
        return [replace(event, credits=many, slices=(replace(event.slices[0], credits=many),))]

    real = holding.decide_hold
    patch.setitem(account_rules._DECIDERS, c.HoldCredits, decide)


def a_hold_takes_money_from_nowhere(patch: Patch) -> None:
    real = lots.slice_of

    def rich(lot: Any, amount: int) -> Slice:
        portion = real(lot, amount)
        return replace(portion, worth=(portion.worth or Worth()) - Worth(1_000))

    patch.setattr(lots, "slice_of", rich)


def a_capture_leaves_the_hold_open(patch: Patch) -> None:
    after_bad(patch, e.HoldCaptured, lambda before, then, _: replace(then, holds=before.holds))


def a_capture_gives_the_credits_back(patch: Patch) -> None:
    def back(before: Account, then: Account, event: e.HoldCaptured) -> Account:
        first = then.lots[0]
        return first_lot(then, left=first.left + event.credits, spent=first.spent - event.credits)

    after_bad(patch, e.HoldCaptured, back)


def a_capture_makes_a_debt(patch: Patch) -> None:
    after_bad(patch, e.HoldCaptured, lambda _, then, __: replace(then, debt=then.debt + 1))


def a_part_captured_loses_money(patch: Patch) -> None:
    real = holding.cut_all

    def careless(slices: tuple[Slice, ...], amount: int) -> Any:
        head, tail = real(slices, amount)
        return tuple(replace(p, worth=replace(p.worth or Worth(), fee_minor=0)) for p in head), tail

    patch.setattr(holding, "cut_all", careless)


def a_release_gives_nothing_back(patch: Patch) -> None:
    after_bad(patch, e.HoldReleased, lambda before, then, _: with_lots(then, before.lots))


def a_release_gives_back_too_much(patch: Patch) -> None:
    after_bad(patch, e.HoldReleased, lambda _, then, __: first_lot(then, left=then.lots[0].left + 1))


HOLD = c.HoldCredits(hold_id=BAD, job_id="job_1", credits=3, deadline=EPOCH + timedelta(days=9_000))
CAPTURE, PART = c.CaptureHold(hold_id=BAD), c.CaptureHold(hold_id=BAD, credits=2)
RELEASE = c.ReleaseHold(hold_id=BAD)

BROKEN: list[tuple[Callable[[Patch], None], Sequence[c.Command], c.Command]] = [
    (a_hold_takes_twice, [], HOLD),
    (a_hold_is_forgotten, [], HOLD),
    (a_hold_closes_another_one, [], HOLD),
    (a_hold_takes_more_than_there_is, [], HOLD),
    (a_hold_takes_money_from_nowhere, [], HOLD),
    (a_capture_leaves_the_hold_open, [HOLD], CAPTURE),
    (a_capture_gives_the_credits_back, [HOLD], CAPTURE),
    (a_capture_makes_a_debt, [HOLD], CAPTURE),
    (a_part_captured_loses_money, [HOLD], PART),
    (a_release_gives_nothing_back, [HOLD], RELEASE),
    (a_release_gives_back_too_much, [HOLD], RELEASE),
]


def transaction(key: str, account: str, command: c.Command) -> Transaction:
    def decide(uow: Any) -> int:
        return len(act_in(uow, account, command))

    return Transaction(
        key=CommandKey(key), actor="system:test", body=[key], streams=(account,), decide=decide
    )


@pytest.mark.parametrize(("broken", "first", "bad"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
def test_what_a_broken_rule_decides_is_not_kept_and_its_neighbours_are(
    broken: Callable[[Patch], None], first: Sequence[c.Command], bad: c.Command, harness: Harness
) -> None:
    harness.new_life()
    money = paid(1_000, fee=300)
    before = [c.GrantCredits(lot_id="lot_1", credits=100, consideration=money)]
    before += [replace(HOLD, hold_id="h_open"), *first]
    for step, command in enumerate(before):
        [done] = harness.submit(0, [transaction(f"before{step}", "acct_1", command)])
        assert isinstance(done, Receipt)
    batch = [
        transaction("one", "acct_1", c.GrantCredits(lot_id="lot_2", credits=5)),
        transaction("bad", "acct_1", bad),
        transaction("two", "acct_2", c.GrantCredits(lot_id="lot_3", credits=5)),
        transaction("three", "acct_1", c.CaptureHold(hold_id="h_open")),
    ]
    with pytest.MonkeyPatch.context() as patch:
        broken(patch)
        answers = harness.submit(0, batch)
    assert [type(answer) for answer in answers] == [Receipt, InvariantViolated, Receipt, Receipt]
    assert harness.processes[0].sequencer.violations == 1
    assert "bad" not in {outcome.key for outcome in harness.news()}
    assert harness.verified().ok
    [repaired] = harness.submit(0, [batch[1]])
    assert isinstance(repaired, Receipt)
    assert not repaired.replayed
    assert harness.verified().ok
