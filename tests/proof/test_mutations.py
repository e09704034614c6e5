"""Rules broken on purpose: the machine that compares lives with the model finds each of them.

Takes minutes, so that it runs in `make test-slow` only.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from ledger.domain import account as account_rules
from ledger.domain import applying, holding, lots, merging, periods, reversals, revoking, subscriptions
from ledger.domain import journal as books
from ledger.domain.commands import CaptureHold, ChangePlan, HoldCredits, ReverseCredits
from ledger.domain.state import with_status
from ledger.log import cache, deciding
from tests.proof.harness import Harness
from tests.proof.walk import live

LIVES = 40
Patch = pytest.MonkeyPatch


def a_late_capture_is_allowed(patch: Patch) -> None:
    real = holding.decide_capture
    past = datetime.min.replace(tzinfo=UTC)

    def early(account: Any, command: Any, now: datetime) -> Any:
        return real(account, command, past)

    patch.setitem(account_rules._DECIDERS, CaptureHold, early)


def spent_credits_are_not_owed(patch: Patch) -> None:
    patch.setattr(reversals.lots_, "owable", lambda _: 0)


def what_a_guest_spent_is_forgotten(patch: Patch) -> None:
    real = merging._terms_of_rest
    patch.setattr(
        merging, "_terms_of_rest", lambda *args: msgspec.structs.replace(real(*args), spent_before=0)
    )


def an_upgrade_grants_the_whole_difference(patch: Patch) -> None:
    patch.setattr(periods, "share_of_time_floor", lambda amount, *_: amount)


def a_debt_does_not_stop_a_hold(patch: Patch) -> None:
    real = holding.decide_hold

    def generous(account: Any, command: Any, now: datetime) -> Any:
        return real(msgspec.structs.replace(account, debt=0), command, now)

    patch.setitem(account_rules._DECIDERS, HoldCredits, generous)


def lots_are_used_newest_first(patch: Patch) -> None:
    patch.setattr(
        lots,
        "_burn_down",
        lambda lot: (lot.terms.priority, -lot.terms.granted_at.timestamp(), lot.terms.lot_id),
    )


def a_released_slice_of_a_lapsed_lot_comes_back(patch: Patch) -> None:
    patch.setattr(holding, "lapses", lambda *_: [])


def another_body_gets_the_first_answer(patch: Patch) -> None:
    real = deciding.replay
    patch.setattr(deciding, "replay", lambda known, _: real(known, bytes(known.body_digest)))


def a_part_captured_loses_a_unit_of_money(patch: Patch) -> None:
    real = holding.cut_all

    def careless(slices: Any, amount: int) -> Any:
        head, tail = real(slices, amount)
        return tuple(
            msgspec.structs.replace(p, worth=msgspec.structs.replace(p.worth, fee_minor=0)) if p.worth else p
            for p in head
        ), tail

    patch.setattr(holding, "cut_all", careless)


def the_journal_forgets_breakage(patch: Patch) -> None:
    patch.setitem(books._RULES, books.e.LotExpired, lambda *_: None)


def a_snapshot_is_of_the_state_before(patch: Patch) -> None:
    real = cache.StateCache.due_snapshots

    def late(self: Any, changed: Any) -> Any:
        return [s._replace(version=s.version + 1) for s in real(self, changed)]

    patch.setattr(cache.StateCache, "due_snapshots", late)


def what_the_other_process_appended_is_not_read(patch: Patch) -> None:
    def deaf(self: Any, rows: Any, position: int) -> None:
        for row in rows:
            known = self._cached.get(row.stream)
            if known is not None:
                self._cached[row.stream] = known._replace(version=row.version)
        self.position = position

    patch.setattr(cache.StateCache, "catch_up", deaf)


def credits_of_another_period_count_as_used(patch: Patch) -> None:
    patch.setattr(
        holding,
        "_of_this_period",
        lambda _, slices: sum(p.credits for p in slices if p.source in lots.CAPPED),
    )


def the_money_of_a_lapsed_lot_stays_deferred(patch: Patch) -> None:
    patch.setitem(
        books._RULES,
        books.e.LotExpired,
        lambda entry, event: entry.credits("Available", "Expired", event.expired.credits),
    )


def upgrades_add_up_beyond_the_larger_plan(patch: Patch) -> None:
    real = subscriptions.decide_change

    def forgetful(account: Any, command: Any, now: datetime) -> Any:
        mine = account.status.subscription
        if mine is not None:
            unused = msgspec.structs.replace(mine, granted=0)
            account = with_status(account, msgspec.structs.replace(account.status, subscription=unused))
        return real(account, command, now)

    patch.setitem(account_rules._DECIDERS, ChangePlan, forgetful)


def who_cancelled_is_given_grace_too(patch: Patch) -> None:
    real = applying.plan_in_force

    def kind(account: Any, now: datetime, plans: Any) -> Any:
        mine = account.status.subscription
        if mine is not None:
            kept = msgspec.structs.replace(mine, cancels=False)
            account = with_status(account, msgspec.structs.replace(account.status, subscription=kept))
        return real(account, now, plans)

    patch.setattr(applying, "plan_in_force", kind)


def a_guests_disputes_stay_behind(patch: Patch) -> None:
    def moved_in(account: Any, event: Any) -> Any:
        return merging.moved_in(account, msgspec.structs.replace(event, disputes=()))

    patch.setitem(account_rules._EVOLVERS, books.e.CreditsMovedIn, moved_in)


def credits_that_nobody_paid_for_make_up_for_a_debt(patch: Patch) -> None:
    def generous(account: Any, debt: int, now: datetime) -> Any:
        part = min(debt, lots.available(account.lots, now))
        slices = lots.take(account.lots, part, now) if part > 0 else None
        return [] if slices is None else [books.e.DebtRepaid(credits=part, slices=slices)]

    for module in (holding, reversals, merging):
        patch.setattr(module, "set_off", generous)


def a_dispute_takes_what_had_lapsed(patch: Patch) -> None:
    patch.setitem(account_rules._DECIDERS, ReverseCredits, reversals._reverse)


def a_larger_plan_outlives_its_money(patch: Patch) -> None:
    patch.setattr(revoking, "_changed", lambda period, _: period)


BROKEN: list[Callable[[Patch], None]] = [
    a_late_capture_is_allowed,
    spent_credits_are_not_owed,
    what_a_guest_spent_is_forgotten,
    an_upgrade_grants_the_whole_difference,
    a_debt_does_not_stop_a_hold,
    lots_are_used_newest_first,
    a_released_slice_of_a_lapsed_lot_comes_back,
    another_body_gets_the_first_answer,
    a_part_captured_loses_a_unit_of_money,
    the_journal_forgets_breakage,
    a_snapshot_is_of_the_state_before,
    what_the_other_process_appended_is_not_read,
    credits_of_another_period_count_as_used,
    the_money_of_a_lapsed_lot_stays_deferred,
    upgrades_add_up_beyond_the_larger_plan,
    who_cancelled_is_given_grace_too,
    a_guests_disputes_stay_behind,
    credits_that_nobody_paid_for_make_up_for_a_debt,
    a_dispute_takes_what_had_lapsed,
    a_larger_plan_outlives_its_money,
]


@pytest.mark.slow_suite
@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_the_machine_finds(broken: Callable[[Patch], None], harness: Harness) -> None:
    with pytest.MonkeyPatch.context() as patch:
        broken(patch)
        for seed in range(LIVES):
            try:
                live(seed)
            except AssertionError:
                # Nothing else counts: a mutation that no longer fits the code must not pass for found.
                return
    pytest.fail(f"not found in {LIVES} lives")
